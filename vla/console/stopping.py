"""A stop button: stops the arm from another thread, whatever its loop is doing at that moment."""

from __future__ import annotations

import threading

import numpy as np

from vla.embodiment import Embodiment
from vla.robots import Reading, Robot


class StopButton:
    """Put around an arm: :meth:`press` stops it at once, and nothing moves it until it is connected again.

    A loop that is in the middle of a turn finds that its command led nowhere, and is told by its operator
    (``halt``) what happened; it need not be answering for the arm to stop.
    """

    def __init__(self) -> None:
        self._robot: Robot | None = None
        self._pressed = threading.Event()
        self._sending = threading.Lock()

    def around(self, robot: Robot) -> _Stoppable:
        """The same arm, with this button."""
        self._robot = robot
        return _Stoppable(robot, self._pressed, self._sending)

    def press(self) -> None:
        """Stop the arm that this was put around last; without one, nothing is there to move."""
        self._pressed.set()
        if self._robot is not None:
            with self._sending:  # a command that is being sent is sent; none follows
                self._robot.stop()


class _Stoppable:
    def __init__(self, robot: Robot, pressed: threading.Event, sending: threading.Lock) -> None:
        self._robot, self._pressed, self._sending = robot, pressed, sending
        self.embodiment: Embodiment = robot.embodiment
        self.deadman_s: float | None = robot.deadman_s

    def connect(self) -> Reading:
        self._pressed.clear()
        return self._robot.connect()

    def read(self) -> Reading:
        return self._robot.read()

    def command(self, action: np.ndarray) -> Reading:
        with self._sending:
            if not self._pressed.is_set():
                return self._robot.command(action)
        return self._robot.read()

    def set_instruction(self, text: str) -> Reading:
        return self._robot.set_instruction(text)

    def stop(self) -> None:
        self._robot.stop()

    def close(self) -> None:
        self._robot.close()
