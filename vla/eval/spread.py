"""One recipe, several training seeds: how much of a difference between two policies is luck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, t

from vla.eval.intervals import Rate


@dataclass(frozen=True, kw_only=True)
class RunSpread:
    """What several training runs of one recipe say of the recipe.

    Args:
        runs: how many.
        mean: of their success rates.
        low, high: 95 % interval of the recipe's rate, over training seeds as well as episodes (Student's t).
        deviation: between runs, with the share that finite episodes explain taken out; never below 0.
        p_value: that all runs have the same rate (chi-squared).
    """

    runs: int
    mean: float
    low: float
    high: float
    deviation: float
    p_value: float

    @classmethod
    def of(cls, rates: Sequence[Rate]) -> RunSpread:
        """From two or more runs, each judged on one or more episodes."""
        if len(rates) < 2 or any(not rate.n for rate in rates):
            raise ValueError(f"{len(rates)} runs, one perhaps without episodes: expected two or more.")
        values = np.array([rate.value for rate in rates])
        mean, runs = float(values.mean()), len(rates)
        error = float(values.std(ddof=1) / math.sqrt(runs))
        half = float(t.ppf(0.975, runs - 1)) * error
        pooled = sum(rate.successes for rate in rates) / sum(rate.n for rate in rates)
        noise = np.array([pooled * (1 - pooled) / rate.n for rate in rates])
        between = max(0.0, float(values.var(ddof=1) - noise.mean()))
        alike = (
            1.0 if pooled in (0.0, 1.0) else float(chi2.sf(((values - pooled) ** 2 / noise).sum(), runs - 1))
        )
        return cls(
            runs=runs,
            mean=mean,
            low=max(0.0, mean - half),
            high=min(1.0, mean + half),
            deviation=math.sqrt(between),
            p_value=alike,
        )

    def text(self) -> str:
        low, high = 100 * self.low, 100 * self.high
        return (
            f"{self.runs} training runs: {100 * self.mean:.1f} % [{low:.0f}, {high:.0f}] for the recipe; "
            f"they differ by a standard deviation of {100 * self.deviation:.1f} points beyond the noise of "
            f"the episodes (p = {self.p_value:.2g} that they do not)."
        )
