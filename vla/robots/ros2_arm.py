"""A ROS 2 arm by name: ``--robot ros2 --arm-file ARM.json``, with ``--host ws://...`` behind rosbridge.

The file says which arm it is (``docs/robots/ros2.md``)::

    {
      "model": "ur5e",
      "joints": ["shoulder_pan_joint", ...],
      "gripper": {"joint": "finger_joint", "topic": "/gripper/commands", "open": 0.0, "closed": 0.8}
    }

``model`` is ``ur5e``, ``fr3`` or ``so101``; every other key is one of :class:`vla.robots.ros2.RosConfig`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vla.control.geometry import ArmGeometry
from vla.embodiment import Embodiment
from vla.errors import ConfigError, UnknownNameError, VlaError
from vla.robots.cameras import CameraDevice
from vla.robots.fr3 import fr3_embodiment, fr3_geometry, fr3_kinematics
from vla.robots.kinematics import Kinematics
from vla.robots.named import ArmSettings
from vla.robots.rclpy_link import RclpyLink
from vla.robots.ros2 import Ros2Robot, RosConfig, RosGripper
from vla.robots.ros_link import RosLink
from vla.robots.rosbridge import RosbridgeLink
from vla.robots.so101 import so101_embodiment, so101_geometry, so101_kinematics
from vla.robots.ur5e import ur5e_embodiment, ur5e_geometry, ur5e_kinematics


@dataclass(frozen=True, kw_only=True)
class ArmModel:
    """What is known of an arm besides its connection."""

    embodiment: Callable[[], Embodiment]
    kinematics: Callable[[], Kinematics]
    geometry: Callable[[], ArmGeometry]


MODELS: Mapping[str, ArmModel] = {
    "ur5e": ArmModel(embodiment=ur5e_embodiment, kinematics=ur5e_kinematics, geometry=ur5e_geometry),
    "fr3": ArmModel(embodiment=fr3_embodiment, kinematics=fr3_kinematics, geometry=fr3_geometry),
    "so101": ArmModel(embodiment=so101_embodiment, kinematics=so101_kinematics, geometry=so101_geometry),
}


def ros2_arm(
    model: str,
    config: RosConfig,
    *,
    url: str = "",
    embodiment: Embodiment | None = None,
    cameras: Mapping[str, CameraDevice] | None = None,
) -> Ros2Robot:
    """An arm behind ROS 2.

    Args:
        model: of :data:`MODELS`.
        config: topics and joints.
        url: of rosbridge; empty: a ROS node of this process (rclpy).
        embodiment: joint targets (default), or that of a policy that moves the tool.
        cameras: by name, one for each of the embodiment's.
    """
    if model not in MODELS:
        raise UnknownNameError("model of an arm", model, MODELS)
    arm = MODELS[model]
    link: RosLink
    if url:
        link = RosbridgeLink(url, config.subscriptions, config.publications)
    else:
        link = RclpyLink(config.subscriptions, config.publications, config.services)
    return Ros2Robot(config, link, embodiment or arm.embodiment(), arm.kinematics(), cameras, arm.geometry())


def load_arm_file(path: str) -> tuple[str, RosConfig]:
    """Model and configuration of a file; a key that is none, or a wrong value, raises ConfigError."""
    try:
        said: dict[str, Any] = json.loads(Path(path).read_text())
        model, gripper = said.pop("model"), said.pop("gripper", None)
        said["joints"] = tuple(said["joints"])
        return str(model), RosConfig(**said, gripper=None if gripper is None else RosGripper(**gripper))
    except (OSError, ValueError, TypeError, KeyError, VlaError) as error:
        raise ConfigError(f"{path} does not describe a ROS 2 arm (docs/robots/ros2.md): {error}") from error


def named(settings: ArmSettings) -> Ros2Robot:
    """``--robot ros2 --arm-file FILE [--host ws://ADDRESS:9090]``."""
    settings.need("arm_file", *(["host"] if settings.host else []))
    model, config = load_arm_file(settings.arm_file)
    if model not in MODELS:
        raise UnknownNameError("model of an arm", model, MODELS)
    arm = settings.arm(MODELS[model].embodiment())
    config = replace(
        config,
        max_joint_speed=config.max_joint_speed * settings.speed,
        deadman_s=settings.deadman_s(config.deadman_s, arm.control_hz),
    )
    return ros2_arm(model, config, url=settings.host, embodiment=arm, cameras=settings.devices())
