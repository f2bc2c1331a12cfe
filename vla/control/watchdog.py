"""What only time shows: an observation that grows old, a policy that does not answer.

In the loop of a robot that moves in real time (it has a deadman) these stop it, and it stays stopped until
the operator resets (connects again). A simulator stands still meanwhile; there they have nothing to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from vla.control.safety_config import SafetyConfig
from vla.robots import Reading
from vla.types import ActionChunk

#: Fewest control periods that either may last: what comes once a period is not late after one.
MIN_PERIODS = 2


@dataclass(frozen=True)
class Fault:
    """Why a robot was stopped: the name it is counted by, and what a person must know."""

    event: str
    message: str


class Watchdog:
    """Compares time stamps with the clock, once a turn.

    Args:
        config: its limits and what is turned off.
        control_hz: rate of the loop.
    """

    def __init__(self, config: SafetyConfig, control_hz: float) -> None:
        least = MIN_PERIODS / control_hz
        self._age_s = max(config.max_observation_age_s, least)
        self._silence_s = max(config.max_policy_silence_s, least)
        self._disabled = config.disabled
        self._time_s, self._changed_s = -1.0, 0.0

    def connected(self, reading: Reading, now_s: float) -> None:
        """The robot says this is where it is; everything before is forgotten."""
        self._time_s, self._changed_s = reading.observation.time_s, now_s

    def observed(self, reading: Reading, now_s: float) -> Fault | None:
        """Judge an observation by the moment it was taken, else by how long its own time stands still."""
        if reading.observation.time_s != self._time_s:
            self._time_s, self._changed_s = reading.observation.time_s, now_s
        age_s = now_s - (self._changed_s if reading.taken_s is None else reading.taken_s)
        if age_s <= self._age_s or "stale" in self._disabled:
            return None
        return Fault(
            "stale",
            f"the observation is {age_s:.2f} s old (limit {self._age_s:g} s): look at cameras, encoders and "
            "the connection, then reset",
        )

    def answered(self, chunk: ActionChunk) -> Fault | None:
        """Judge how long the policy has been thinking about a question (``info["waiting_s"]``)."""
        waiting_s = float(chunk.info.get("waiting_s", 0.0))
        if waiting_s <= self._silence_s or "stalled" in self._disabled:
            return None
        return Fault(
            "stalled",
            f"the policy has not answered for {waiting_s:.2f} s (limit {self._silence_s:g} s): look at its "
            "process or machine, then reset",
        )
