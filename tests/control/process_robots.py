"""Robots for a child process, made by name."""

import os
import time
from dataclasses import replace
from typing import Any

import numpy as np

from tests.eval.fake_suite import PointEnv
from vla.robots import Reading
from vla.robots.sim import SimRobot


def point(**settings: Any) -> SimRobot:
    return SimRobot(PointEnv("reach", "point"), seed=0, **settings)


class Faulty(SimRobot):
    """Logs what reaches it; at command number ``at`` it ``dies``, ``hangs``, ``raises`` or ``freezes``.

    A line of the log is ``stop``, ``command`` or ``fault`` and the monotonic time.
    """

    def __init__(self, log: str, fault: str = "", at: int = 3, control_hz: float = 10.0) -> None:
        super().__init__(PointEnv("reach", "point"), seed=0)
        self.embodiment = replace(self.embodiment, control_hz=control_hz)
        self.log, self.fault, self.at, self.frozen_s = log, fault, at, 0.0

    def read(self) -> Reading:
        return replace(super().read(), taken_s=self.frozen_s or time.monotonic())

    def command(self, action: np.ndarray) -> Reading:
        reading = super().command(action)
        self._note("command")
        if self._steps == self.at and self.fault:
            self._note("fault")
            if self.fault == "dies":
                os._exit(9)
            if self.fault == "hangs":
                time.sleep(60)
            if self.fault == "raises":
                raise ZeroDivisionError("the firmware divided by zero")
            self.frozen_s = time.monotonic()
        return reading

    def stop(self) -> None:
        super().stop()
        self._note("stop")

    def _note(self, what: str) -> None:
        with open(self.log, "a") as file:
            file.write(f"{what} {time.monotonic()}\n")


def faulty(**settings: Any) -> Faulty:
    return Faulty(**settings)


def broken() -> SimRobot:
    raise OSError("no such port: /dev/ttyACM0")
