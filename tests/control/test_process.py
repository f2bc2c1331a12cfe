"""A driver in its own process. Time limits are generous; what is asserted is order and cause, not speed."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.control.process_robots import point
from tests.eval.fake_suite import PointEnv, PointExpert
from vla.control.loop import run_loop
from vla.control.safety import SafetyEnvelope
from vla.errors import ActionError, ConfigError, EnvError, RobotError
from vla.robots import Robot
from vla.robots.process import ProcessRobot
from vla.robots.wire import reading_from_wire, reading_to_wire
from vla.testing import assert_same, check_robot

HERE = "tests.control.process_robots"
LONG_S = 30.0  # a busy machine answers within it


def wait_for_stop(log: Path) -> None:
    """Until the log says that the arm was stopped."""
    deadline = time.monotonic() + LONG_S
    while not log.exists() or "stop" not in log.read_text():
        assert time.monotonic() < deadline, "nobody stopped the arm"
        time.sleep(0.01)


@pytest.fixture
def faulty(tmp_path: Path):  # type: ignore[no-untyped-def]
    made: list[ProcessRobot] = []

    def make(fault: str, **settings: float) -> tuple[ProcessRobot, Path]:
        log = tmp_path / "stops"
        arguments = {"log": str(log), "fault": fault}
        made.append(ProcessRobot(f"{HERE}:faulty", arguments, **{"answer_s": LONG_S, **settings}))
        return made[-1], log

    yield make
    for robot in made:
        robot.close()


def test_a_robot_in_a_process_is_a_robot() -> None:
    robot = ProcessRobot(f"{HERE}:point", deadman_s=5, answer_s=LONG_S)
    assert isinstance(robot, Robot)
    robot.deadman_s = None  # the world inside stands still between commands: nobody needs to wait for it
    check_robot(robot, instruction="reach the blue dot")


def test_what_comes_back_is_what_the_driver_said() -> None:
    inside, robot = point(), ProcessRobot(f"{HERE}:point", deadman_s=5, answer_s=LONG_S)
    here, there = inside.connect(), robot.connect()
    assert there.observation.images["front"].dtype == np.uint8
    assert_same({**reading_to_wire(here), "taken_s": 0}, {**reading_to_wire(there), "taken_s": 0}, "reading")
    assert there.taken_s is not None
    assert robot.embodiment == inside.embodiment
    again = reading_from_wire(reading_to_wire(here))
    assert_same(reading_to_wire(again), reading_to_wire(here), "wire")
    robot.close()


def test_silence_stops_the_arm_and_the_next_command_says_why(faulty) -> None:  # type: ignore[no-untyped-def]
    robot, log = faulty("", deadman_s=0.3)
    robot.connect()
    still = np.array([0, 0, 0, -1], np.float32)
    wait_for_stop(log)
    with pytest.raises(RobotError, match=r"had heard nothing for .*deadman_s is 0\.3.*connect\(\)"):
        robot.command(still)
    robot.connect()
    robot.command(still)


def test_a_dead_driver_is_an_error_that_names_the_cause_at_once(faulty) -> None:  # type: ignore[no-untyped-def]
    robot, _ = faulty("dies", deadman_s=5)
    robot.connect()
    still = np.array([0, 0, 0, -1], np.float32)
    robot.command(still)
    robot.command(still)
    with pytest.raises(RobotError, match="ended with code 9"):
        robot.command(still)
    with pytest.raises(RobotError, match="ended with code 9"):
        robot.read()
    robot.stop()


def test_a_killed_driver_is_named_by_its_signal(faulty) -> None:  # type: ignore[no-untyped-def]
    robot, _ = faulty("", deadman_s=5)
    robot.connect()
    os.kill(robot.pid, signal.SIGKILL)
    with pytest.raises(RobotError, match="killed by signal 9"):
        robot.read()


def test_a_driver_that_hangs_is_given_up_and_its_deadman_stops_the_arm(faulty) -> None:  # type: ignore[no-untyped-def]
    robot, log = faulty("hangs", deadman_s=0.3)
    robot.connect()
    still = np.array([0, 0, 0, -1], np.float32)
    robot.command(still)
    robot.command(still)
    robot._answer_s = 0.1
    with pytest.raises(RobotError, match=r"did not answer 'command' within 0\.1 s"):
        robot.command(still)
    wait_for_stop(log)
    os.kill(robot.pid, signal.SIGKILL)  # it sleeps: nobody needs to wait for it


def test_a_driver_that_breaks_down_stops_the_arm_and_shows_where(faulty) -> None:  # type: ignore[no-untyped-def]
    robot, log = faulty("raises", deadman_s=5)
    robot.connect()
    still = np.array([0, 0, 0, -1], np.float32)
    robot.command(still)
    robot.command(still)
    with pytest.raises(RobotError, match=r"(?s)arm was stopped.*ZeroDivisionError: the firmware"):
        robot.command(still)
    wait_for_stop(log)
    with pytest.raises(EnvError, match="is stopped"):
        robot.command(still)


def test_errors_keep_their_kind_across_the_border(faulty) -> None:  # type: ignore[no-untyped-def]
    robot, _ = faulty("", deadman_s=5)
    robot.connect()
    with pytest.raises(ConfigError, match="names no dot"):
        robot.set_instruction("fly away")
    with pytest.raises(ActionError, match="shape"):
        robot.command(np.zeros(7, np.float32))


def test_what_cannot_be_built_says_why() -> None:
    with pytest.raises(RobotError, match=r"no such port: /dev/ttyACM0"):
        ProcessRobot(f"{HERE}:broken")
    with pytest.raises(ConfigError, match="names no robot factory"):
        ProcessRobot(f"{HERE}:nobody")
    with pytest.raises(ConfigError, match="deadman_s"):
        ProcessRobot(f"{HERE}:point", deadman_s=0)


def test_when_the_loop_fails_the_arm_in_its_process_is_stopped(faulty) -> None:  # type: ignore[no-untyped-def]
    robot, log = faulty("raises", deadman_s=5)
    env = PointEnv("reach", "point")
    env.reset(seed=0)
    with pytest.raises(RobotError, match="divided by zero"):
        run_loop(robot, PointExpert(env), SafetyEnvelope.of(robot), max_steps=20, realtime=True)
    wait_for_stop(log)


def test_a_live_arm_is_not_driven_on_a_clock_that_stands_still(faulty) -> None:  # type: ignore[no-untyped-def]
    robot, _ = faulty("")
    with pytest.raises(ConfigError, match="real time"):
        run_loop(robot, PointExpert(PointEnv("reach", "point")), SafetyEnvelope.of(robot), max_steps=1)
