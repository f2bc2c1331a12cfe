"""What a robot is to this package, simulated or not: read, command, stop, with declared limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vla.embodiment import Embodiment
from vla.errors import ActionError, ConfigError
from vla.types import Observation


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What a robot reports at one instant.

    Args:
        observation: cameras, state and the instruction in force.
        info: what else is known; a simulator says ``success``, ``wrong`` and ``aux`` (see ``Env``).
        done: the episode is over for a reason of the robot's own (a simulator's time limit).
        taken_s: when the oldest part of the observation was taken, by ``time.monotonic``; None where the
            robot does not say (its age is then judged by whether ``observation.time_s`` moves on).
    """

    observation: Observation
    info: Mapping[str, Any]
    done: bool
    taken_s: float | None = None


@runtime_checkable
class Robot(Protocol):
    """One arm behind one connection.

    Attributes:
        embodiment: its fields, ranges, workspace and rate: the limits the safety envelope keeps.
        deadman_s: the arm stops by itself when no command came for this long; None where nothing moves
            without a command (a simulator's clock stands still between commands).
    """

    embodiment: Embodiment
    deadman_s: float | None

    def connect(self) -> Reading:
        """Open the connection (a simulator: reset the scene), clear a stop; says where the arm is."""
        ...

    def read(self) -> Reading:
        """The latest reading."""
        ...

    def command(self, action: np.ndarray) -> Reading:
        """Send one action (float32 [action_dim], already inside the limits); says where it led.

        What is not one finite action raises :class:`~vla.errors.ActionError` and moves nothing
        (:func:`one_action`).
        """
        ...

    def set_instruction(self, text: str) -> Reading:
        """Put another instruction in force; an instruction that cannot be followed raises ``VlaError``."""
        ...

    def stop(self) -> None:
        """Stop and stay stopped: every further command is refused until :meth:`connect`."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


def one_action(embodiment: Embodiment, action: np.ndarray) -> np.ndarray:
    """The same, float32 [action_dim]; another shape or what is not finite raises :class:`ActionError`."""
    value = embodiment.check_action(action)
    if value.ndim != 1:
        raise ActionError(
            f"Command for {embodiment.name!r}: shape {value.shape}, expected one action of shape "
            f"({embodiment.action_dim},)."
        )
    return value


def check_deadman(what: str, deadman_s: float, embodiment: Embodiment) -> None:
    """Raise :class:`ConfigError` where an arm would be stopped between two commands that are in time.

    Args:
        what: its name, e.g. ``UrConfig.deadman_s``.
        deadman_s: without a command for this long the arm is stopped.
        embodiment: its ``control_hz``.
    """
    least = 2.0 / embodiment.control_hz
    if deadman_s < least:
        raise ConfigError(
            f"{what} is {deadman_s}; at {embodiment.control_hz:g} Hz it needs two control periods at least: "
            f"{least:g} s."
        )
