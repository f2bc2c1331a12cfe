"""The driver of servo arms against simulated buses, the vendors' own clients between them."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

import vla.testing
from tests.robots.servo_arms import STILL, driver, embodiment, make_bus, small_step
from vla.errors import ConfigError, RobotError, UnknownNameError
from vla.robots import dynamixel as dynamixel_bus
from vla.robots import feetech as feetech_bus
from vla.robots.calibration import CalibrationError
from vla.robots.heartbeat import Heartbeat
from vla.robots.servo_arm import ServoArm, ServoArmConfig
from vla.robots.sim import SimRobot
from vla.robots.so101 import so101, so101_embodiment, so101_kinematics
from vla_envs.counterparts.instruments import PlantCamera, PlantClock, true_calibration
from vla_envs.counterparts.process import ServoCounterpart
from vla_envs.tabletop.arms import load_arm
from vla_envs.tabletop.embodiments import tabletop_embodiment
from vla_envs.tabletop.env import TabletopEnv
from vla_envs.tabletop.scene import ARM_PREFIX, compose


@pytest.mark.parametrize("protocol", ["feetech", "dynamixel"])
def test_servo_arms_keep_the_contract_of_robots(protocol):
    with (
        ServoCounterpart(protocol) as scene,
        driver(scene, ServoArmConfig(deadman_s=0.3, paces=False)) as robot,
    ):
        vla.testing.check_robot(robot, settle_s=0.4)


def test_angles_are_those_of_the_joints_whichever_way_servos_are_mounted(scene: ServoCounterpart):
    with driver(scene) as robot:
        robot.connect()
        action = np.array([0.3, -0.4, 0.5, -0.2, 0.1, -1.0], np.float32)
        for _ in range(12):
            reading = robot.command(action)
        np.testing.assert_allclose(scene.state()["angles"][:5], action[:5], atol=0.003)
        np.testing.assert_allclose(reading.observation.state["joint_position"], action[:5], atol=0.003)
        assert reading.observation.state["gripper_opening"][0] == pytest.approx(1.0, abs=0.01)
        for _ in range(30):
            reading = robot.command(np.append(action[:5], np.float32(1.0)))
        assert reading.observation.state["gripper_opening"][0] == pytest.approx(0.0, abs=0.01)


def test_connecting_moves_nothing(scene: ServoCounterpart):
    with driver(scene) as robot:
        before = scene.state()["angles"]
        robot.connect()
        scene.advance(1.0)
        np.testing.assert_allclose(scene.state()["angles"], before, atol=0.003)


def test_a_far_target_is_approached_at_the_largest_speed_and_counted(scene: ServoCounterpart):
    with driver(scene, ServoArmConfig(deadman_s=None, max_speed_rad_s=1.0)) as robot:
        before = robot.connect().observation.state["joint_position"]
        reading = robot.command(np.append(np.clip(before + 3.0, -1.6, 1.6), -1.0).astype(np.float32))
        moved = np.abs(reading.observation.state["joint_position"] - before)
        assert moved.max() <= 1.0 / robot.embodiment.control_hz + 0.003
        assert reading.info["limited"] == 1


def test_stopping_holds_with_torque_on_and_a_grip_is_kept(scene: ServoCounterpart):
    with driver(scene) as robot:
        robot.connect()
        closed = small_step(robot)
        closed[-1] = 1.0
        robot.command(closed)
        robot.stop()
        servos = scene.state()["servos"]
        assert all(servo["torque"] for servo in servos)
        assert servos[5]["goal"] == robot.calibration.gripper.opening_count(0.0)
        with pytest.raises(RobotError, match="was stopped"):
            robot.command(closed)


def test_torque_goes_off_only_when_asked_for(scene: ServoCounterpart):
    with driver(scene) as robot:
        robot.connect()
        rested = robot.rest(np.zeros(5), seconds=0.5)
        for _ in range(10):
            rested = robot.command(np.append(np.zeros(5), -1.0).astype(np.float32))
        np.testing.assert_allclose(rested.observation.state["joint_position"], 0.0, atol=0.004)
        robot.release()
        assert not any(servo["torque"] for servo in scene.state()["servos"])
        with pytest.raises(RobotError, match="was released"):
            robot.command(np.zeros(6, np.float32))
        robot.read()  # an arm that is led by hand can be read


def test_silence_holds_the_arm_and_commands_are_refused_until_connected():
    with ServoCounterpart("feetech") as scene, driver(scene, ServoArmConfig(deadman_s=0.1)) as robot:
        robot.connect()
        action = small_step(robot)
        robot.command(action)
        time.sleep(0.5)
        with pytest.raises(RobotError, match="without a command"):
            robot.command(action)
        robot.connect()
        robot.command(action)


def test_the_heart_does_not_fall_silent_while_it_beats():
    fallen: list[bool] = []
    heart = Heartbeat(0.2, lambda: fallen.append(True))
    for _ in range(5):
        heart.beat()
        time.sleep(0.01)
    heart.rest()
    time.sleep(0.3)
    heart.close()
    assert not fallen
    assert not heart.beating


def test_cameras_and_joints_have_to_fit_the_embodiment(feetech: ServoCounterpart):
    calibration = true_calibration(feetech)
    with pytest.raises(ConfigError, match="nothing is given for"):
        ServoArm(make_bus(feetech), calibration, so101_kinematics(), embodiment(calibration), config=STILL)
    with pytest.raises(UnknownNameError, match="front"):
        ServoArm(
            make_bus(feetech), calibration, so101_kinematics(), embodiment(calibration), cameras={"top": None}
        )  # type: ignore[dict-item]


def test_the_shipped_model_is_the_arm_that_the_policy_was_trained_on():
    arm = load_arm("so101")
    model = compose(arm, [])
    scene_arm = type(so101_kinematics())(
        model, [ARM_PREFIX + name for name in arm.joint_names], ARM_PREFIX + arm.tcp_site
    )
    ours = so101_kinematics()
    rng = np.random.default_rng(0)
    for q in rng.uniform(ours.low, ours.high, (20, 5)):
        for mine, theirs in zip(ours.pose(q), scene_arm.pose(q), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=2e-5)
    np.testing.assert_allclose(so101_embodiment().home_q, arm.home_q)
    np.testing.assert_allclose(ours.low, scene_arm.low, atol=1e-4)


@pytest.fixture(scope="module")
def table() -> Iterator[ServoCounterpart]:
    """The SO-101 before a scene of the tabletop suite, behind a Feetech bus."""
    with ServoCounterpart("feetech", task="place", clock="stepped", image_size=32) as scene:
        yield scene


@pytest.fixture
def tool_arm(table: ServoCounterpart) -> Iterator[ServoArm]:
    """Moved by its tool, as the shipped policy moves it."""
    arm = so101(
        table.port,
        true_calibration(table),
        embodiment=tabletop_embodiment(load_arm("so101"), 32),
        cameras={name: PlantCamera(table, name) for name in ("front", "wrist")},
        config=STILL,
        clock=PlantClock(table),
    )
    yield arm
    arm.close()


def test_the_tool_goes_where_it_goes_in_direct_simulation(table: ServoCounterpart, tool_arm: ServoArm):
    direct = SimRobot(TabletopEnv("place", "so101", image_size=32), seed=3)
    expected = direct.connect()
    told = table.reset(3)
    assert told["instruction"] == expected.observation.instruction
    reading = tool_arm.connect()
    down = np.array([0.01, 0.005, -0.01, 0.05, 1.0], np.float32)
    for step in range(8):
        action = down if step < 5 else -down
        reading, expected = tool_arm.command(action), direct.command(action)
    for name, value in expected.observation.state.items():
        np.testing.assert_allclose(reading.observation.state[name], value, atol=0.01, err_msg=name)
    seen, wanted = (r.observation.images["front"].astype(int) for r in (reading, expected))
    assert np.abs(seen - wanted).mean() < 2.0
    direct.close()


def test_a_released_arm_falls(table: ServoCounterpart, tool_arm: ServoArm):
    table.reset(0)
    height = tool_arm.connect().observation.state["tcp_position"][2]
    tool_arm.release()
    table.advance(1.0)
    assert tool_arm.read().observation.state["tcp_position"][2] < height - 0.02


def test_a_servo_in_another_mode_is_refused(scene: ServoCounterpart):
    with driver(scene) as robot:
        modes = {"feetech": (feetech_bus.MODE, 1, 0), "dynamixel": (dynamixel_bus.MODE, 1, 3)}
        register, turning, position = modes[scene.protocol]
        robot.bus.open()
        robot.bus.set_torque([2], on=False)
        robot.bus._write(2, register, [turning])  # type: ignore[attr-defined]
        with pytest.raises(CalibrationError, match="position_mode is False in the servo"):
            robot.connect()
        robot.bus._write(2, register, [position])  # type: ignore[attr-defined]
        robot.connect()
