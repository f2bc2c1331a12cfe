"""The driver, set up for the counterpart's arm, tool and table."""

from __future__ import annotations

import numpy as np

from vla.embodiment import Embodiment
from vla.robots.actions import joint_embodiment
from vla.robots.kinematics import Kinematics
from vla.robots.ur import UrConfig, UrRobot
from vla_envs.counterparts.side_cameras import CounterpartCamera
from vla_envs.counterparts.ur.program import FLANGE_TO_TCP_M
from vla_envs.tabletop.arms import load_arm
from vla_envs.tabletop.embodiments import tabletop_embodiment
from vla_envs.tabletop.scene import ARM_PREFIX, compose

_PAYLOAD = (0.95, 0.0, 0.0, 0.05)  # kg and m: the 2F-85 with its coupling, Robotiq's manual
#: A counterpart shares its machine with everything else: longer than UrConfig's own, which are for an arm.
_DEADMAN_S, _WATCHDOG_HZ, _STALE_S = 1.0, 2.0, 0.5


def ur5e_kinematics() -> Kinematics:
    """The suite's UR5e with its gripper, in the world of the table."""
    arm = load_arm("ur5e")
    joints = tuple(ARM_PREFIX + name for name in arm.joint_names)
    return Kinematics(compose(arm, []), joints, ARM_PREFIX + arm.tcp_site, home_q=np.asarray(arm.home_q))


def ur5e_joints() -> Embodiment:
    """A UR5e by absolute joint angles: within half a turn of its home, the elbow within its range."""
    kinematics = ur5e_kinematics()
    low = np.maximum(kinematics.low, kinematics.home_q - np.pi)
    high = np.minimum(kinematics.high, kinematics.home_q + np.pi)
    return joint_embodiment("ur5e_joints", low, high, kinematics.home_q)


def counterpart_robot(host: str, *, image_size: int = 64, joints: bool = False) -> UrRobot:
    """A driver for the counterpart at an address.

    Args:
        image_size: as the counterpart was started with.
        joints: absolute joint angles and no cameras instead of tool deltas and two.
    """
    arm = load_arm("ur5e")
    config = UrConfig(
        host=host,
        base_position=arm.base_position,
        tcp_offset=(0.0, 0.0, FLANGE_TO_TCP_M, 0.0, 0.0, 0.0),
        payload=_PAYLOAD,
        deadman_s=_DEADMAN_S,
        watchdog_hz=_WATCHDOG_HZ,
        stale_s=_STALE_S,
    )
    embodiment = ur5e_joints() if joints else tabletop_embodiment(arm, image_size)
    devices = {c.name: CounterpartCamera(c.name, host) for c in embodiment.cameras}
    return UrRobot(config, embodiment, ur5e_kinematics(), devices)
