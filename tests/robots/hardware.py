"""An arm behind ``--robot module:function`` that writes down what reaches it; its host is the file's path."""

from __future__ import annotations

import numpy as np

from tests.control.process_robots import Faulty
from tests.eval.fake_suite import point_embodiment
from vla.robots import Reading
from vla.robots.named import ArmSettings
from vla.robots.slow import slowed


class Point(Faulty):
    """The point, as an arm with a deadman; ``dark`` covers its lens."""

    def __init__(self, log: str, speed: float, dark: bool) -> None:
        super().__init__(log)
        self.embodiment, self.deadman_s = slowed(point_embodiment(), speed), 5.0
        self._dark = dark

    def connect(self) -> Reading:
        self._note("connect")
        return self._covered(super().connect())

    def read(self) -> Reading:
        return self._covered(super().read())

    def _covered(self, reading: Reading) -> Reading:
        if self._dark:
            for image in reading.observation.images.values():
                image[:] = np.uint8(7)
        return reading


def point(settings: ArmSettings) -> Point:
    settings.need("host")
    return Point(settings.host, settings.speed, dark=False)


def dark(settings: ArmSettings) -> Point:
    settings.need("host")
    return Point(settings.host, settings.speed, dark=True)
