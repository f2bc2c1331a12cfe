"""A Franka Hand whose commands block: a thread carries out the latest wish, nothing else waits for it."""

from __future__ import annotations

import threading
from typing import Any

from vla.errors import RobotError

_SPEED_M_S = 0.1
_CHANGE = 0.05  # of the stroke: smaller wishes are not worth a motion


class FrankaHand:
    """Opens with ``move`` and closes with ``grasp``, which keeps its force.

    Args:
        client: of franka-rs.
        force: N, at which it closes.
    """

    def __init__(self, client: Any, force: float) -> None:
        self._client, self._force = client, force
        state = client.read_once()
        if state.max_width < 1e-3:
            raise RobotError(
                "The Franka Hand is not homed: keep clear of it, home it in Desk, then connect()."
            )
        self._max_width, self._width = float(state.max_width), float(state.width)
        self._wish: float | None = None
        self._sent = self._width / self._max_width
        self._change = threading.Condition()
        self._open = True
        self.fault = ""
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()
        self._reader = threading.Thread(target=self._look, daemon=True)
        self._reader.start()

    def go(self, opening: float) -> None:
        """Wish for an opening, 0 closed .. 1 open."""
        if self.fault:
            raise RobotError(f"The Franka Hand {self.fault}: see Desk, then connect().")
        with self._change:
            if abs(opening - self._sent) > _CHANGE:
                self._wish = self._sent = min(1.0, max(0.0, opening))
                self._change.notify_all()

    def opening(self) -> float:
        """0 closed .. 1 open, measured."""
        return self._width / self._max_width

    def close(self) -> None:
        """End the threads; the fingers keep what they hold."""
        with self._change:
            self._open = False
            self._change.notify_all()
        self._worker.join(3.0)

    def _work(self) -> None:
        import franka

        while True:
            with self._change:
                self._change.wait_for(lambda: self._wish is not None or not self._open)
                if not self._open:
                    return
                wish, self._wish = self._wish, None
            assert wish is not None
            width = wish * self._max_width
            try:
                if width < self._width:
                    band = self._max_width  # whatever it meets is meant
                    self._client.grasp(width, _SPEED_M_S, self._force, band, band)
                else:
                    self._client.move(width, _SPEED_M_S)
            except franka.FrankaError as error:
                self.fault = f"failed ({str(error).strip()})"
                return

    def _look(self) -> None:
        import franka

        while self._open:
            try:
                self._width = float(self._client.read_once().width)
            except franka.FrankaError as error:
                self.fault = self.fault or f"is lost ({str(error).strip()})"
                return
