"""Robots for a child process, made by name."""

import os
import time
from typing import Any

import numpy as np

from tests.eval.fake_suite import PointEnv
from vla.robots import Reading
from vla.robots.sim import SimRobot


def point(**settings: Any) -> SimRobot:
    return SimRobot(PointEnv("reach", "point"), seed=0, **settings)


class Faulty(SimRobot):
    """Does as told by a file until the command number ``at``; then ``dies``, ``hangs`` or ``raises``."""

    def __init__(self, log: str, fault: str = "", at: int = 3) -> None:
        super().__init__(PointEnv("reach", "point"), seed=0)
        self.log, self.fault, self.at = log, fault, at

    def command(self, action: np.ndarray) -> Reading:
        reading = super().command(action)
        if self._steps == self.at and self.fault == "dies":
            os._exit(9)
        if self._steps == self.at and self.fault == "hangs":
            time.sleep(60)
        if self._steps == self.at and self.fault == "raises":
            raise ZeroDivisionError("the firmware divided by zero")
        return reading

    def stop(self) -> None:
        super().stop()
        with open(self.log, "a") as file:
            file.write(f"{time.monotonic()}\n")


def faulty(**settings: Any) -> Faulty:
    return Faulty(**settings)


def broken() -> SimRobot:
    raise OSError("no such port: /dev/ttyACM0")
