"""A state that stays as it was to the last bit while commands go on: a driver that stopped reporting.

An arm that is blocked still shows the noise of its encoders and the give of its joints. Where that is not so
(coarse encoders, an ideal simulation), such stretches are usual in the data, and only longer ones are found.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vla.data.check.config import CheckConfig
from vla.data.check.findings import Finding
from vla.data.check.signals import FEWEST, Signals, Typical, asked, is_gripper, moving_fields, runs, slices
from vla.embodiment import Embodiment

_MIN_STEPS = 8  # where the rate is not known
_USUAL = 0.8  # of the episodes
_EVEN = 0.01  # relative: what counts steps or time goes on by itself


@dataclass(frozen=True, kw_only=True)
class _Held:
    """Commands ``count`` from step ``first`` on after which rows up to ``last`` are the one of ``first``."""

    episode: int
    side: str
    first: int
    last: int
    count: int


@dataclass
class FrozenState:
    """What each episode of one embodiment shows of it; concluded when all were seen."""

    arm: Embodiment
    usual: Typical
    config: CheckConfig
    held: list[_Held] = field(default_factory=list)
    longest: list[int] = field(default_factory=list)
    commands: int = 0
    repeats: int = 0

    def __post_init__(self) -> None:
        sides = {_side(member.slot) for member, _ in slices(self.arm.action) if not is_gripper(member)}
        moving = moving_fields(self.arm)
        self._fields = {s: [(m, p) for m, p in moving if _side(m.slot) == s] for s in sorted(sides)}

    def add(self, s: Signals) -> None:
        """Take an episode in."""
        longest = 0
        for side, fields in self._fields.items():
            if not fields or len(s) < 2:
                continue
            steps = np.concatenate([np.diff(s.state[:, place], axis=0) for _, place in fields], axis=1)
            same = (steps[:, ~_counts(steps)] == 0).all(axis=1) & bool((~_counts(steps)).any())
            commanded = self._commanded(s, side)[:-1]
            self.commands += int(commanded.sum())
            self.repeats += int((commanded & same).sum())
            for a, b in runs(same):
                busy = a + np.flatnonzero(commanded[a : b + 1])
                longest = max(longest, len(busy))
                if len(busy) >= _MIN_STEPS and len(busy) > 0.5 * (busy[-1] - busy[0] + 1):
                    first, index = int(busy[0]), s.info.index
                    self.held.append(
                        _Held(episode=index, side=side, first=first, last=b + 1, count=len(busy))
                    )
        self.longest.append(longest)

    def conclude(self) -> list[Finding]:
        """Stretches longer than those that are usual, where commands move the state at all."""
        hz, factor = self.arm.control_hz, self.config.frozen_state_factor
        few = len(self.longest) < FEWEST
        usual = 0 if few else int(np.quantile(self.longest, _USUAL, method="lower"))
        needed = max(self.config.frozen_state_s * hz, factor * usual)
        repeats = self.repeats - sum(held.count for held in self.held if held.count >= needed)
        moves = self.commands - self.repeats
        return [self._finding(held, needed) for held in self.held if held.count >= needed and moves > repeats]

    def _finding(self, held: _Held, needed: float) -> Finding:
        name = self._fields[held.side][0][0].name
        several, of = len(self._fields[held.side]) > 1, f" of {held.side}" if len(self._fields) > 1 else ""
        return Finding(
            kind="frozen_state",
            episode=held.episode,
            first=held.first + 1,  # its own row is the last one that is true
            last=held.last,
            where=f"state/{name}",
            value=held.count / self.arm.control_hz,
            threshold=needed / self.arm.control_hz,
            message=f"{held.count} commands ({held.count / self.arm.control_hz:.1f} s) change no bit of it"
            + (f" nor of the other fields{of}" if several else "")
            + f", which {100 * (1 - self.repeats / self.commands):.0f} % of all commands do",
        )

    def _commanded(self, s: Signals, side: str) -> np.ndarray:
        """bool [T]: the action asks this side for a motion as it usually does."""
        found = np.zeros(len(s), bool)
        for member, place in slices(self.arm.action):
            if is_gripper(member) or _side(member.slot) != side:
                continue
            least = self.config.commanded * self.usual.asked_q90[member.name]
            if member.mode != "absolute":
                span = np.linalg.norm(np.subtract(member.high, member.low))
                least = max(least, self.config.commanded_range * float(span))
            found |= np.linalg.norm(asked(s.action[:, place], member), axis=1) > least
        return found


def _side(slot: str) -> str:
    return slot.partition(".")[0]


def _counts(steps: np.ndarray) -> np.ndarray:
    """bool [n]: entries that go on by the same amount in every step [T-1 n]: numbers of rows, time."""
    mean = np.abs(steps.mean(axis=0))
    return (mean > 0) & (np.ptp(steps, axis=0) <= _EVEN * mean)
