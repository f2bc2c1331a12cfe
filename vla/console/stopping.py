"""A stop button: stops the arm from another thread, whatever its loop is doing at that moment."""

from __future__ import annotations

import threading

import numpy as np

from vla.robots import Reading, Robot
from vla.robots.wrapper import RobotWrapper

#: Control periods that a command being sent is waited for: a driver that hangs is stopped all the same.
_PATIENCE_PERIODS = 2


class StopButton:
    """Put around an arm: :meth:`press` stops it at once, and nothing moves it until it is connected again.

    A loop that is in the middle of a turn finds that its command led nowhere, and is told by its operator
    (``halt``) what happened; it need not be answering for the arm to stop.
    """

    def __init__(self) -> None:
        self._robot: Robot | None = None
        self._pressed = threading.Event()
        self._sending = threading.Lock()

    def around(self, robot: Robot) -> Robot:
        """The same arm, with this button."""
        self._robot = robot
        return _Stoppable(robot, self._pressed, self._sending)

    def press(self) -> None:
        """Stop the arm that this was put around last; without one, nothing is there to move."""
        self._pressed.set()
        if self._robot is None:
            return
        patience_s = _PATIENCE_PERIODS / self._robot.embodiment.control_hz
        free = self._sending.acquire(timeout=patience_s)  # what is being sent is sent; none follows
        try:
            self._robot.stop()
        finally:
            if free:
                self._sending.release()


class _Stoppable(RobotWrapper):
    def __init__(self, robot: Robot, pressed: threading.Event, sending: threading.Lock) -> None:
        super().__init__(robot)
        self._pressed, self._sending = pressed, sending

    def connect(self) -> Reading:
        self._pressed.clear()
        return super().connect()

    def command(self, action: np.ndarray) -> Reading:
        with self._sending:
            if not self._pressed.is_set():
                return super().command(action)
        return self.read()
