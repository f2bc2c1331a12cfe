"""The recording switch of the page: an episode is in the store only where it was on from its beginning."""

from __future__ import annotations

from vla.control.loop import Hook, Tick
from vla.robots import Reading


class RecordingSwitch:
    """A hook before another one that records: passes on what happens while it is on.

    A sentence that is under way when the switch is turned on is not recorded, for an episode has a beginning;
    one that is under way when it is turned off is recorded to where it is.

    Args:
        on: whether it is on at first.
    """

    def __init__(self, *, on: bool = False) -> None:
        self.recorder: Hook | None = None
        self._wanted, self._on, self._sentence = on, on, ""

    def around(self, recorder: Hook) -> Hook:
        """This switch before a hook that records."""
        self.recorder = recorder
        return self

    def switch(self, on: bool) -> bool:
        """Turn it on or off, in any thread; whether it is on."""
        self._wanted = on
        return on

    def started(self, reading: Reading) -> None:
        self._on, self._sentence = self._wanted, ""
        if self.recorder is not None:
            self.recorder.started(reading)

    def ticked(self, tick: Tick) -> None:
        fresh = tick.chunk is None or tick.observation.instruction != self._sentence
        self._sentence = "" if tick.chunk is None else tick.observation.instruction
        was = self._on
        if not self._wanted or fresh:
            self._on = self._wanted
        if self.recorder is not None and (self._on or was):
            self.recorder.ticked(tick)
