"""A counterpart's cameras as a driver sees them: pictures of the simulated table over the side channel."""

from __future__ import annotations

import contextlib
import socket
import time

from vla.robots.cameras import CameraError, Frame, Freshness
from vla_envs.counterparts.side_channel import CONTROL_PORT
from vla_envs.remote.serving import wire

_TIMEOUT_S, _PERIOD_S = 2.0, 0.05


class CounterpartCamera:
    """One camera of 20 pictures a second, rendered when they are asked for.

    Args:
        name: as the plant calls it, ``front`` or ``wrist``.
        host: address of the counterpart.
        max_age_s: an older picture is refused.
    """

    def __init__(self, name: str, host: str, *, max_age_s: float = 0.5) -> None:
        self.name, self._host, self._max_age_s = name, host, max_age_s
        self._connection: socket.socket | None = None
        self._latest: Frame | None = None

    def open(self) -> None:
        self.close()
        try:
            self._connection = socket.create_connection((self._host, CONTROL_PORT), timeout=_TIMEOUT_S)
        except OSError as error:
            raise CameraError(f"Camera {self.name!r} of the counterpart at {self._host}: {error}.") from error
        self.read()

    def read(self) -> Frame:
        if self._connection is None:
            raise CameraError(f"Camera {self.name!r} is not open: connect() first.")
        if self._latest is not None and time.monotonic() - self._latest.time_s < _PERIOD_S:
            return self._latest
        try:
            wire.send(self._connection, {"call": "frame", "arguments": {"camera": self.name}})
            answer = wire.receive(self._connection)
        except (EOFError, OSError) as error:
            raise CameraError(f"Camera {self.name!r} of the counterpart at {self._host} is lost.") from error
        if "error" in answer:
            raise CameraError(f"Camera {self.name!r}: {answer['error']}")
        now = time.monotonic()
        freshness = Freshness(
            self.name, max_age_s=self._max_age_s, frozen_s=None
        )  # a still scene looks still
        freshness.put(Frame(answer["value"]["image"], now - float(answer["value"]["age_s"])))
        self._latest = freshness.get(now)
        return self._latest

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = self._latest = None
