"""Rates with the interval that belongs to them: no success rate is printed without n and bounds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided Wilson score interval of a binomial proportion (Wilson 1927).

    Unlike the textbook normal interval it does not collapse to a point at 0 or n successes and it
    keeps its stated coverage, on average over proportions, from n of about 10.

    Args:
        successes: 0 .. n.
        n: number of trials; with 0 trials nothing is known and the interval is [0, 1].
        confidence: 0 .. 1, exclusive.

    Returns:
        lower and upper bound, both in [0, 1].
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials: expected 0 <= successes <= n.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1, e.g. 0.95.")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p, z2_n = successes / n, z * z / n
    centre = (p + z2_n / 2) / (1 + z2_n)
    half = z / (1 + z2_n) * math.sqrt(p * (1 - p) / n + z2_n / (4 * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


@dataclass(frozen=True)
class Rate:
    """A number of successes among ``n`` trials, with its 95 % Wilson interval."""

    successes: int
    n: int

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> Rate:
        """Count true values."""
        values = [bool(outcome) for outcome in outcomes]
        return cls(sum(values), len(values))

    @property
    def value(self) -> float:
        """Fraction of successes; NaN where nothing was tried."""
        return self.successes / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.successes, self.n)

    def __add__(self, other: Rate) -> Rate:
        return Rate(self.successes + other.successes, self.n + other.n)

    def __str__(self) -> str:
        if not self.n:
            return "- (n=0)"
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.0f}, {100 * high:.0f}] (n={self.n})"

    def to_json(self) -> dict[str, Any]:
        """JSON-able: successes, n, rate (null without trials), low, high."""
        low, high = self.interval
        rate = None if self.n == 0 else self.value
        return {"successes": self.successes, "n": self.n, "rate": rate, "low": low, "high": high}
