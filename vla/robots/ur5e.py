"""The UR5e with a Robotiq 2F-85: its model, its embodiment, and the arm at an address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from vla.control.geometry import ArmGeometry
from vla.embodiment import Embodiment
from vla.robots.cameras import CameraDevice
from vla.robots.kinematics import Kinematics
from vla.robots.named import ArmSettings
from vla.robots.shapes import arm_geometry
from vla.robots.ur import UrConfig, UrRobot

FOLDER = Path(__file__).parent / "descriptions"
JOINTS = (
    "shoulder_pan_joint",
    "shoulder_lift_joint",
    "elbow_joint",
    "wrist_1_joint",
    "wrist_2_joint",
    "wrist_3_joint",
)
#: Of the arm's base in the frame of the table before it, m; the axes are parallel.
BASE_POSITION = (-0.52, 0.0, 0.0)
#: m, from the flange to the middle between the fingertips: coupling 10.8 mm, gripper 154.7 mm.
TCP_HEIGHT = 0.16549975495588637
PAYLOAD = (0.95, 0.0, 0.0, 0.05)  # kg and m: gripper with coupling, Robotiq's manual


def ur5e_embodiment() -> Embodiment:
    """Joint targets at 10 Hz within half a turn of home, no cameras."""
    return Embodiment.load(FOLDER / "ur5e.json")


def ur5e_kinematics() -> Kinematics:
    """In the frame of the table, tool between the fingertips."""
    home_q = np.array(ur5e_embodiment().home_q)
    return Kinematics.load(FOLDER / "ur5e.xml", JOINTS, "tcp", home_q=home_q)


def ur5e_config(host: str) -> UrConfig:
    """Tool, payload and place as in the model."""
    return UrConfig(
        host=host,
        base_position=BASE_POSITION,
        tcp_offset=(0.0, 0.0, TCP_HEIGHT, 0.0, 0.0, 0.0),
        payload=PAYLOAD,
    )


def ur5e_geometry() -> ArmGeometry:
    """Arm, gripper and table."""
    return arm_geometry(FOLDER / "ur5e.xml", JOINTS, "tcp")


def ur5e(
    host: str,
    *,
    embodiment: Embodiment | None = None,
    cameras: Mapping[str, CameraDevice] | None = None,
    config: UrConfig | None = None,
) -> UrRobot:
    """A UR5e behind its controller.

    Args:
        host: address of the controller.
        embodiment: joint targets (default), or that of a policy that moves the tool.
        cameras: by name, one for each of the embodiment's.
        config: all but the host; :func:`ur5e_config` by default.
    """
    config = replace(config or ur5e_config(host), host=host)
    return UrRobot(config, embodiment or ur5e_embodiment(), ur5e_kinematics(), cameras, ur5e_geometry())


def named(settings: ArmSettings) -> UrRobot:
    """``--robot ur5e --host ADDRESS``."""
    settings.need("host")
    arm, config = settings.arm(ur5e_embodiment()), ur5e_config(settings.host)
    config = replace(
        config,
        max_joint_speed=config.max_joint_speed * settings.speed,
        deadman_s=settings.deadman_s(config.deadman_s, arm.control_hz),
    )
    return ur5e(settings.host, embodiment=arm, cameras=settings.devices(), config=config)
