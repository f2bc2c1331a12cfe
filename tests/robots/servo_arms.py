"""Simulated servo arms for tests: a bus in a process of its own, and the real drivers on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from vla.embodiment import Camera, Embodiment
from vla.robots.actions import joint_embodiment
from vla.robots.calibration import ArmCalibration
from vla.robots.dynamixel import DynamixelBus
from vla.robots.feetech import FeetechBus
from vla.robots.servo_arm import ServoArm, ServoArmConfig
from vla.robots.servo_bus import ServoBus
from vla.robots.so101 import so101_kinematics
from vla_envs.counterparts.instruments import PlantCamera, PlantClock, true_calibration
from vla_envs.counterparts.process import ServoCounterpart

BUSES = {"feetech": FeetechBus, "dynamixel": DynamixelBus}
#: A driver on a clock that stands still between commands needs no watch.
STILL = ServoArmConfig(deadman_s=None)


def embodiment(calibration: ArmCalibration) -> Embodiment:
    """Joint targets at 20 Hz and one small camera."""
    return joint_embodiment(
        "servo_arm",
        calibration.low,
        calibration.high,
        np.zeros(len(calibration.joints)),
        cameras=(Camera(name="front", role="front", height=24, width=32),),
        control_hz=20,
    )


def make_bus(scene: ServoCounterpart) -> ServoBus:
    return BUSES[scene.protocol](scene.port)


@contextmanager
def driver(scene: ServoCounterpart, config: ServoArmConfig = STILL) -> Iterator[ServoArm]:
    """The arm behind the counterpart, not connected; faults cleared before and after."""
    scene.clear()
    calibration = true_calibration(scene)
    robot = ServoArm(
        make_bus(scene),
        calibration,
        so101_kinematics(),
        embodiment(calibration),
        cameras={"front": PlantCamera(scene, "front")},
        config=config,
        clock=PlantClock(scene) if config.deadman_s is None else None,
    )
    try:
        yield robot
    finally:
        scene.clear()
        robot.close()


def small_step(robot: ServoArm, rad: float = 0.02) -> np.ndarray:
    """Every joint a little from where it is, the gripper open."""
    q = robot.read().observation.state["joint_position"]
    return np.append(q + rad, -1.0).astype(np.float32)


def other_model(calibration: ArmCalibration) -> ArmCalibration:
    first = replace(calibration.joints[0], model="another")
    return replace(calibration, joints=(first, *calibration.joints[1:]))
