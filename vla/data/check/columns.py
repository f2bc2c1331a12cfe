"""Of columns of which nobody says what they mean: a change unlike all others of its column."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vla.data.check.config import CheckConfig
from vla.data.check.findings import Finding
from vla.data.check.signals import FEWEST, Signals, entry_names
from vla.embodiment import Embodiment

_CODES = 10  # a column of no more different values holds codes, not numbers
_LARGEST = 2  # changes of each episode that do not count as usual: there and back
_OF_MOST, _TIMES = 0.8, 3.0  # of the largest change of this share of the episodes
_CLOSE, _ROUGH = 0.02, 0.2  # relative


@dataclass
class ColumnJumps:
    """The changes of each entry in all episodes of one embodiment; memory is a few numbers an episode."""

    arm: Embodiment
    config: CheckConfig
    episodes: list[int] = field(default_factory=list)
    largest: list[np.ndarray] = field(default_factory=list)
    steps: list[np.ndarray] = field(default_factory=list)
    squares: np.ndarray | float = 0.0
    squares_of_most: np.ndarray | float = 0.0
    count: int = 0

    def __post_init__(self) -> None:
        self._names = [*entry_names(self.arm, "state"), *entry_names(self.arm, "action")]
        self._values: list[set[float]] = [set() for _ in self._names]

    def add(self, s: Signals) -> None:
        """Take an episode in."""
        both = np.concatenate([s.state, s.action], axis=1)
        if len(both) <= _LARGEST + 1 or not both.shape[1]:
            return
        for values, column in zip(self._values, both.T, strict=True):
            if len(values) <= _CODES:
                values.update(np.unique(column)[: _CODES + 1].tolist())
        moved = np.where(_same_place(both[:-1], both[1:]), 0.0, np.abs(np.diff(both, axis=0)))
        ordered = np.sort(moved, axis=0)
        self.episodes.append(s.info.index)
        self.largest.append(ordered[-1])
        self.steps.append(moved.argmax(axis=0))
        self.squares = self.squares + np.square(moved).sum(axis=0)
        self.squares_of_most = self.squares_of_most + np.square(ordered[:-_LARGEST]).sum(axis=0)
        self.count += len(moved)

    def conclude(self) -> list[Finding]:
        """The largest change of an episode in each entry, where it is far beyond all others."""
        if not self.episodes:
            return []
        largest, few = np.stack(self.largest), len(self.episodes) < FEWEST
        squares = self.squares if few else self.squares_of_most
        sigma = np.sqrt(squares / (self.count - (0 if few else _LARGEST * len(self.episodes))))
        most = np.zeros(len(sigma)) if few else np.quantile(largest, _OF_MOST, axis=0, method="lower")
        numbers = np.array([len(values) > _CODES for values in self._values])
        far = (largest > self.config.jump_sigma * sigma) & (largest > _TIMES * most) & numbers & (sigma > 0)
        return [self._finding(int(row), int(entry), float(sigma[entry])) for row, entry in np.argwhere(far)]

    def _finding(self, row: int, entry: int, sigma: float) -> Finding:
        moved, step = float(self.largest[row][entry]), int(self.steps[row][entry])
        return Finding(
            kind="jump",
            episode=self.episodes[row],
            first=step,
            last=step + 1,
            where=self._names[entry],
            value=moved,
            threshold=float(self.config.jump_sigma * sigma),
            message=f"changes by {moved:.4g} from step {step} to {step + 1}, {moved / sigma:.0f} standard "
            "deviations of its changes",
            evidence={"steps": [step]},
        )


def _same_place(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """bool [T-1 n]: the same place written otherwise: an angle a turn on, a quaternion negated."""
    moved = np.abs(after - before)
    turned = (np.abs(moved - 2 * np.pi) <= _CLOSE * 2 * np.pi) | (np.abs(moved - 360) <= _CLOSE * 360)
    beside = np.where(moved > 0, np.abs(after + before) / np.where(moved > 0, moved, 1.0), np.inf)
    several = (beside <= _CLOSE).sum(axis=1, keepdims=True) > 1  # then small ones, with their noise, too
    return turned | (several & (beside <= _ROUGH))
