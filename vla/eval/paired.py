"""Two policies on the same episodes: who is better, by how much, and how sure that is.

Both met the same scenes, so that what counts are the episodes in which they differ. Comparing two rates as if
they came from different scenes throws that away, and needs several times the episodes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
from scipy.optimize import root_scalar
from scipy.special import bdtr

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Pairs:
    """How episodes that both A and B ran came out.

    Args:
        both, only_a, only_b, neither: episodes in which both, one or none of them succeeded.
    """

    both: int
    only_a: int
    only_b: int
    neither: int

    @classmethod
    def of(cls, a: Sequence[bool], b: Sequence[bool]) -> Pairs:
        """Count two equally long sequences of outcomes."""
        if len(a) != len(b):
            raise ValueError(f"{len(a)} outcomes of A and {len(b)} of B: they are not of the same episodes.")
        counts = [0, 0, 0, 0]
        for x, y in zip(a, b, strict=True):
            counts[(0 if y else 1) if x else (2 if y else 3)] += 1
        return cls(*counts)

    @property
    def n(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """Rate of A minus rate of B; NaN without episodes."""
        return (self.only_a - self.only_b) / self.n if self.n else math.nan

    @property
    def p_value(self) -> float:
        """Two-sided, see :func:`mcnemar_exact`."""
        return mcnemar_exact(self.only_a, self.only_b)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, see :func:`difference_interval`."""
        return difference_interval(self)

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(
            self.both + other.both,
            self.only_a + other.only_a,
            self.only_b + other.only_b,
            self.neither + other.neither,
        )

    def to_json(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            "n": self.n,
            "both": self.both,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "neither": self.neither,
            "difference": None if self.n == 0 else self.difference,
            "low": low,
            "high": high,
            "p_value": self.p_value,
        }


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p-value that A and B succeed equally often (McNemar 1947, by the binomial itself).

    If they do, each episode in which they differ is a fair coin. Exact: it never rejects more often than it
    says. 1 where they never differ.
    """
    if min(only_a, only_b) < 0:
        raise ValueError(f"{only_a} and {only_b} differing episodes: expected counts.")
    if not only_a + only_b:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def difference_interval(pairs: Pairs, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of the paired difference of two rates (Tango 1998).

    Holds its coverage where the textbook interval fails: few differing episodes, or none (it does not
    collapse to a point). [-1, 1] where nothing was run.
    """
    n, b, c = pairs.n, pairs.only_a, pairs.only_b
    if n == 0:
        return -1.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)

    def score(delta: float) -> float:
        """Distance of the observed difference from ``delta``, in standard errors under ``delta``."""
        # the maximum-likelihood P(only B) under P(only A) - P(only B) = delta
        linear = -b - c + (2 * n - b + c) * delta
        constant = -c * delta * (1 - delta)
        only_b = (math.sqrt(max(0.0, linear * linear - 8 * n * constant)) - linear) / (4 * n)
        variance = n * (2 * only_b + delta * (1 - delta))
        return (b - c - n * delta) / math.sqrt(max(variance, 1e-300))

    seen = (b - c) / n
    low = -1.0 if seen <= -1 else root_scalar(lambda delta: score(delta) - z, bracket=(-1.0, seen)).root
    high = 1.0 if seen >= 1 else root_scalar(lambda delta: score(delta) + z, bracket=(seen, 1.0)).root
    return low, high


def bootstrap_difference(
    cells: Mapping[K, tuple[Sequence[float], Sequence[float]]],
    *,
    confidence: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean over cells of the paired difference A - B, and its percentile bootstrap interval.

    Episodes are drawn anew within each cell, always as pairs; each cell counts alike. For anything that an
    episode yields: success, time, distance. With fewer than about 15 episodes a cell the interval is a little
    too narrow, as every bootstrap of few numbers is.

    Args:
        cells: cell -> what A and what B reached in the same episodes.
    """
    rng = np.random.default_rng(seed)
    means, spread = [], np.zeros(draws)
    for name, (a, b) in cells.items():
        gaps = np.asarray(a, float) - np.asarray(b, float)
        if not len(gaps) or not np.isfinite(gaps).all():
            raise ValueError(f"Cell {name}: expected at least one pair of finite numbers.")
        means.append(gaps.mean())
        spread += rng.choice(gaps, size=(draws, len(gaps))).mean(axis=1)
    if not means:
        raise ValueError("Nothing to compare: no cell has a pair of episodes.")
    tail = (1 - confidence) / 2
    low, high = np.quantile(spread / len(means), (tail, 1 - tail))
    return float(np.mean(means)), float(low), float(high)


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """P-values corrected for looking at several tasks at once (Holm 1979).

    Rejecting where the corrected value is below 5 % makes any false claim among all of them at most 5 %
    likely, whatever the tasks have to do with each other.
    """
    ordered = sorted(p_values, key=lambda name: p_values[name])
    corrected: dict[K, float] = {}
    running = 0.0
    for rank, name in enumerate(ordered):
        running = max(running, min(1.0, (len(ordered) - rank) * p_values[name]))
        corrected[name] = running
    return {name: corrected[name] for name in p_values}
