"""Absolute deadlines on the monotonic clock, and where the time of a loop went."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

#: Parts of a turn, in order; the rest of it is hooks and waiting.
PARTS = ("observe", "policy", "envelope", "command")
#: Turns that percentiles are of: the last ones.
MAX_TURNS = 20_000


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """How well a loop kept time.

    Args:
        wanted_hz: control rate; 0 where the loop waited for nobody (a simulator's own clock).
        achieved_hz: turns over the time they took.
        turns: how many.
        overruns: turns that took longer than a control period.
        parts_ms: part of a turn (``PARTS``) -> median, 95th percentile and maximum, ms.
    """

    wanted_hz: float
    achieved_hz: float
    turns: int
    overruns: int
    parts_ms: Mapping[str, tuple[float, float, float]]

    def text(self) -> str:
        """One line for a person."""
        rate = f"{self.achieved_hz:.1f} Hz"
        if self.wanted_hz:
            rate += f" of {self.wanted_hz:g}, {self.overruns} of {self.turns} turns over budget"
        spent = ", ".join(f"{name} {p50:.1f}/{p95:.1f}" for name, (p50, p95, _) in self.parts_ms.items())
        return f"{rate}; p50/p95 in ms: {spent}"


class Clock:
    """Absolute deadlines on the monotonic clock; a missed one is counted and not made up for.

    Args:
        control_hz: rate to keep; 0 waits for nobody.
    """

    def __init__(self, control_hz: float) -> None:
        self.overruns = self.turns = 0
        self._control_hz = control_hz
        self._period_s = 1.0 / control_hz if control_hz else 0.0
        self._began = self._last = time.monotonic()
        self._deadline = self._began + self._period_s
        self._spent: dict[str, deque[float]] = {name: deque(maxlen=MAX_TURNS) for name in PARTS}

    @contextlib.contextmanager
    def spending(self, part: str) -> Iterator[None]:
        """What is done inside belongs to that part of the turn."""
        began = time.monotonic()
        yield
        self._spent[part].append(time.monotonic() - began)

    def wait(self) -> None:
        """The turn is over: wait for the next."""
        self.turns += 1
        self._last = time.monotonic()
        if self._period_s == 0:
            return
        if self._last > self._deadline:
            self.overruns += 1
            self._deadline = self._last
        else:
            time.sleep(self._deadline - self._last)
        self._deadline += self._period_s

    def cadence(self) -> Cadence:
        """So far."""
        took_s = self._last - self._began
        return Cadence(
            wanted_hz=self._control_hz,
            achieved_hz=self.turns / took_s if took_s > 0 else 0.0,
            turns=self.turns,
            overruns=self.overruns,
            parts_ms={name: _percentiles_ms(spent) for name, spent in self._spent.items() if spent},
        )


def _percentiles_ms(seconds: deque[float]) -> tuple[float, float, float]:
    values = 1000 * np.array(seconds)
    return float(np.median(values)), float(np.percentile(values, 95)), float(values.max())
