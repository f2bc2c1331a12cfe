"""Checks that compare episodes with each other: duplicates, outliers, entries that never change, clipping."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from vla.data.check.config import CheckConfig
from vla.data.check.findings import Finding
from vla.data.check.motion import at_limits, held_steps, interval
from vla.data.check.signals import Signals, Typical, entry_names, is_gripper, slices
from vla.embodiment import Embodiment

_POINTS = 16  # of the outline of an episode
_PROJECTIONS = 8
_MIN_EPISODES = 8  # fewer tell nothing of what is usual


@dataclass
class Population:
    """What is remembered of the episodes of one embodiment: about 2 kB each."""

    arm: Embodiment
    usual: Typical
    config: CheckConfig
    indices: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    instructions: list[int] = field(default_factory=list)
    texts: dict[str, int] = field(default_factory=dict)
    hashes: list[int] = field(default_factory=list)
    outlines: list[np.ndarray] = field(default_factory=list)
    means: list[np.ndarray] = field(default_factory=list)
    lowest: np.ndarray | None = None
    highest: np.ndarray | None = None
    limits: np.ndarray | None = None
    held: np.ndarray | None = None
    examples: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, s: Signals) -> None:
        """Remember an episode."""
        both = np.concatenate([s.state, s.action], axis=1)
        self.indices.append(s.info.index)
        self.lengths.append(len(s))
        self.instructions.append(self.texts.setdefault(s.info.instruction, len(self.texts)))
        self.hashes.append(zlib.crc32(np.ascontiguousarray(both).tobytes()))
        at = np.linspace(0, len(s) - 1, _POINTS).round().astype(int)
        # large numbers that hardly change keep their changes so
        self.outlines.append(((both[at] - self._low()) / self._scale()).astype(np.float32))
        self.means.append(both.mean(axis=0))
        low, high = both.min(axis=0), both.max(axis=0)
        self.lowest = low if self.lowest is None else np.minimum(self.lowest, low)
        self.highest = high if self.highest is None else np.maximum(self.highest, high)
        limits, held = at_limits(s), held_steps(s, self.config)
        self.limits = limits if self.limits is None else self.limits + limits
        self.held = held if self.held is None else self.held + held
        for kind, share in (("saturated", limits.sum(axis=0) / len(s)), ("held", held / len(s))):
            most, where = self.examples.setdefault(kind, np.zeros((2, len(share))))
            where[share > most] = s.info.index
            np.maximum(most, share, out=most)

    def conclude(self) -> list[Finding]:
        """What is found when all were seen."""
        if not self.indices:
            return []
        found = [*self._duplicates(), *self._outliers(), *self._constant(), *self._saturated()]
        return [*found, *self._held()]

    def _low(self) -> np.ndarray:
        return np.concatenate([self.usual.low["state"], self.usual.low["action"]])

    def _scale(self) -> np.ndarray:
        """Spread of each entry; entries that never change count by their range."""
        high = np.concatenate([self.usual.high["state"], self.usual.high["action"]])
        return np.maximum((high - self._low()) / 4, 1e-3 * self._range())

    def _range(self) -> np.ndarray:
        fields = [*self.arm.state, *self.arm.action]
        return np.array([h - lo for f in fields for lo, h in zip(f.low, f.high, strict=True)])

    def _duplicates(self) -> list[Finding]:
        """Each episode that repeats an earlier one: equal numbers, or nearly the same course."""
        count = len(self.indices)
        if count < 2 or not self.outlines[0].size:
            return []
        shapes = np.stack(self.outlines).reshape(count, -1)
        # equal courses have equal projections; near ones differ by about near_duplicate * sqrt(n)
        directions = np.random.default_rng(0).normal(size=(shapes.shape[1], _PROJECTIONS))
        directions /= np.linalg.norm(directions, axis=0)
        radius = self.config.near_duplicate * np.sqrt(shapes.shape[1])
        pairs = KDTree(shapes @ directions).query_pairs(radius, output_type="ndarray")
        found, repeated = [], set()
        for first, second in sorted(map(tuple, np.sort(pairs, axis=1).tolist()), key=lambda p: (p[1], p[0])):
            a, b = (first, second) if self.indices[first] < self.indices[second] else (second, first)
            if b in repeated or abs(self.lengths[a] - self.lengths[b]) > 0.1 * self.lengths[a] + 1:
                continue
            off = float(np.abs(shapes[a] - shapes[b]).max())
            exact = self.hashes[a] == self.hashes[b] and self.lengths[a] == self.lengths[b]
            if not exact and off > self.config.near_duplicate:
                continue
            repeated.add(b)
            found.append(self._duplicate(a, b, exact, off))
        return found

    def _duplicate(self, a: int, b: int, exact: bool, off: float) -> Finding:
        """``b`` repeats ``a``; another instruction for the same motion is a graver matter."""
        other = self.indices[a]
        what = "the same numbers as" if exact else "almost the same course as"
        kind = "duplicate" if exact else "near_duplicate"
        message = f"{what} episode {other}"
        if self.instructions[a] != self.instructions[b]:
            names = list(self.texts)
            kind = "contradicting_instruction"
            message += (
                f", said {names[self.instructions[b]]!r} here and {names[self.instructions[a]]!r} there"
            )
        return Finding(
            kind=kind,
            episode=self.indices[b],
            value=0.0 if exact else off,
            threshold=self.config.near_duplicate,
            message=message,
            evidence={"of_episode": other},
        )

    def _names(self) -> list[str]:
        return [*entry_names(self.arm, "state"), *entry_names(self.arm, "action")]

    def _outliers(self) -> list[Finding]:
        """Episodes whose mean of an entry lies far from the means of the others."""
        if len(self.indices) < _MIN_EPISODES:
            return []
        means = np.stack(self.means)
        ordered = np.sort(means, axis=0)
        beyond = max(1, round(0.05 * len(means)))  # on either side: so many may lie far off
        low, middle, high = ordered[beyond], np.median(means, axis=0), ordered[-1 - beyond]
        limit = np.maximum(
            self.config.episode_factor * (high - low), self.config.outlier_range * self._range()
        )
        away = np.maximum(means - high, low - means)
        found, names = [], self._names()
        for row in np.flatnonzero((away > limit).any(axis=1)):
            entry = int(np.argmax(away[row] / limit))
            found.append(
                Finding(
                    kind="episode_outlier",
                    episode=self.indices[row],
                    where=names[entry],
                    value=float(means[row, entry]),
                    threshold=float(limit[entry]),
                    message=f"mean {means[row, entry]:.4g}, the median of all episodes is "
                    f"{middle[entry]:.4g}, and {len(means) - 2 * beyond} of {len(means)} "
                    + interval(low[entry], high[entry]),
                )
            )
        return found

    def _constant(self) -> list[Finding]:
        """Entries with one value in all the data."""
        assert self.lowest is not None
        assert self.highest is not None
        if sum(self.lengths) < 2:
            return []
        spread, limit = self.highest - self.lowest, self.config.constant_std * self._range()
        return [
            Finding(
                kind=f"constant_{name.partition('/')[0]}",
                where=name,
                value=float(spread[i]),
                threshold=float(limit[i]),
                message=f"{self.lowest[i]:.4g} in all {sum(self.lengths)} steps",
                evidence={"embodiment": self.arm.name, "example": self.indices[0]},
            )
            for i, name in enumerate(self._names())
            if spread[i] <= limit[i]
        ]

    def _evidence(self, kind: str, entry: int) -> dict[str, Any]:
        """The arm, and the episode that shows it best."""
        return {"embodiment": self.arm.name, "example": int(self.examples[kind][1, entry])}

    def _held(self) -> list[Finding]:
        """Action entries beyond their range that were executed at its end."""
        assert self.held is not None
        total = sum(self.lengths)
        return [
            Finding(
                kind="held_action",
                where=name,
                value=float(count),
                threshold=0.0,
                message=f"{count} of {total} actions lie beyond the range and were executed at its end",
                evidence=self._evidence("held", i),
            )
            for i, name in enumerate(entry_names(self.arm, "action"))
            if (count := int(self.held[i]))
        ]

    def _saturated(self) -> list[Finding]:
        """Action entries that lie at one end of their range in a large share of all steps.

        Grippers are left out, and entries that only ever take both ends: those are switches.
        """
        assert self.limits is not None
        found, total = [], sum(self.lengths)
        for member, place in slices(self.arm.action):
            for i in range(place.start, place.stop):
                low, high = self.limits[:, i] / total
                switch = low + high > 0.95 and min(low, high) > 0.02
                if is_gripper(member) or switch or low + high <= self.config.saturated_share:
                    continue
                found.append(
                    Finding(
                        kind="saturated_action",
                        where=entry_names(self.arm, "action")[i],
                        value=float(low + high),
                        threshold=self.config.saturated_share,
                        message=f"at the low end in {100 * low:.0f} %, at the high end in "
                        f"{100 * high:.0f} % of {total} steps",
                        evidence=self._evidence("saturated", i),
                    )
                )
        return found
