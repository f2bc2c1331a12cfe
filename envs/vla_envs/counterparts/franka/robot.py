"""The driver, set up for the counterpart's arm and table."""

from __future__ import annotations

import numpy as np

from vla.embodiment import Embodiment
from vla.robots.actions import joint_embodiment
from vla.robots.franka import FrankaConfig, FrankaRobot
from vla.robots.kinematics import Kinematics
from vla_envs.counterparts.franka.fr3 import LIMITS
from vla_envs.counterparts.side_cameras import CounterpartCamera
from vla_envs.tabletop.arms import load_arm, panda
from vla_envs.tabletop.embodiments import tabletop_embodiment
from vla_envs.tabletop.scene import ARM_PREFIX, compose

_LINK7_TO_FLANGE_M = 0.107  # franka-sim 1.1.7 reports link 7's frame where an arm reports its flange's


def fr3_kinematics() -> Kinematics:
    """The suite's Panda with an FR3's joint limits, in the world of the table."""
    arm = load_arm("panda")
    model = compose(arm, [])
    joints = tuple(ARM_PREFIX + name for name in arm.joint_names)
    for name, limits in zip(joints, LIMITS, strict=True):
        model.joint(name).range = limits
    return Kinematics(model, joints, ARM_PREFIX + arm.tcp_site, home_q=np.asarray(arm.home_q))


def fr3_joints() -> Embodiment:
    """An FR3 by absolute joint angles."""
    low, high = np.array(LIMITS).T
    return joint_embodiment("fr3_joints", low, high, np.asarray(load_arm("panda").home_q))


def counterpart_robot(
    host: str, *, image_size: int = 64, joints: bool = False, speed: float = 0.7
) -> FrankaRobot:
    """A driver for the counterpart at an address.

    Args:
        image_size: as the counterpart was started with.
        joints: absolute joint angles and no cameras instead of tool deltas and two.
        speed: see ``FrankaConfig``; nobody is near this arm.
    """
    arm = load_arm("panda")
    config = FrankaConfig(
        host=host,
        base_position=arm.base_position,
        flange_to_tcp=panda.TCP_HEIGHT + _LINK7_TO_FLANGE_M,
        speed=speed,
        collision=(100.0, 100.0),
        deadman_s=1.0,  # a counterpart shares its machine with everything else
        stale_s=0.5,
        realtime="ignore",
    )
    embodiment = fr3_joints() if joints else tabletop_embodiment(arm, image_size)
    devices = {c.name: CounterpartCamera(c.name, host) for c in embodiment.cameras}
    return FrankaRobot(config, embodiment, fr3_kinematics(), devices)
