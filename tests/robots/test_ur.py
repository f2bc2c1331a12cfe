"""The UR driver against the counterpart: ur-rtde itself, over the real protocols, in real time."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.robots.driving import STILL, at_rest, drive, refusal
from vla.errors import ConfigError, EnvError, MissingExtraError, RobotError
from vla.robots.cameras import CameraError
from vla.robots.checks import check_robot
from vla.robots.named import ArmSettings
from vla.robots.ur import UrConfig, UrRobot
from vla.session import HardwareConfig, SessionConfig, run_session

pytest.importorskip(
    "rtde_control", reason="ur-rtde (extra 'ur') has no wheel for this Python, or is not installed"
)

from vla.robots.ur5e import ur5e_embodiment, ur5e_kinematics
from vla_envs.counterparts.running import Counterpart, ur_counterpart
from vla_envs.counterparts.ur.robot import counterpart_robot

HOST = "127.0.0.21"


@pytest.fixture(scope="module")
def counterpart() -> Iterator[Counterpart]:
    with ur_counterpart(HOST) as running:
        yield running


@pytest.fixture
def robot(counterpart: Counterpart) -> Iterator[UrRobot]:
    counterpart.fault("clear")
    counterpart.fault("remote_control")
    counterpart.fault("release_emergency_stop")
    counterpart.set_scene("pick", 0)
    robot = counterpart_robot(HOST)
    if counterpart.state()["robot_mode"] != "RUNNING":  # a test before this one failed
        robot.power_on()
    yield robot
    robot.close()


def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def test_the_driver_keeps_the_robots_contract(robot: UrRobot) -> None:
    check_robot(robot, settle_s=0.3)


def test_joint_targets_keep_the_contract_too(counterpart: Counterpart) -> None:
    counterpart.set_scene("pick", 0)
    check_robot(counterpart_robot(HOST, joints=True), settle_s=0.3)


def test_connecting_records_what_the_controller_is_and_moves_nothing(
    counterpart: Counterpart, robot: UrRobot
) -> None:
    before = counterpart.state()["q"]
    reading = robot.connect()
    assert robot.record["model"] == "UR5"
    assert robot.record["payload_kg"] == pytest.approx(0.95)
    assert robot.record["disagreement"][0] < 1e-3
    assert reading.info["controller"] is robot.record
    np.testing.assert_allclose(counterpart.state()["q"], before, atol=2e-3)


def test_the_target_goes_on_from_the_last_one(counterpart: Counterpart, robot: UrRobot) -> None:
    start = robot.connect().observation.state["tcp_position"]
    end = drive(robot, 5)
    time.sleep(0.3)
    moved = robot.read().observation.state["tcp_position"] - start
    np.testing.assert_allclose(moved, [0, 0.05, 0], atol=2e-3)
    assert end.info["speed_limited"] == 0


def test_a_far_target_is_approached_at_the_speed_limit(counterpart: Counterpart) -> None:
    counterpart.set_scene("pick", 0)
    robot = counterpart_robot(HOST, joints=True)
    q = robot.connect().observation.state["joint_position"].astype(float)
    goal = np.append(q, -1.0).astype(np.float32)
    goal[0] += 1.0
    fastest = 0.0
    for _ in range(6):
        robot.command(goal)
        for _ in range(4):
            time.sleep(0.02)
            fastest = max(fastest, float(np.abs(counterpart.state()["qd"]).max()))
    assert fastest < 1.25 * robot.config.max_joint_speed
    assert robot.read().info["speed_limited"] > 0
    robot.close()


def test_stop_brings_the_arm_to_rest_and_refuses_until_connect(
    counterpart: Counterpart, robot: UrRobot
) -> None:
    robot.connect()
    drive(robot, 3)
    robot.stop()
    assert at_rest(counterpart)
    with pytest.raises(RobotError, match="connect"):
        robot.command(STILL)
    robot.connect()
    drive(robot, 2)


def test_silence_stops_the_arm_and_connect_starts_it_again(counterpart: Counterpart, robot: UrRobot) -> None:
    robot.connect()
    drive(robot, 3)
    time.sleep(robot.config.deadman_s + 0.3)
    assert at_rest(counterpart)
    assert "deadman" in refusal(robot)
    robot.connect()
    drive(robot, 2)


def test_a_killed_client_leaves_the_controllers_watchdog(counterpart: Counterpart, robot: UrRobot) -> None:
    robot.connect()
    drive(robot, 3)
    assert robot._link is not None
    seen = len(counterpart.events())
    robot._link._process.send_signal(signal.SIGKILL)
    until(lambda: any("watchdog" in event for event in counterpart.events()[seen:]))
    assert at_rest(counterpart)
    assert "its watchdog stops the arm" in refusal(robot)
    robot.connect()
    drive(robot, 2)


def test_after_a_protective_stop_recover_unlocks_and_connect_goes_on(
    counterpart: Counterpart, robot: UrRobot
) -> None:
    robot.connect()
    drive(robot, 2)
    counterpart.fault("protective_stop")
    assert "protective stop" in refusal(robot)
    assert at_rest(counterpart)
    with pytest.raises(RobotError, match=r"recover\(\)"):
        robot.connect()
    assert robot.recover() == "PROTECTIVE_STOP"
    robot.connect()
    drive(robot, 2)


def test_after_an_emergency_stop_power_on_and_connect_go_on(counterpart: Counterpart, robot: UrRobot) -> None:
    robot.connect()
    drive(robot, 2)
    counterpart.fault("emergency_stop")
    assert "emergency stop" in refusal(robot)
    assert at_rest(counterpart)
    with pytest.raises(RobotError, match="red button"):
        robot.recover()
    counterpart.fault("release_emergency_stop")
    with pytest.raises(RobotError, match=r"power_on\(\)"):
        robot.connect()
    robot.power_on()
    robot.connect()
    drive(robot, 2)


@pytest.mark.parametrize("fault", ["lost_socket", "lost_packets"])
def test_a_lost_connection_is_named_and_connect_finds_it_again(
    counterpart: Counterpart, robot: UrRobot, fault: str
) -> None:
    robot.connect()
    drive(robot, 2)
    counterpart.fault(fault)
    said = refusal(robot)
    assert "connection" in said or "no data" in said
    assert at_rest(counterpart)
    counterpart.fault("clear")
    robot.connect()
    drive(robot, 2)


def test_commands_lost_on_the_way_end_the_program_and_connect_uploads_it(
    counterpart: Counterpart, robot: UrRobot
) -> None:
    robot.connect()
    drive(robot, 2)
    seen = len(counterpart.events())
    counterpart.fault("deaf")
    assert "program" in refusal(robot)
    assert any("watchdog" in event for event in counterpart.events()[seen:])
    assert at_rest(counterpart)
    counterpart.fault("clear")
    robot.connect()
    drive(robot, 2)


def test_local_control_is_refused_and_said(counterpart: Counterpart, robot: UrRobot) -> None:
    robot.connect()
    drive(robot, 2)
    counterpart.fault("local_control")
    assert "local control" in refusal(robot)
    with pytest.raises(RobotError, match="Remote"):
        robot.connect()
    counterpart.fault("remote_control")
    robot.connect()
    drive(robot, 2)


def test_a_controller_that_refuses_or_reboots_is_named(counterpart: Counterpart, robot: UrRobot) -> None:
    robot.connect()
    drive(robot, 2)
    counterpart.fault("reboot")
    assert "connect()" in refusal(robot)
    with pytest.raises(RobotError, match=HOST):
        robot.connect()
    until(lambda: counterpart.state()["robot_mode"] == "POWER_OFF")
    robot.power_on()
    robot.connect()
    drive(robot, 2)


def test_a_frozen_camera_is_refused_and_the_arm_stops(counterpart: Counterpart, robot: UrRobot) -> None:
    robot.connect()
    drive(robot, 2)
    counterpart.fault("freeze_cameras")
    with pytest.raises(CameraError, match="old"):
        drive(robot, 12)
    time.sleep(robot.config.deadman_s + 0.2)
    assert at_rest(counterpart)
    counterpart.fault("clear")
    robot.connect()
    drive(robot, 2)


def test_another_tool_than_the_models_is_refused(counterpart: Counterpart) -> None:
    counterpart.set_scene("pick", 0)
    config = UrConfig(
        host=HOST, base_position=(-0.52, 0, 0), tcp_offset=(0, 0, 0.12, 0, 0, 0), payload=(0.95, 0, 0, 0.05)
    )
    robot = UrRobot(config, ur5e_embodiment(), ur5e_kinematics())
    with pytest.raises(RobotError, match=r"0\.0455 m .*tcp_offset"):
        robot.connect()
    robot.close()


def test_a_second_counterpart_at_an_address_is_refused(counterpart: Counterpart) -> None:
    with pytest.raises(EnvError, match="already runs"):
        ur_counterpart(HOST)
    assert counterpart.state()["robot_mode"] == "RUNNING"


def test_nobody_at_the_address_is_said_with_the_address() -> None:
    robot = counterpart_robot("127.0.0.99")
    with pytest.raises(RobotError, match=r"127\.0\.0\.99"):
        robot.connect()
    robot.close()


def test_settings_out_of_range_and_missing_cameras_are_refused() -> None:
    with pytest.raises(ConfigError, match="gain"):
        UrConfig(host=HOST, tcp_offset=(0,) * 6, payload=(1, 0, 0, 0), gain=5000.0)
    good = counterpart_robot(HOST)
    with pytest.raises(ConfigError, match="front"):
        UrRobot(good.config, good.embodiment, ur5e_kinematics(), {})


def test_a_missing_client_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    good = counterpart_robot(HOST, joints=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"vla\[ur\]"):
        UrRobot(good.config, good.embodiment, ur5e_kinematics())


def test_the_shipped_policy_drives_it_by_name_and_a_dry_run_moves_nothing(counterpart: Counterpart) -> None:
    counterpart.fault("clear")
    counterpart.set_scene("pick", 0)
    before = np.array(counterpart.state()["q"])
    for dry_run in (True, False):
        said: list[str] = []
        config = SessionConfig(
            robot="vla_envs.counterparts.ur.robot:named",
            policy="learned",
            planner="",
            hardware=HardwareConfig(
                arm=ArmSettings(host=HOST, speed=1.0), embodiment="ur5e", dry_run=dry_run, confirmed=True,
                seconds=1.5,
            ),
        )  # fmt: skip
        result = run_session(config, "pick up the red cube", say=said.append)
        moved = np.abs(np.array(counterpart.state()["q"]) - before).max()
        assert result.loop.steps == 15
        assert ("DRY RUN" in "\n".join(said)) == dry_run
        assert (moved < 2e-3) == dry_run
        assert "collision" in result.safety
