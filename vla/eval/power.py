"""How many episodes a question takes, before anybody runs them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import binom

from vla.eval.intervals import wilson

MAX_EPISODES = 10_000_000


def episodes_for_width(rate: float, half_width: float, confidence: float = 0.95) -> int:
    """Episodes after which the Wilson interval around ``rate`` is at most ``half_width`` to either side.

    Raises:
        ValueError: a rate outside 0..1 or a width outside (0, 0.5].
    """
    if not 0 <= rate <= 1 or not 0 < half_width <= 0.5:
        raise ValueError(f"rate {rate} (0..1) and half_width {half_width} (above 0, to 0.5): out of range.")

    def enough(n: int) -> bool:
        low, high = wilson(round(rate * n), n, confidence)
        return (high - low) / 2 <= half_width

    return _least(enough)


def episodes_to_tell(
    rate_a: float,
    rate_b: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    agreement: float | None = None,
) -> int:
    """Episodes that tell two policies apart with probability ``power``, by McNemar's exact test.

    Args:
        rate_a, rate_b: what they are thought to reach.
        power: probability of finding the difference.
        alpha: of the two-sided test.
        agreement: correlation of the two outcomes within an episode, from 0 (as if on different scenes) to 1
            (as alike as their rates allow); None: 0, which asks for the most episodes.

    Raises:
        ValueError: equal rates, or numbers outside their ranges.
    """
    if not (0 <= rate_a <= 1 and 0 <= rate_b <= 1) or rate_a == rate_b:
        raise ValueError(f"Rates {rate_a} and {rate_b}: expected two different numbers in 0..1.")
    if not (0 < power < 1 and 0 < alpha < 1):
        raise ValueError(f"power {power} and alpha {alpha}: expected numbers between 0 and 1.")
    share = 0.0 if agreement is None else agreement
    if not 0 <= share <= 1:
        raise ValueError(f"agreement {share}: expected 0..1.")
    apart, alike = rate_a * rate_b, min(rate_a, rate_b)
    both = apart + share * (alike - apart)
    only_a, only_b = rate_a - both, rate_b - both
    return _least(lambda n: mcnemar_power(n, only_a, only_b, alpha) >= power)


def mcnemar_power(n: int, only_a: float, only_b: float, alpha: float = 0.05) -> float:
    """Probability that McNemar's exact test rejects after ``n`` episodes.

    Args:
        n: episodes.
        only_a, only_b: probabilities that A alone, B alone succeeds.
    """
    differing = only_a + only_b
    if differing <= 0:
        return 0.0
    # how many episodes differ, and of those how few may favour one side for the test to reject
    counts = np.arange(int(binom.ppf(1e-9, n, differing)), int(binom.ppf(1 - 1e-9, n, differing)) + 1)
    edges = binom.ppf(alpha / 2, counts, 0.5)
    edges -= binom.cdf(edges, counts, 0.5) > alpha / 2
    share = only_a / differing
    rejects = binom.cdf(edges, counts, share) + binom.sf(counts - edges - 1, counts, share)
    return float((binom.pmf(counts, n, differing) * np.where(edges >= 0, rejects, 0.0)).sum())


def _least(enough: Callable[[int], bool]) -> int:
    """The least n from which on it is enough (up to the saw-teeth of whole numbers)."""
    high = 2
    while not enough(high):
        high *= 2
        if high > MAX_EPISODES:
            raise ValueError(f"More than {MAX_EPISODES:,} episodes: ask for less.")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
