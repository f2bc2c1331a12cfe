"""The Franka FR3 with its hand: its model, its embodiment, and the arm at an address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from vla.control.geometry import ArmGeometry
from vla.embodiment import Embodiment
from vla.robots.cameras import CameraDevice
from vla.robots.franka import FrankaConfig, FrankaRobot
from vla.robots.kinematics import Kinematics
from vla.robots.named import ArmSettings
from vla.robots.shapes import arm_geometry

FOLDER = Path(__file__).parent / "descriptions"
JOINTS = tuple(f"joint{number}" for number in range(1, 8))
#: Of the arm's base in the frame of the table before it, m; the axes are parallel.
BASE_POSITION = (-0.5, 0.0, 0.0)


def fr3_embodiment() -> Embodiment:
    """Joint targets at 10 Hz within the FR3's limits, no cameras."""
    return Embodiment.load(FOLDER / "fr3.json")


def fr3_kinematics() -> Kinematics:
    """In the frame of the table, tool between the fingertips."""
    return Kinematics.load(FOLDER / "fr3.xml", JOINTS, "tcp", home_q=np.array(fr3_embodiment().home_q))


def fr3_geometry() -> ArmGeometry:
    """Arm, gripper and table."""
    return arm_geometry(FOLDER / "fr3.xml", JOINTS, "tcp")


def fr3(
    host: str,
    *,
    embodiment: Embodiment | None = None,
    cameras: Mapping[str, CameraDevice] | None = None,
    config: FrankaConfig | None = None,
) -> FrankaRobot:
    """An FR3 behind its control box.

    Args:
        host: address of the control box.
        embodiment: joint targets (default), or that of a policy that moves the tool.
        cameras: by name, one for each of the embodiment's.
        config: all but the host; place and tool as in the model by default.
    """
    config = replace(config or FrankaConfig(host=host, base_position=BASE_POSITION), host=host)
    return FrankaRobot(config, embodiment or fr3_embodiment(), fr3_kinematics(), cameras, fr3_geometry())


def named(settings: ArmSettings) -> FrankaRobot:
    """``--robot fr3 --host ADDRESS``."""
    settings.need("host")
    arm, config = (
        settings.arm(fr3_embodiment()),
        FrankaConfig(host=settings.host, base_position=BASE_POSITION),
    )
    config = replace(
        config,
        speed=config.speed * settings.speed,
        deadman_s=settings.deadman_s(config.deadman_s, arm.control_hz),
    )
    return fr3(settings.host, embodiment=arm, cameras=settings.devices(), config=config)
