"""The ROS 2 driver against the counterpart: rosbridge's protocol over a real websocket, in real time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.robots.driving import ASIDE, drive, refusal
from tests.robots.driving import at_rest as still
from vla.errors import ConfigError, RobotError, UnknownNameError
from vla.robots.cameras import CameraError
from vla.robots.checks import check_robot
from vla.robots.named import ArmSettings
from vla.robots.ros2 import Ros2Robot, RosConfig, RosGripper
from vla.robots.ros2_arm import load_arm_file, named, ros2_arm
from vla.robots.ros_link import joints_of, trajectory
from vla.session import HardwareConfig, SessionConfig, run_session
from vla_envs.counterparts.ros.robot import CONFIG, counterpart_robot
from vla_envs.counterparts.ros.system import JOINTS
from vla_envs.counterparts.running import Counterpart, ros_counterpart

HOST = "127.0.0.41"


@pytest.fixture(scope="module")
def counterpart() -> Iterator[Counterpart]:
    with ros_counterpart(HOST) as running:
        yield running


@pytest.fixture
def robot(counterpart: Counterpart) -> Iterator[Ros2Robot]:
    counterpart.fault("clear")
    counterpart.set_scene("pick", 0)
    robot = counterpart_robot(HOST)
    yield robot
    robot.close()


def at_rest(counterpart: Counterpart) -> bool:
    time.sleep(0.3)  # its last trajectory ends, or it brakes
    return still(counterpart)


def test_the_driver_keeps_the_robots_contract(robot: Ros2Robot) -> None:
    check_robot(robot, settle_s=0.3)


def test_joint_targets_keep_the_contract_too(counterpart: Counterpart) -> None:
    counterpart.set_scene("pick", 0)
    check_robot(counterpart_robot(HOST, joints=True), settle_s=0.3)


def test_steps_add_up_from_target_to_target_and_the_gripper_closes(
    counterpart: Counterpart, robot: Ros2Robot
) -> None:
    start = robot.connect().observation.state["tcp_position"]
    drive(robot, 5)
    drive(robot, 8, np.array([0, 0, 0, 0, 1], np.float32))
    end = robot.read()
    moved = end.observation.state["tcp_position"] - start
    np.testing.assert_allclose(moved, [0, 0.05, 0], atol=2e-3)
    assert end.observation.state["gripper_opening"][0] < 0.3
    assert counterpart.state()["gripper"] > 0.7
    assert end.info == {"fault": "", "speed_limited": 0}


def test_a_far_target_is_approached_at_the_speed_limit(counterpart: Counterpart) -> None:
    counterpart.set_scene("pick", 0)
    robot = counterpart_robot(HOST, joints=True)
    q = robot.connect().observation.state["joint_position"].astype(float)
    goal = np.append(q, -1.0).astype(np.float32)
    goal[0] += 1.0
    robot.command(goal)
    fastest, deadline = 0.0, time.monotonic() + 0.8
    while time.monotonic() < deadline:
        fastest = max(fastest, float(np.abs(counterpart.state()["qd"]).max()))
    assert 0.8 * CONFIG.max_joint_speed < fastest < 1.25 * CONFIG.max_joint_speed
    assert robot.read().info["speed_limited"] == 1
    robot.close()


def test_stop_brings_the_arm_to_rest_calls_its_service_and_connect_ends_both(
    counterpart: Counterpart, robot: Ros2Robot
) -> None:
    robot.connect()
    drive(robot, 3)
    robot.stop()
    assert at_rest(counterpart)
    assert "stopped by a service" in counterpart.events()
    with pytest.raises(RobotError, match="connect"):
        robot.command(ASIDE)
    seen = counterpart.state()["q"]
    robot.connect()
    drive(robot, 5)
    assert np.abs(counterpart.state()["q"] - seen).max() > 0.02


def test_the_shipped_policy_drives_it_by_name(counterpart: Counterpart) -> None:
    counterpart.fault("clear")
    counterpart.set_scene("pick", 0)
    before = np.array(counterpart.state()["q"])
    hardware = HardwareConfig(
        arm=ArmSettings(host=HOST, speed=1.0), embodiment="ur5e", confirmed=True, seconds=1.5
    )
    robot = "vla_envs.counterparts.ros.robot:named"
    config = SessionConfig(robot=robot, policy="learned", planner="", hardware=hardware)
    result = run_session(config, "pick up the red cube", say=lambda _: None)
    assert result.loop.steps == 15
    assert np.abs(np.array(counterpart.state()["q"]) - before).max() > 0.05


def test_silence_stops_an_arm_that_has_far_to_go(counterpart: Counterpart) -> None:
    counterpart.fault("clear")
    counterpart.set_scene("pick", 0)
    slow = replace(CONFIG, max_joint_speed=0.1, deadman_s=0.4, stop_service="")
    robot = ros2_arm("ur5e", slow, url=f"ws://{HOST}:9090", embodiment=None)
    q = robot.connect().observation.state["joint_position"].astype(float)
    goal = np.append(q, -1.0).astype(np.float32)
    goal[0] += 1.0  # ten seconds away
    robot.command(goal)
    time.sleep(0.6)
    assert at_rest(counterpart)
    assert abs(counterpart.state()["q"][0] - q[0]) < 0.1
    with pytest.raises(RobotError, match=r"no command came for 0\.4 s"):
        robot.command(goal)
    robot.close()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("lost_socket", "connection to rosbridge"),
        ("garbled", "no JSON"),
        ("silent", "joint_state_broadcaster is lost"),
        ("missing_joint", "joint_states lacks wrist_3_joint"),
        ("nan_joint", "not finite"),
        ("inactive", "is the controller active"),
        ("blocked", "something in the way"),
    ],
)
def test_a_fault_is_named_the_arm_holds_and_connect_goes_on(
    counterpart: Counterpart, robot: Ros2Robot, fault: str, said: str
) -> None:
    robot.connect()
    drive(robot, 2)
    counterpart.fault(fault)
    assert said in refusal(robot)
    assert at_rest(counterpart)
    with pytest.raises(RobotError):
        robot.command(ASIDE)
    counterpart.fault("clear")
    robot.connect()
    drive(robot, 2)


def test_after_a_protective_stop_recover_goes_on_unless_the_arm_refuses(
    counterpart: Counterpart, robot: Ros2Robot
) -> None:
    robot.connect()
    drive(robot, 2)
    counterpart.fault("protective_stop")
    assert "is the controller active" in refusal(robot)
    counterpart.fault("refuse_recovery")
    with pytest.raises(RobotError, match="emergency stop is pressed"):
        robot.recover()
    counterpart.fault("clear")
    assert robot.recover() == "ready"
    robot.connect()
    drive(robot, 2)


def test_nobody_listening_is_found_before_anything_moves(counterpart: Counterpart, robot: Ros2Robot) -> None:
    counterpart.fault("inactive")
    with pytest.raises(RobotError, match="No controller listens on /joint_trajectory_controller"):
        robot.connect()


def test_a_frozen_camera_is_refused_and_the_arm_stops(counterpart: Counterpart, robot: Ros2Robot) -> None:
    robot.connect()
    drive(robot, 2)
    counterpart.fault("freeze_cameras")
    with pytest.raises(CameraError, match="old"):
        drive(robot, 12)
    assert at_rest(counterpart)


def test_nobody_at_the_address_is_said_with_the_remedy() -> None:
    robot = counterpart_robot("127.0.0.98")
    with pytest.raises(RobotError, match=r"127\.0\.0\.98:9090.*rosbridge_server"):
        robot.connect()
    robot.close()


def test_joint_states_are_read_by_name_in_any_order() -> None:
    message = {"name": ["b", "g", "a"], "position": [2.0, 9.0, 1.0], "velocity": []}
    q, qd = joints_of(message, ["a", "b"])
    assert q.tolist() == [1.0, 2.0]
    assert qd.tolist() == [0.0, 0.0]
    with pytest.raises(RobotError, match="3 names and 2 positions"):
        joints_of({**message, "position": [1.0, 2.0]}, ["a"])


def test_a_trajectory_says_when_it_is_to_be_there() -> None:
    point = trajectory(["a"], np.array([0.5]), 1.25)["points"][0]
    assert point["time_from_start"] == {"sec": 1, "nanosec": 250_000_000}
    assert point["velocities"] == []
    assert trajectory(["a"], np.array([0.5]), 1.0, at_rest=True)["points"][0]["velocities"] == [0.0]


def test_an_arm_is_described_by_a_file_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    said = {
        "model": "ur5e",
        "joints": list(JOINTS),
        "max_joint_speed": 1.0,
        "gripper": {"joint": "finger_joint", "topic": "/grip", "open": 0.0, "closed": 0.8},
    }
    path = tmp_path / "arm.json"

    def load(**changes: object) -> tuple[str, RosConfig]:
        path.write_text(json.dumps({**said, **changes}))
        return load_arm_file(str(path))

    model, config = load()
    assert (model, config.max_joint_speed, config.joints) == ("ur5e", 1.0, JOINTS)
    robot = named(ArmSettings(host="ws://127.0.0.98:9090", arm_file=str(path), speed=0.5))
    assert robot.config.max_joint_speed == 0.5
    assert robot.geometry is not None
    for changes in ({"speeed": 1}, {"stale_s": 9.0}, {"joints": ["a", "a"]}, {"gripper": {"joint": "x"}}):
        with pytest.raises(ConfigError, match=r"does not describe a ROS 2 arm"):
            load(**changes)
    load(model="ur7")
    with pytest.raises(UnknownNameError, match="ur7"):
        named(ArmSettings(arm_file=str(path)))
    load(joints=["a", "b"])
    with pytest.raises(ConfigError, match="2 names; the model has 6"):
        named(ArmSettings(host="ws://127.0.0.98:9090", arm_file=str(path)))


def test_a_gripper_of_two_kinds_means_the_same_by_its_command() -> None:
    grip = RosGripper(joint="f", topic="/g", open=0.04, closed=0.0)
    assert grip.message(-1.0)["data"] == [0.04]
    assert grip.message(1.0)["data"] == [0.0]
    point = replace(grip, kind="trajectory").message(0.0)["points"][0]
    assert point["positions"] == pytest.approx([0.02])
    assert grip.opening(0.03) == pytest.approx(0.75)
