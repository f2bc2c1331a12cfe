"""Keys as a device: at a terminal, or sent by a page."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from vla.control.loop import Command
from vla.embodiment import Embodiment
from vla.errors import ConfigError
from vla.teleop.jog import Jog

#: Key -> axis and direction; x is away from the base, y to its left.
KEYS: Mapping[str, tuple[str, float]] = {
    "w": ("x", 1.0), "s": ("x", -1.0), "a": ("y", 1.0), "d": ("y", -1.0),
    "r": ("z", 1.0), "f": ("z", -1.0), "q": ("yaw", 1.0), "e": ("yaw", -1.0),
}  # fmt: skip
GRIP, HAND_BACK, END = "g", "p", "x"
HELP = "w s a d: away, back, left, right   r f: up, down   q e: turn   g: gripper   p: hand back   x: end"
#: A key counts as held for so long after it came: terminals repeat it, after a while, faster than this.
HELD_S = 0.25


class Keys:
    """Which keys are held, and who has the arm: the person from the first key on, until ``p``.

    Args:
        now: a monotonic clock, s.
        held_s: how long a key counts.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, *, held_s: float = HELD_S) -> None:
        self._now, self._held_s = now, held_s
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}
        self._jog: Jog | None = None
        self._engaged = self._closed = False
        self.ended = False

    def connect(self, arm: Embodiment) -> None:
        self._jog = Jog(arm)

    def press(self, key: str) -> None:
        """A key came, or came again; unknown ones are nothing."""
        with self._lock:
            if key == HAND_BACK:
                self._engaged = False
                self._since.clear()
            elif key == END:
                self.ended = True
            elif key == GRIP:
                self._engaged, self._closed = True, not self._closed
            elif key in KEYS:
                self._engaged = True
                self._since[key] = self._now()

    def read(self, state: Mapping[str, np.ndarray]) -> np.ndarray | None:
        assert self._jog is not None, "connect() comes first"
        with self._lock:
            if not self._engaged:
                return None
            now = self._now()
            held = [key for key, since in self._since.items() if now - since <= self._held_s]
            push: dict[str, float] = {}
            for axis, direction in (KEYS[key] for key in held):
                push[axis] = push.get(axis, 0.0) + direction
            return self._jog.action(push, closed=self._closed)

    def close(self) -> None:
        """Nothing is open."""

    # --- an operator of the loop, for whom 'x' ends it

    def poll(self) -> Command | None:
        return Command(kind="quit") if self.ended else None

    def tell(self, message: str) -> None:
        print(message, end="\r\n", flush=True)


class TerminalKeys(Keys):
    """The keyboard of the terminal that this runs in; each key is read as it is pressed.

    Args:
        stream: the terminal.

    Raises:
        ConfigError: it is none.
    """

    def __init__(self, stream: IO[Any] | None = None) -> None:
        super().__init__()
        self._stream = stream or sys.stdin
        if not self._stream.isatty():
            raise ConfigError("Keys are read from a terminal, and this is none: run it in one.")
        self._before: list[Any] | None = None
        self._over = threading.Event()

    def connect(self, arm: Embodiment) -> None:
        import termios
        import tty

        super().connect(arm)
        if self._before is None:
            self._before = termios.tcgetattr(self._stream)
            tty.setcbreak(self._stream)  # Ctrl-C still ends it
            threading.Thread(target=self._listen, daemon=True, name="keys").start()
            self.tell(HELP)

    def close(self) -> None:
        import termios

        self._over.set()
        if self._before is not None:
            termios.tcsetattr(self._stream, termios.TCSADRAIN, self._before)
            self._before = None

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal was closed: no key comes any more
            while not self._over.is_set():
                if select.select([self._stream], [], [], 0.1)[0]:
                    for key in os.read(self._stream.fileno(), 64).decode(errors="ignore").lower():
                        self.press(key)
