"""A gamepad, through pygame (extra ``gamepad``): sticks move the tool, buttons grip and hand back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from vla.embodiment import Embodiment
from vla.errors import MissingExtraError, RobotError
from vla.teleop.jog import Jog

#: A stick that is pushed less than this is at rest.
DEAD_ZONE = 0.15
#: SDL's numbers of the usual pads: left stick, right stick, and the buttons A, B.
LEFT_X, LEFT_Y, RIGHT_X, RIGHT_Y, GRIP, HAND_BACK = 0, 1, 3, 4, 0, 1


class Pad(Protocol):
    """What is asked of pygame's joystick."""

    def get_axis(self, number: int, /) -> float: ...

    def get_button(self, number: int, /) -> bool: ...

    def get_init(self) -> bool: ...


class Gamepad:
    """The person has the arm from the first push on, until B.

    Args:
        pad: None: the first that is plugged in.
    """

    def __init__(self, pad: Pad | None = None) -> None:
        self._pad, self._jog = pad, None
        self._pygame: Any = None
        self._engaged = self._closed = self._down = False

    def connect(self, arm: Embodiment) -> None:
        self._jog = Jog(arm)
        if self._pad is not None:
            return
        try:
            os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
            import pygame
        except ImportError as error:
            raise MissingExtraError("pygame-ce", "gamepad", "reading a gamepad") from error
        pygame.init()
        if not pygame.joystick.get_count():
            raise RobotError("No gamepad is plugged in.")
        self._pygame, self._pad = pygame, pygame.joystick.Joystick(0)

    def read(self, state: Mapping[str, np.ndarray]) -> np.ndarray | None:
        pad = self._pad
        assert pad is not None and self._jog is not None, "connect() comes first"  # noqa: PT018
        if self._pygame is not None:
            self._pygame.event.pump()
        if not pad.get_init() or (self._pygame is not None and not self._pygame.joystick.get_count()):
            raise RobotError("The gamepad was unplugged: plug it in and start again.")
        push = {
            "x": -_push(pad, LEFT_Y),
            "y": -_push(pad, LEFT_X),
            "z": -_push(pad, RIGHT_Y),
            "yaw": -_push(pad, RIGHT_X),
        }
        down = bool(pad.get_button(GRIP))
        pressed, self._down = down and not self._down, down
        self._closed ^= pressed
        if pad.get_button(HAND_BACK):
            self._engaged = False
        elif pressed or any(push.values()):
            self._engaged = True
        return self._jog.action(push, closed=self._closed) if self._engaged else None

    def close(self) -> None:
        if self._pygame is not None:
            self._pygame.quit()
            self._pygame = self._pad = None


def _push(pad: Pad, axis: int) -> float:
    value = float(pad.get_axis(axis))
    return 0.0 if abs(value) < DEAD_ZONE else value
