"""Looking at the numbers while episodes run, and stopping as soon as they say enough, without cheating.

A fixed interval that is looked at after every episode is wrong far more often than it says. These hold at
all times at once: whoever stops, whenever and why ever, is wrong with at most the stated probability.

Both are mixtures of likelihood ratios (Ville 1939, Robbins 1970): the probability of what was seen, averaged
over all rates, over its probability under one rate, exceeds 1 / alpha at any time with probability <= alpha
if that rate is true.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from scipy.optimize import root_scalar
from scipy.special import betaln, xlog1py, xlogy

from vla.eval.paired import Pairs

Verdict = Literal["A", "B", "undecided"]


def anytime_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a success rate that holds at every n at once.

    Wider than :func:`~vla.eval.intervals.wilson` by about half: the price of looking at any time. Successes
    must come in the order of the episodes, each from the same distribution.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials: expected 0 <= successes <= n.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1, e.g. 0.95.")
    if n == 0:
        return 0.0, 1.0
    failures = n - successes
    mixture = _log_mixture(successes, failures)

    def excess(rate: float) -> float:
        """Above 0 where the rate is rejected."""
        rate = min(max(rate, 1e-300), 1 - 1e-16)
        return mixture - xlogy(successes, rate) - xlog1py(failures, -rate) + math.log(1 - confidence)

    centre = successes / n
    low = 0.0 if successes == 0 else root_scalar(excess, bracket=(0.0, centre)).root
    high = 1.0 if successes == n else root_scalar(excess, bracket=(centre, 1.0)).root
    return low, high


def evidence(only_a: int, only_b: int) -> float:
    """How much the episodes in which A and B differ speak against a fair coin: an e-value.

    Under the hypothesis that both succeed equally often it exceeds 1 / alpha at any time with probability
    at most alpha; 20 is the bar of a 5 % test.
    """
    return math.exp(min(700.0, _log_mixture(only_a, only_b) + (only_a + only_b) * math.log(2.0)))


@dataclass(frozen=True)
class StopRule:
    """When to stop a comparison or a measurement.

    Args:
        alpha: probability of a wrong claim, over all looks together.
        half_width: stop once the rate is known to plus or minus this; 0: never for that.
        min_episodes: never before.
    """

    alpha: float = 0.05
    half_width: float = 0.0
    min_episodes: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or not 0 <= self.half_width < 0.5 or self.min_episodes < 1:
            raise ValueError(
                f"A stop rule needs alpha in (0, 1), half_width in [0, 0.5), min_episodes >= 1: {self}."
            )

    def known(self, successes: int, n: int) -> bool:
        """Whether the rate is known as precisely as asked."""
        if not self.half_width or n < self.min_episodes:
            return False
        low, high = anytime_interval(successes, n, 1 - self.alpha)
        return high - low <= 2 * self.half_width

    def verdict(self, pairs: Pairs) -> Verdict:
        """Who is better, or that it cannot be told yet."""
        if pairs.n < self.min_episodes or evidence(pairs.only_a, pairs.only_b) < 1 / self.alpha:
            return "undecided"
        return "A" if pairs.only_a > pairs.only_b else "B"


def compare_until(
    rule: StopRule, outcomes: Iterable[tuple[bool, bool]], *, max_episodes: int
) -> tuple[Verdict, Pairs]:
    """Draw paired outcomes until the rule has a verdict or ``max_episodes`` were drawn."""
    pairs = Pairs(0, 0, 0, 0)
    for a, b in outcomes:
        pairs = pairs + Pairs.of([a], [b])
        if rule.verdict(pairs) != "undecided" or pairs.n >= max_episodes:
            break
    return rule.verdict(pairs), pairs


def _log_mixture(successes: int, failures: int) -> float:
    """Log probability of a sequence, averaged over all rates (with Jeffreys' weights)."""
    return float(betaln(successes + 0.5, failures + 0.5) - betaln(0.5, 0.5))
