"""First and last actions that are none: a row of zeros or noise that a recorder puts where none was sent."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vla.data.check.config import CheckConfig
from vla.data.check.findings import Finding
from vla.data.check.signals import Signals, is_gripper, slices
from vla.embodiment import Embodiment

_MIN_EPISODES = 8
_MIN_LENGTH = 5
#: end -> rows: at it, beside it
_ENDS = {"first": (0, 1), "last": (-1, -2)}


@dataclass
class Edges:
    """The first two and last two actions of each episode of one embodiment, and what lies between."""

    arm: Embodiment
    config: CheckConfig
    rows: dict[str, list[np.ndarray]] = field(default_factory=lambda: {end: [] for end in _ENDS})
    low: list[np.ndarray] = field(default_factory=list)
    high: list[np.ndarray] = field(default_factory=list)
    example: int = 0

    def __post_init__(self) -> None:
        members = [(m, place) for m, place in slices(self.arm.action) if not is_gripper(m)]
        self._entries = np.array([i for _, p in members for i in range(p.start, p.stop)], int)
        self._changes = np.array([m.mode != "absolute" for m, p in members for _ in range(p.start, p.stop)])

    def add(self, s: Signals) -> None:
        """Take an episode in."""
        if len(s) < _MIN_LENGTH or not len(self._entries):
            return
        if not self.low:
            self.example = s.info.index
        action = s.action[:, self._entries]
        for end, rows in _ENDS.items():
            self.rows[end].append(action[list(rows)])
        self.low.append(action[1:-1].min(axis=0))
        self.high.append(action[1:-1].max(axis=0))

    def conclude(self) -> list[Finding]:
        """What is found when all were seen."""
        if len(self.low) < _MIN_EPISODES:
            return []
        low, high = (
            np.quantile(np.stack(self.low), 0.05, axis=0),
            np.quantile(np.stack(self.high), 0.95, axis=0),
        )
        found = [self._judge(end, low, high) for end in _ENDS]
        return [finding for finding in found if finding is not None]

    def _judge(self, end: str, low: np.ndarray, high: np.ndarray) -> Finding | None:
        at, beside = np.stack(self.rows[end]).swapaxes(0, 1)
        span = np.where(high > low, high - low, np.inf)
        still = self.config.placeholder_share
        changes = self._changes & np.isfinite(span)
        # a demonstrator who has not begun yet asks for nothing in the next step either
        empty = changes.any() & (np.abs(at) <= still * span)[:, changes].all(axis=1)
        empty &= (np.abs(beside) > still * span)[:, changes].any(axis=1)
        # targets of exactly 0 where no other target is
        fixed = ~self._changes
        if fixed.any():
            empty |= (at[:, fixed] == 0).all(axis=1) & (beside[:, fixed] != 0).any(axis=1)
        far = (np.maximum(at - high, low - at) > self.config.outlier_factor * span).any(axis=1)
        shares = {"zero, the one beside it is not": empty.mean(), "far from all others": far.mean()}
        what = max(shares, key=lambda key: shares[key])
        if shares[what] < self.config.edge_episodes:
            return None
        return Finding(
            kind=f"placeholder_{end}",
            where="action",
            value=float(shares[what]),
            threshold=self.config.edge_episodes,
            message=f"the {end} action is {what}, in {100 * shares[what]:.0f} % of "
            f"{len(at)} episodes; skip_{end}: 1 in the embodiment file leaves it out",
            evidence={"embodiment": self.arm.name, "example": self.example},
        )
