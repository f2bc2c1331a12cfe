"""A policy at 10 Hz and a driver at 100: smooth in between, and stopped by silence."""

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.control.bench_arm import ACCELERATION, GEOMETRY, JERK, VELOCITY, bench
from vla.control.safety import SafetyConfig, SafetyEnvelope
from vla.errors import ConfigError, RobotError
from vla.robots import Reading, Robot, one_action
from vla.robots.servo import Servo, ServoRobot
from vla.types import Observation

HOME = np.array([0.0, 0.4, 1.2])


class Ideal:
    """Is where it is told to be, at once; breaks down at a command, if told to."""

    def __init__(self, breaks_at: int = -1, boxed: bool = False) -> None:
        self.embodiment, self.deadman_s = bench(boxed=boxed), 5.0
        self.geometry = GEOMETRY
        self.q, self.sent, self.breaks_at, self.text = HOME.copy(), [], breaks_at, "rest"
        self.stopped = threading.Event()
        self.broke = self.moved = False

    def connect(self) -> Reading:
        self.stopped.clear()
        return self.read()

    def read(self) -> Reading:
        seen = Observation(
            images={}, state={"joint_position": self.q.astype(np.float32)}, instruction=self.text,
            embodiment="bench", time_s=float(len(self.sent)),
        )  # fmt: skip
        return Reading(observation=seen, info={}, done=False)

    def command(self, action: np.ndarray) -> Reading:
        self.q = one_action(self.embodiment, action).astype(float)
        self.sent.append(self.q)
        if len(self.sent) == self.breaks_at:
            raise OSError("the cable was pulled")
        return self.read()

    def set_instruction(self, text: str) -> Reading:
        self.text = text
        return self.read()

    def stop(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        self.stop()


def streamed(robot: Ideal, targets: list[np.ndarray]) -> np.ndarray:
    """What reaches the driver when it is aimed ten times a second."""
    servo = Servo(robot, SafetyEnvelope.of(robot), 0.1, 0.0)
    for k, target in enumerate(targets):
        servo.aim(target, 0.1 * k)
        for j in range(1, 11):
            servo.turn(0.1 * k + 0.01 * j)
    return np.array(robot.sent)


def test_a_moving_target_is_followed_without_stopping_between_actions() -> None:
    way = [HOME + np.array([0.05, 0, 0]) * k for k in range(1, 15)]
    sent = streamed(Ideal(), way)
    speed = np.diff(sent[:, 0]) * 100
    assert (speed[30:] > 0.4).all()  # 0.5 rad/s is asked for; it never comes to rest in between
    assert speed[30:].max() < 0.6
    assert np.abs(sent[-1] - way[-1]).max() < 0.15


def test_limits_of_motion_hold_at_the_drivers_rate_whatever_is_aimed_at() -> None:
    rng = np.random.default_rng(0)
    low, high = (np.array(x) for x in (bench().action[0].low, bench().action[0].high))
    sent = streamed(Ideal(), [rng.uniform(low, high) for _ in range(30)])
    sent = np.vstack([HOME.astype(np.float32).astype(float)] * 3 + [sent])
    for order, limit in enumerate((VELOCITY, ACCELERATION, JERK), start=1):
        found = np.abs(np.diff(sent, n=order, axis=0)).max(axis=0) * 100**order
        assert (found <= np.array(limit) + 2**order * 4e-7 * 100**order).all()


def wait_for(happened: Callable[[], bool]) -> None:
    for _ in range(3000):
        if happened():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never happened")


def test_it_is_a_robot_at_the_policys_rate_and_goes_where_it_is_told() -> None:
    inner = Ideal(boxed=True)
    robot = ServoRobot(inner, 10.0)
    assert isinstance(robot, Robot)
    assert (robot.embodiment.control_hz, robot.embodiment.action[0].max_jerk) == (10.0, ())
    assert "motion" not in SafetyEnvelope.of(robot).checks  # that is kept inside
    robot.connect()
    goal = HOME + 0.1
    robot.command(goal.astype(np.float32))
    wait_for(lambda: bool(np.abs(inner.q - goal).max() < 1e-5))
    assert robot.read().info["servo_safety"]["motion"] > 0
    assert robot.set_instruction("wave").observation.instruction == "wave"
    robot.close()
    with pytest.raises(RobotError, match="connect"):
        robot.command(goal.astype(np.float32))


def test_silence_stops_the_arm_and_the_next_command_says_so() -> None:
    inner = Ideal()
    inner.deadman_s = 0.05
    robot = ServoRobot(inner, 10.0)
    robot.connect()
    assert inner.stopped.wait(30)
    wait_for(lambda: bool(robot._fault))
    with pytest.raises(RobotError, match=r"no action came for .*connect\(\)"):
        robot.command(HOME.astype(np.float32))
    robot.close()


def test_a_fault_of_the_driver_stops_the_arm_and_is_named() -> None:
    inner = Ideal(breaks_at=3)
    robot = ServoRobot(inner, 10.0)
    robot.connect()
    assert inner.stopped.wait(30)
    with pytest.raises(RobotError, match="the cable was pulled"):
        robot.command(HOME.astype(np.float32))
    robot.close()


def test_what_cannot_be_moved_in_between_is_refused_by_name() -> None:
    inner = Ideal()
    with pytest.raises(ConfigError, match="runs at 100 Hz"):
        ServoRobot(inner, 200.0)
    inner.embodiment = bench(limited=False)
    with pytest.raises(ConfigError, match=r"\['joint_target'\] do not"):
        ServoRobot(inner, 10.0)


def test_checks_inside_are_turned_off_by_name_too(caplog: pytest.LogCaptureFixture) -> None:
    inner = Ideal()
    inner.embodiment = replace(inner.embodiment, name="loose")
    ServoRobot(inner, 10.0, SafetyConfig(disabled=("collision",)))
    assert "loose: SAFETY CHECKS TURNED OFF: collision" in caplog.text
