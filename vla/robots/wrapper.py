"""A robot around a robot: what wraps one overrides what it changes, and passes everything else on."""

from __future__ import annotations

import numpy as np

from vla.control.geometry import Predicting, Shaped
from vla.embodiment import Embodiment
from vla.robots import Reading, Robot


class RobotWrapper:
    """The same arm; see :class:`vla.robots.Robot`.

    Args:
        robot: wrapped; closed with this one.
    """

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self.embodiment: Embodiment = robot.embodiment
        self.deadman_s: float | None = robot.deadman_s
        if isinstance(robot, Shaped):
            self.geometry = robot.geometry
        if isinstance(robot, Predicting):
            self.predict_joints = robot.predict_joints

    def connect(self) -> Reading:
        return self._robot.connect()

    def read(self) -> Reading:
        return self._robot.read()

    def command(self, action: np.ndarray) -> Reading:
        return self._robot.command(action)

    def set_instruction(self, text: str) -> Reading:
        return self._robot.set_instruction(text)

    def stop(self) -> None:
        self._robot.stop()

    def close(self) -> None:
        self._robot.close()
