import numpy as np
import pytest

from vla.eval.intervals import wilson
from vla.eval.paired import Pairs
from vla.eval.sequential import StopRule, anytime_interval, compare_until, evidence


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.9])
def test_looking_after_every_episode_the_interval_misses_in_at_most_5_percent_of_runs(rate):
    runs, n = 300, 200
    outcomes = np.random.default_rng(0).random((runs, n)) < rate
    missed_ours = missed_wilson = 0
    for row in outcomes.cumsum(axis=1):
        looks = range(5, n + 1, 5)
        ours = [anytime_interval(int(row[k - 1]), k) for k in looks]
        fixed = [wilson(int(row[k - 1]), k) for k in looks]
        missed_ours += any(not low <= rate <= high for low, high in ours)
        missed_wilson += any(not low <= rate <= high for low, high in fixed)
    assert missed_ours / runs <= 0.05
    assert missed_wilson / runs > 0.15  # what happens to those who look often at an interval for one look


def test_the_interval_narrows_to_the_rate_and_contains_it():
    widths = []
    for n in (10, 100, 1000, 10_000):
        low, high = anytime_interval(int(0.9 * n), n)
        assert 0 < low < 0.9 < high < 1
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.03
    assert anytime_interval(0, 0) == (0.0, 1.0)
    assert anytime_interval(20, 20)[1] == 1.0


def policies(rng, rate_a, rate_b):
    while True:
        scene = rng.random()
        yield (
            bool(scene < rate_a),
            bool(scene < rate_b) if rng.random() < 0.5 else bool(rng.random() < rate_b),
        )


def test_of_equal_policies_one_is_called_better_in_at_most_5_percent_whenever_one_stops():
    rng = np.random.default_rng(0)
    verdicts = [compare_until(StopRule(), policies(rng, 0.8, 0.8), max_episodes=400)[0] for _ in range(400)]
    assert sum(v != "undecided" for v in verdicts) / 400 <= 0.05


def test_a_clear_difference_is_found_early_and_the_right_way_round():
    rng = np.random.default_rng(0)
    runs = [compare_until(StopRule(), policies(rng, 0.5, 0.8), max_episodes=1000) for _ in range(60)]
    assert [verdict for verdict, _ in runs].count("B") >= 58
    assert np.median([pairs.n for _, pairs in runs]) < 150


def test_a_rate_is_measured_until_it_is_known_as_asked():
    rule = StopRule(half_width=0.05)
    assert not rule.known(9, 10)
    n = next(n for n in range(10, 2000, 10) if rule.known(int(0.9 * n), n))
    low, high = anytime_interval(int(0.9 * n), n)
    assert high - low <= 0.1
    assert not StopRule().known(9_000, 10_000)  # nobody asked


def test_few_episodes_decide_nothing_and_impossible_rules_are_refused():
    assert StopRule(min_episodes=30).verdict(Pairs(0, 20, 0, 0)) == "undecided"
    assert StopRule().verdict(Pairs(0, 20, 0, 0)) == "A"
    assert evidence(0, 0) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="stop rule"):
        StopRule(alpha=0.0)
