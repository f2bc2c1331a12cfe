"""A dry run: an arm that is looked at and never moved."""

from __future__ import annotations

import numpy as np

from vla.robots import Reading, one_action
from vla.robots.wrapper import RobotWrapper


class DryRobot(RobotWrapper):
    """A robot that is stopped as soon as it is connected, and stays so: its driver refuses every command.

    Commands are checked as a driver checks them and go no further; readings are real. Nothing can move it
    after a silence, so it has no deadman to fear.
    """

    def connect(self) -> Reading:
        reading = self._robot.connect()
        self._robot.stop()
        return reading

    def command(self, action: np.ndarray) -> Reading:
        one_action(self.embodiment, action)
        return self._robot.read()
