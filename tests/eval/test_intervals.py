import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla.eval.intervals import Rate, wilson

counts = st.integers(1, 150).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def tail(p: float, n: int, first: int, last: int) -> float:
    """Probability of ``first .. last`` successes of n."""
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(first, last + 1)]
    return sum(
        math.exp(c + k * math.log(p) + (n - k) * math.log1p(-p))
        for c, k in zip(logs, range(first, last + 1), strict=True)
    )


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval: the proportions at which each tail is just as likely as allowed, by bisection."""
    allowed = (1 - confidence) / 2

    def edge(rises: Callable[[float], bool]) -> float:
        low, high = 1e-12, 1 - 1e-12
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if rises(middle) else (middle, high)
        return low

    lower = 0.0 if successes == 0 else edge(lambda p: tail(p, n, successes, n) > allowed)
    upper = 1.0 if successes == n else edge(lambda p: tail(p, n, 0, successes) < allowed)
    return lower, upper


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(9, 10, 0.5958, 0.9821), (0, 20, 0.0, 0.1611), (50, 50, 0.9287, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_gives_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=2e-4)


@settings(deadline=None)
@given(counts)
def test_interval_contains_the_rate_and_stays_in_the_unit_interval(count: tuple[int, int]) -> None:
    low, high = wilson(*count)
    assert 0 <= low <= count[0] / count[1] <= high <= 1
    assert low < high


@settings(max_examples=40, deadline=None)
@given(counts)
def test_interval_agrees_with_the_exact_one(count: tuple[int, int]) -> None:
    low, high = wilson(*count)
    exact_low, exact_high = clopper_pearson(*count)
    assert high - low <= exact_high - exact_low + 0.01
    assert abs(low - exact_low) < 1 / max(count[1], 5)
    assert abs(high - exact_high) < 1 / max(count[1], 5)


@settings(deadline=None)
@given(counts)
def test_swapping_success_and_failure_mirrors_the_interval(count: tuple[int, int]) -> None:
    low, high = wilson(*count)
    assert wilson(count[1] - count[0], count[1]) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("n", [25, 50, 100])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_coverage_over_proportions_is_the_stated_one(n: int, confidence: float) -> None:
    rng = np.random.default_rng(n)
    p = rng.uniform(0.02, 0.98, 20_000)
    bounds = np.array([wilson(k, n, confidence) for k in range(n + 1)])
    drawn = bounds[rng.binomial(n, p)]
    covered = np.mean((drawn[:, 0] <= p) & (p <= drawn[:, 1]))
    assert covered == pytest.approx(confidence, abs=0.012)


def test_no_trials_know_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert math.isnan(Rate(0, 0).value)
    assert Rate(0, 0).to_json()["rate"] is None


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5)])
def test_impossible_counts_raise(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="expected 0 <= successes <= n"):
        wilson(successes, n)


def test_a_rate_prints_n_and_interval() -> None:
    assert str(Rate.of([True] * 96 + [False] * 4)) == "96.0 % [90, 98] (n=100)"
    assert Rate(3, 4) + Rate(1, 6) == Rate(4, 10)
