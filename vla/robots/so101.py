"""The SO-101 (and the SO-100, the same to a driver): its model, its embodiment, and the arm on a port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from vla.control.geometry import ArmGeometry
from vla.embodiment import Camera, Embodiment
from vla.robots.calibration import ArmCalibration
from vla.robots.cameras import CameraDevice, OpenCVCamera
from vla.robots.feetech import FeetechBus
from vla.robots.kinematics import Kinematics
from vla.robots.named import ArmSettings
from vla.robots.servo_arm import Clock, ServoArm, ServoArmConfig
from vla.robots.shapes import arm_geometry

FOLDER = Path(__file__).parent / "descriptions"
#: Arm on a block of 90 mm behind the table's middle: the base is at x -0.235, y 0.03, z 0.09 m of the
#: table's frame.
MODEL = FOLDER / "so101.xml"
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
#: Five joints cannot hold a tool vertical everywhere: near the edge of the reach it gives way.
ORIENTATION_WEIGHT = 0.3


def so101_embodiment() -> Embodiment:
    """Joint targets at 30 Hz, a front and a wrist camera of 320 x 240 pixels."""
    return Embodiment.load(FOLDER / "so101.json")


def so101_kinematics() -> Kinematics:
    """In the frame of the table that the arm stands behind (:data:`MODEL`), tool at the fingertips."""
    home_q = np.array(so101_embodiment().home_q)
    return Kinematics.load(MODEL, JOINTS, "tcp", orientation_weight=ORIENTATION_WEIGHT, home_q=home_q)


def so101_geometry() -> ArmGeometry:
    """Arm, gripper and table."""
    return arm_geometry(MODEL, JOINTS, "tcp")


def so101(
    port: str,
    calibration: ArmCalibration,
    *,
    embodiment: Embodiment | None = None,
    cameras: Mapping[str, CameraDevice] | None = None,
    config: ServoArmConfig | None = None,
    clock: Clock | None = None,
) -> ServoArm:
    """An SO-101 on a serial port.

    Args:
        port: e.g. ``/dev/ttyACM0``.
        calibration: of this very arm.
        embodiment: joint targets (default), or that of a policy that moves the tool.
        cameras: by name, one for each of the embodiment's.
        config, clock: see :class:`~vla.robots.servo_arm.ServoArm`.
    """
    return ServoArm(
        FeetechBus(port),
        calibration,
        so101_kinematics(),
        embodiment or so101_embodiment(),
        cameras=cameras,
        geometry=so101_geometry(),
        config=config,
        clock=clock,
    )


def so101_from_files(
    port: str,
    calibration: str,
    *,
    cameras: Mapping[str, int | str] | None = None,
    width: int = 320,
    height: int = 240,
) -> ServoArm:
    """An SO-101 that follows joint targets, from what a person types.

    Args:
        port: e.g. ``/dev/ttyACM0``.
        calibration: file that ``vla robot calibrate`` wrote.
        cameras: roles (``front``, ``wrist`` ...) -> number, path or URL for OpenCV; none by default.
        width, height: of their pictures, px.
    """
    sources = dict(cameras or {})
    seen = tuple(Camera(name=name, role=name, height=height, width=width) for name in sources)  # type: ignore[arg-type]
    return so101(
        port,
        ArmCalibration.load(calibration),
        embodiment=replace(so101_embodiment(), cameras=seen),
        cameras={name: OpenCVCamera(name, source) for name, source in sources.items()},
    )


def named(settings: ArmSettings) -> ServoArm:
    """``--robot so101 --port PORT --calibration FILE``."""
    settings.need("port", "calibration")
    arm = settings.arm(so101_embodiment())
    config = ServoArmConfig(
        deadman_s=settings.deadman_s(ServoArmConfig.deadman_s or 0.0, arm.control_hz),
        max_speed_rad_s=ServoArmConfig.max_speed_rad_s * settings.speed,
        paces=False,  # its loop keeps the rate
    )
    calibration = ArmCalibration.load(settings.calibration)
    return so101(settings.port, calibration, embodiment=arm, cameras=settings.devices(), config=config)
