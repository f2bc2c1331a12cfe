"""The Franka driver against franka-sim: franka-rs itself, limits and reflexes enforced."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import mujoco
import numpy as np
import pytest

from tests.robots.driving import STILL, drive, refusal
from vla.errors import ConfigError, EnvError, MissingExtraError, RobotError
from vla.robots.cameras import CameraError
from vla.robots.checks import check_robot
from vla.robots.franka import FrankaConfig, FrankaRobot

pytest.importorskip("franka", reason="franka-rs (extra 'franka') is not installed")

from vla.robots.fr3 import fr3_embodiment, fr3_kinematics
from vla_envs.counterparts.franka.fr3 import LIMITS, fr3_xml
from vla_envs.counterparts.franka.robot import counterpart_robot
from vla_envs.counterparts.franka.serving import franka_sim_python
from vla_envs.counterparts.running import Counterpart, franka_counterpart
from vla_envs.tabletop.arms import panda

HOST = "127.0.0.31"


@pytest.fixture(scope="module")
def counterpart() -> Iterator[Counterpart]:
    try:
        franka_sim_python()
    except EnvError as error:
        pytest.skip(str(error))
    with franka_counterpart(HOST) as running:
        yield running


@pytest.fixture
def robot(counterpart: Counterpart) -> Iterator[FrankaRobot]:
    counterpart.fault("clear")
    counterpart.set_scene("pick", 0)
    robot = counterpart_robot(HOST)
    yield robot
    robot.close()


def at_rest(where: Callable[[], np.ndarray]) -> bool:
    before = where()
    time.sleep(0.3)
    return bool(np.abs(where() - before).max() < 5e-3)


def test_the_model_for_franka_sim_has_the_arms_frames_and_limits() -> None:
    model = mujoco.MjModel.from_xml_string(fr3_xml())
    data = mujoco.MjData(model)
    np.testing.assert_allclose(model.jnt_range, LIMITS)
    data.qpos[:] = panda.HOME_Q
    mujoco.mj_kinematics(model, data)
    flange = data.body("link7").xpos + 0.107 * data.body("link7").xmat.reshape(3, 3)[:, 2]
    np.testing.assert_allclose(flange, dh_flange(np.array(panda.HOME_Q)), atol=1e-6)


def dh_flange(q: np.ndarray) -> np.ndarray:
    """[3] of the flange by Franka's own table (modified Denavit-Hartenberg)."""
    a = (0, 0, 0, 0.0825, -0.0825, 0, 0.088)
    d = (0.333, 0, 0.316, 0, 0.384, 0, 0)
    alpha = (0, -np.pi / 2, np.pi / 2, np.pi / 2, -np.pi / 2, np.pi / 2, np.pi / 2)
    pose = np.eye(4)
    for i in range(7):
        ca, sa, c, s = np.cos(alpha[i]), np.sin(alpha[i]), np.cos(q[i]), np.sin(q[i])
        pose = pose @ np.array(
            [
                [c, -s, 0, a[i]],
                [s * ca, c * ca, -sa, -d[i] * sa],
                [s * sa, c * sa, ca, d[i] * ca],
                [0, 0, 0, 1],
            ]
        )
    return (pose @ np.array([0, 0, 0.107, 1.0]))[:3]


def test_the_driver_keeps_the_robots_contract(robot: FrankaRobot) -> None:
    check_robot(robot, settle_s=0.8)


def test_joint_targets_are_followed(counterpart: Counterpart) -> None:
    counterpart.set_scene("pick", 0)
    robot = counterpart_robot(HOST, joints=True)
    q = robot.connect().observation.state["joint_position"]
    goal = np.append(q + 0.05, -1.0).astype(np.float32)
    drive(robot, 10, goal)
    np.testing.assert_allclose(robot.read().observation.state["joint_position"], goal[:7], atol=0.02)
    robot.close()


def test_the_mirror_follows_franka_sim(counterpart: Counterpart, robot: FrankaRobot) -> None:
    robot.connect()
    drive(robot, 5)
    time.sleep(0.5)
    state = counterpart.state()
    np.testing.assert_allclose(state["mirror_q"], state["q"], atol=0.02)


def test_the_hand_closes_and_opens(counterpart: Counterpart, robot: FrankaRobot) -> None:
    robot.connect()
    drive(robot, 12, np.array([0, 0, 0, 0, 1], np.float32))
    assert robot.read().observation.state["gripper_opening"] < 0.1
    drive(robot, 15, STILL)
    assert robot.read().observation.state["gripper_opening"] > 0.9


def test_stop_brings_the_arm_to_rest_and_refuses_until_connect(
    counterpart: Counterpart, robot: FrankaRobot
) -> None:
    robot.connect()
    drive(robot, 3)
    robot.stop()
    assert at_rest(lambda: counterpart.state()["q"])
    with pytest.raises(RobotError, match="connect"):
        robot.command(STILL)
    robot.connect()
    drive(robot, 2)


def test_silence_stops_the_arm_and_connect_starts_it_again(
    counterpart: Counterpart, robot: FrankaRobot
) -> None:
    robot.connect()
    drive(robot, 3)
    time.sleep(robot.config.deadman_s + 1.0)
    assert "deadman" in refusal(robot, STILL)
    assert at_rest(lambda: counterpart.state()["q"])
    robot.connect()
    drive(robot, 2)


def test_after_a_reflex_recover_clears_it_and_connect_goes_on(
    counterpart: Counterpart, robot: FrankaRobot
) -> None:
    robot.connect()
    drive(robot, 2)
    counterpart.fault("reflex")
    said = refusal(robot, STILL)
    assert "reflex" in said
    assert "recover()" in said
    assert at_rest(lambda: counterpart.state()["q"])
    with pytest.raises(RobotError, match=r"recover\(\)"):
        robot.connect()
    assert robot.recover() == "reflex"
    robot.connect()
    drive(robot, 2)


def test_a_lost_arm_is_named_and_connect_finds_it_again(counterpart: Counterpart, robot: FrankaRobot) -> None:
    robot.connect()
    drive(robot, 2)
    counterpart.fault("lost_connection")
    assert "connect()" in refusal(robot, STILL)
    with pytest.raises(RobotError, match=HOST):
        robot.connect()
    counterpart.fault("restart")
    robot.connect()
    drive(robot, 2)


def test_a_frozen_camera_is_refused_and_the_arm_stops(counterpart: Counterpart, robot: FrankaRobot) -> None:
    robot.connect()
    drive(robot, 2)
    counterpart.fault("freeze_cameras")
    with pytest.raises(CameraError, match="old"):
        drive(robot, 12)
    time.sleep(robot.config.deadman_s + 1.0)
    assert at_rest(lambda: counterpart.state()["q"])
    counterpart.fault("clear")
    robot.connect()
    drive(robot, 2)


def test_another_tool_than_the_models_is_refused(counterpart: Counterpart) -> None:
    counterpart.set_scene("pick", 0)
    config = FrankaConfig(host=HOST, base_position=(-0.5, 0, 0), realtime="ignore")
    robot = FrankaRobot(config, fr3_embodiment(), fr3_kinematics())
    with pytest.raises(RobotError, match=r"0\.1070 m apart.*flange_to_tcp"):
        robot.connect()
    robot.close()


def test_nobody_at_the_address_is_said_with_the_address() -> None:
    robot = counterpart_robot("127.0.0.98", joints=True)
    with pytest.raises(RobotError, match=r"127\.0\.0\.98"):
        robot.connect()
    robot.close()


def test_settings_out_of_range_and_a_missing_client_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="speed"):
        FrankaConfig(host=HOST, speed=2.0)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"vla\[franka\]"):
        FrankaRobot(FrankaConfig(host=HOST), fr3_embodiment(), fr3_kinematics())


def test_a_missing_environment_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLA_FRANKA_SIM_PYTHON", "/nowhere/python")
    with pytest.raises(EnvError, match="setup_counterpart"):
        franka_sim_python()
