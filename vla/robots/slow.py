"""Slow motion: an arm that takes longer for each control period, and looks to its policy as if it did not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vla.embodiment import Embodiment, Field
from vla.errors import ConfigError
from vla.robots import Reading, Robot
from vla.robots.wrapper import RobotWrapper

#: Slower than this, a control period of a 10 Hz arm is longer than a deadman may be.
SLOWEST = 0.1


def check_speed(speed: float) -> None:
    """Raise :class:`ConfigError` for a share of full speed that no arm runs at."""
    if not SLOWEST <= speed <= 1:
        raise ConfigError(f"The speed is {speed:g}; expected {SLOWEST:g} .. 1 of the policy's own.")


def slowed(embodiment: Embodiment, speed: float) -> Embodiment:
    """The same arm at the rate at which it really is commanded."""
    check_speed(speed)
    return replace(embodiment, control_hz=embodiment.control_hz * speed)


class SlowRobot(RobotWrapper):
    """An arm in slow motion: the same path through the same poses, each step lasting ``1 / speed`` as long.

    Steps stay as large as they are, so that a policy sees what it was trained on; what is per second
    (velocities, observation times) is converted. Run its loop at the same ``speed``.

    Args:
        robot: whose ``control_hz`` is :func:`slowed`.
        embodiment: the arm at full speed, as the policy knows it.
        speed: share of full speed.

    Raises:
        ConfigError: no such speed, or the robot's rate is another.
    """

    def __init__(self, robot: Robot, embodiment: Embodiment, speed: float) -> None:
        if robot.embodiment != slowed(embodiment, speed):
            raise ConfigError(
                f"{embodiment.name!r} at speed {speed:g} runs at {embodiment.control_hz * speed:g} Hz, the "
                f"robot at {robot.embodiment.control_hz:g} Hz, or it is another arm."
            )
        super().__init__(robot)
        self.embodiment, self._speed = embodiment, speed
        self._per_second = np.concatenate([np.full(f.size, _is_speed(f)) for f in embodiment.action])

    def connect(self) -> Reading:
        return self._shown(super().connect())

    def read(self) -> Reading:
        return self._shown(super().read())

    def command(self, action: np.ndarray) -> Reading:
        return self._shown(super().command(np.where(self._per_second, action * self._speed, action)))

    def set_instruction(self, text: str) -> Reading:
        return self._shown(super().set_instruction(text))

    def _shown(self, reading: Reading) -> Reading:
        seen = reading.observation
        state = {
            field.name: seen.state[field.name] / (self._speed if _is_speed(field) else 1.0)
            for field in self.embodiment.state
        }
        return replace(reading, observation=replace(seen, state=state, time_s=seen.time_s * self._speed))


def _is_speed(field: Field) -> bool:
    return field.mode == "velocity"
