"""The driver, set up for the counterpart's table."""

from __future__ import annotations

from dataclasses import replace

from vla.errors import ConfigError
from vla.robots.named import ArmSettings
from vla.robots.ros2 import Ros2Robot, RosConfig, RosGripper
from vla.robots.ros2_arm import ros2_arm
from vla.robots.ur5e import ur5e_embodiment
from vla_envs.counterparts.ros.system import (
    CLOSED,
    GRIPPER,
    GRIPPER_TOPIC,
    JOINT_STATES,
    JOINTS,
    RECOVER,
    STOP,
    TRAJECTORY_TOPIC,
)
from vla_envs.counterparts.side_cameras import CounterpartCamera
from vla_envs.tabletop.arms import load_arm
from vla_envs.tabletop.embodiments import tabletop_embodiment

#: Limits of time are longer than an arm's: a counterpart shares its machine with everything else.
CONFIG = RosConfig(
    joints=JOINTS,
    trajectory_topic=TRAJECTORY_TOPIC,
    joint_states_topic=JOINT_STATES,
    gripper=RosGripper(joint=GRIPPER, topic=GRIPPER_TOPIC, open=0.0, closed=CLOSED),
    deadman_s=1.0,
    stale_s=0.5,
    stop_service=STOP,
    recover_service=RECOVER,
)


def counterpart_robot(
    host: str, *, rclpy: bool = False, image_size: int = 64, joints: bool = False
) -> Ros2Robot:
    """A driver for the counterpart at an address.

    Args:
        rclpy: by way of its ROS domain instead of its bridge.
        image_size: as the counterpart was started with.
        joints: absolute joint angles and no cameras instead of tool deltas and two.
    """
    embodiment = ur5e_embodiment() if joints else tabletop_embodiment(load_arm("ur5e"), image_size)
    devices = {camera.name: CounterpartCamera(camera.name, host) for camera in embodiment.cameras}
    url = "" if rclpy else f"ws://{host}:9090"
    return ros2_arm("ur5e", CONFIG, url=url, embodiment=embodiment, cameras=devices)


def named(settings: ArmSettings) -> Ros2Robot:
    """``--robot vla_envs.counterparts.ros.robot:named --host ADDRESS``: with its own cameras."""
    settings.need("host")
    if settings.cameras:
        raise ConfigError("The counterpart has cameras of its own: leave --cameras out.")
    arm = settings.arm(ur5e_embodiment())
    devices = {camera.name: CounterpartCamera(camera.name, settings.host) for camera in arm.cameras}
    config = replace(CONFIG, deadman_s=settings.deadman_s(CONFIG.deadman_s, arm.control_hz))
    return ros2_arm("ur5e", config, url=f"ws://{settings.host}:9090", embodiment=arm, cameras=devices)
