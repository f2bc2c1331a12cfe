"""After each fault the arm holds, the error names servo and cause, and the documented recovery works."""

from dataclasses import replace

import numpy as np
import pytest

from tests.robots.servo_arms import driver, embodiment, make_bus, other_model, small_step
from vla.errors import RobotError
from vla.robots.calibration import CalibrationError
from vla.robots.cameras import CameraError
from vla.robots.servo_arm import ServoArm
from vla.robots.servo_bus import ServoError
from vla.robots.so101 import so101_kinematics
from vla_envs.counterparts.faults import KINDS
from vla_envs.counterparts.instruments import PlantCamera, true_calibration
from vla_envs.counterparts.process import ServoCounterpart

PASSING = ("lost", "bad_checksum", "truncated", "garbage")  # once: asked again
LATCHED = ("overload", "overheat")
#: fault that stays -> the cause its error names.
LASTING = {
    "silent": "silent", "lost": "silent", "truncated": "damaged", "bad_checksum": "damaged",
    "overload": "overload", "overheat": "overheat", "voltage": "voltage",
}  # fmt: skip


def keep_commanding(robot: ServoArm, action: np.ndarray) -> None:
    for _ in range(30):
        robot.command(action)


def test_every_kind_of_fault_is_tried():
    assert {*PASSING, *LASTING} == set(KINDS)


@pytest.mark.parametrize("kind", PASSING)
def test_a_passing_disturbance_is_asked_about_again_and_counted(scene: ServoCounterpart, kind: str):
    with driver(scene) as robot:
        robot.connect()
        action = small_step(robot)
        scene.fault(kind, servo=3, count=1)
        reading = robot.command(action)
        for _ in range(6):
            reading = robot.command(action)
        np.testing.assert_allclose(reading.observation.state["joint_position"], action[:5], atol=0.004)
        if kind != "garbage":  # noise before an answer is skipped
            assert reading.info["repeated"] >= 1


@pytest.mark.parametrize("kind", LASTING)
def test_a_lasting_fault_stops_the_arm_and_names_servo_and_cause(scene: ServoCounterpart, kind: str):
    with driver(scene) as robot:
        robot.connect()
        action = small_step(robot)
        scene.fault(kind, servo=3)
        with pytest.raises(ServoError) as caught:
            robot.command(action)
        assert caught.value.cause == LASTING[kind]
        assert 3 in caught.value.servos
        others = [0, 1, 3, 4, 5]
        stood = scene.state()["angles"][others]
        scene.advance(1.0)
        np.testing.assert_allclose(scene.state()["angles"][others], stood, atol=0.003)
        with pytest.raises(RobotError, match=r"connect\(\)"):
            robot.command(action)
        scene.clear()
        if kind in LATCHED:
            with pytest.raises(ServoError, match=kind):
                robot.connect()
        if kind in LATCHED or (
            kind == "voltage" and scene.protocol == "dynamixel"
        ):  # its errors stay till a reboot
            assert robot.recover() == ["elbow_flex"]
        robot.connect()
        moved = robot.command(action)
        assert np.abs(moved.observation.state["joint_position"] - action[:5]).max() < 0.02


def test_a_pulled_cable_is_a_lost_port_and_plugging_it_in_is_enough(scene: ServoCounterpart):
    with driver(scene) as robot:
        robot.connect()
        action = small_step(robot)
        scene.unplug()
        with pytest.raises(ServoError, match="cannot be used") as caught:
            robot.command(action)
        assert caught.value.cause == "port"
        with pytest.raises(ServoError, match="Ports here"):
            robot.connect()
        scene.plug()
        robot.connect()
        robot.command(action)


def test_an_arm_whose_supply_failed_for_a_moment_is_limp_and_said_to_be(scene: ServoCounterpart):
    with driver(scene) as robot:
        robot.connect()
        action = small_step(robot)
        scene.power_cycle()
        with pytest.raises(ServoError, match="supply was interrupted") as caught:
            robot.command(action)
        assert caught.value.cause == "limp"
        robot.connect()
        assert all(servo["torque"] for servo in scene.state()["servos"])


@pytest.mark.parametrize(("kind", "says"), [("frozen", "one and the same picture"), ("lost", "is gone")])
def test_a_blind_arm_holds_still(feetech: ServoCounterpart, kind, says: str):
    with driver(feetech) as robot:
        robot.connect()
        action = small_step(robot)
        feetech.camera_fault("front", kind)
        with pytest.raises(CameraError, match=says):
            keep_commanding(robot, action)
        with pytest.raises(RobotError, match="stopped by an error"):
            robot.command(action)
        feetech.clear()
        robot.connect()
        robot.command(action)


def test_nobody_there_is_an_error_about_the_supply(feetech: ServoCounterpart):
    with driver(feetech) as robot:
        for servo in range(1, 7):
            feetech.fault("silent", servo)
        with pytest.raises(ServoError, match="check the arm's supply"):
            robot.connect()


def test_another_servo_than_calibrated_is_refused(scene: ServoCounterpart):
    calibration = other_model(true_calibration(scene))
    robot = ServoArm(
        make_bus(scene),
        calibration,
        so101_kinematics(),
        embodiment(calibration),
        cameras={"front": PlantCamera(scene, "front")},
    )
    with pytest.raises(ServoError, match="calibration was made with a another") as caught:
        robot.connect()
    assert caught.value.cause == "model"
    robot.close()


def test_another_calibration_than_the_servos_remember_is_refused_and_nothing_moves(scene: ServoCounterpart):
    calibration = true_calibration(scene)
    second = replace(calibration.joints[1], homing_offset=calibration.joints[1].homing_offset + 40)
    calibration = replace(calibration, joints=(calibration.joints[0], second, *calibration.joints[2:]))
    robot = ServoArm(
        make_bus(scene),
        calibration,
        so101_kinematics(),
        embodiment(calibration),
        cameras={"front": PlantCamera(scene, "front")},
    )
    with pytest.raises(CalibrationError, match=r"servo 2 \(shoulder_lift\): homing_offset"):
        robot.connect()
    robot.close()


def test_a_servo_stops_by_itself_when_its_host_dies(dynamixel: ServoCounterpart):
    """The bus watchdog: nothing on the host is needed for it, and connect() clears it."""
    with driver(dynamixel) as robot:
        robot.connect()
        robot.bus.guard(robot.calibration.servos, 0.2)
        goal = robot.calibration.counts(np.full(5, 0.5), 1.0)
        robot.bus.send(goal)
        dynamixel.advance(0.06)
        dynamixel.advance(0.3)
        stopped = dynamixel.state()
        assert {servo["watchdog"] for servo in stopped["servos"]} == {0xFF}
        robot.bus.send(goal)  # not obeyed any more
        dynamixel.advance(1.0)
        np.testing.assert_allclose(dynamixel.state()["angles"], stopped["angles"], atol=0.02)
        robot.connect()
        assert {servo["watchdog"] for servo in dynamixel.state()["servos"]} == {0}
