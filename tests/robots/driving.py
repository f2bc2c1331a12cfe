"""What the tests of drivers in real time do: drive a little, wait for a refusal, see the arm at rest."""

from __future__ import annotations

import time

import numpy as np

from vla.errors import RobotError
from vla.robots import Reading, Robot
from vla_envs.counterparts.running import Counterpart

STILL = np.array([0, 0, 0, 0, -1], np.float32)
ASIDE = np.array([0, 0.01, 0, 0, -1], np.float32)


def drive(robot: Robot, steps: int, action: np.ndarray = ASIDE) -> Reading:
    """So many steps at 10 Hz."""
    reading = robot.read()
    for _ in range(steps):
        reading = robot.command(action)
        time.sleep(0.1)
    return reading


def refusal(robot: Robot, action: np.ndarray = ASIDE, seconds: float = 5.0) -> str:
    """What the driver says once it has noticed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            robot.command(action)
        except RobotError as error:
            return str(error)
        time.sleep(0.05)
    raise AssertionError("the driver went on")


def at_rest(counterpart: Counterpart, joints: str = "q", most_rad: float = 2e-3) -> bool:
    """Whether the arm behind the driver stands still, as the counterpart has it."""
    before = counterpart.state()[joints]
    time.sleep(0.3)
    return bool(np.abs(counterpart.state()[joints] - before).max() < most_rad)
