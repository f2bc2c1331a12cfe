"""A Robotiq two-finger gripper on a UR, through the socket of its URCap (port 63352)."""

from __future__ import annotations

import contextlib
import socket

from vla.errors import RobotError

PORT = 63352
_TIMEOUT_S = 1.0


class RobotiqGripper:
    """Where the fingers are, and where they go.

    Args:
        host: address of the UR controller.
        speed, force: 0..1 of the gripper's own range; the force is the one at which it stops closing.

    Raises:
        RobotError: by every method, where the URCap does not answer as it should.
    """

    def __init__(self, host: str, *, speed: float = 1.0, force: float = 0.3) -> None:
        self._host, self._speed, self._force = host, round(255 * speed), round(255 * force)
        self._socket: socket.socket | None = None
        self._sent = -1

    def open(self) -> None:
        """Connect; the gripper must have been activated (its first full stroke is for a person to watch)."""
        self.close()
        try:
            self._socket = socket.create_connection((self._host, PORT), timeout=_TIMEOUT_S)
        except OSError as error:
            raise RobotError(
                f"The gripper's URCap at {self._host}:{PORT} does not answer ({error}): install and start "
                "the Robotiq URCap, or connect without a gripper."
            ) from error
        if self._ask("GET STA") != "STA 3":
            raise RobotError(
                f"The gripper at {self._host} is not activated: keep clear of it and activate it on the "
                "pendant (it opens and closes once)."
            )
        fault = self._ask("GET FLT").removeprefix("FLT ")
        if fault != "0":
            raise RobotError(f"The gripper at {self._host} reports fault {fault}: clear it, activate again.")
        self._sent = -1

    def move(self, closed: float) -> None:
        """Send the fingers somewhere, 0 open .. 1 closed; does not wait for them."""
        position = round(255 * min(1.0, max(0.0, closed)))
        if position == self._sent:
            return
        answer = self._ask(f"SET POS {position} SPE {self._speed} FOR {self._force} GTO 1")
        if answer != "ack":
            raise RobotError(f"The gripper at {self._host} refused to move: it answered {answer!r}.")
        self._sent = position

    def opening(self) -> float:
        """0 closed .. 1 open, measured."""
        answer = self._ask("GET POS")
        try:
            return 1.0 - int(answer.removeprefix("POS ")) / 255.0
        except ValueError as error:
            raise RobotError(f"The gripper at {self._host} answered {answer!r} to GET POS.") from error

    def close(self) -> None:
        """Let go of the connection; the fingers keep what they hold."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def _ask(self, line: str) -> str:
        if self._socket is None:
            raise RobotError("The gripper is not connected: call connect() first.")
        try:
            self._socket.sendall(line.encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                part = self._socket.recv(256)
                if not part:
                    raise ConnectionError("it closed the connection")
                answer += part
        except OSError as error:
            self.close()
            raise RobotError(
                f"The gripper at {self._host}:{PORT} is lost ({error}): check the URCap, then connect()."
            ) from error
        return answer.decode("latin1").strip()
