"""A robot of ``vla`` with the interface of ``lerobot.robots.Robot``."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lerobot.robots import Robot, RobotConfig

from vla.errors import ConfigError
from vla.robots.lerobot import LerobotView


@RobotConfig.register_subclass("vla")
@dataclass
class VlaRobotConfig(RobotConfig):
    """Which robot.

    Args:
        factory: ``module:function`` that makes it, e.g. ``vla.robots.so101:so101_from_files``.
        arguments: of that function.
        joints: names of the joints from base to wrist.
        gripper: name of the gripper.
    """

    factory: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    joints: list[str] = field(default_factory=list)
    gripper: str = "gripper"


class VlaRobot(Robot):
    """Every action passes the safety envelope; ``send_action`` returns what was sent."""

    config_class = VlaRobotConfig
    name = "vla"

    def __init__(self, config: VlaRobotConfig) -> None:
        super().__init__(config)
        module, _, function = config.factory.partition(":")
        if not function:
            raise ConfigError(
                f"factory is {config.factory!r}; expected module:function, such as "
                "vla.robots.so101:so101_from_files."
            )
        robot = getattr(importlib.import_module(module), function)(**config.arguments)
        self._view = LerobotView(robot, config.joints, config.gripper)

    @cached_property
    def observation_features(self) -> dict[str, Any]:
        return self._view.observation_features

    @cached_property
    def action_features(self) -> dict[str, Any]:
        return self._view.action_features

    @property
    def is_connected(self) -> bool:
        return self._view.is_connected

    def connect(self, calibrate: bool = True) -> None:
        self._view.connect()

    @property
    def is_calibrated(self) -> bool:
        return True  # connect() refuses an arm that is not

    def calibrate(self) -> None:
        """Calibrations are made with ``vla robot calibrate``."""

    def configure(self) -> None:
        """The driver does so when it connects."""

    def get_observation(self) -> dict[str, Any]:
        return self._view.get_observation()

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        return self._view.send_action(action)

    def disconnect(self) -> None:
        self._view.disconnect()
