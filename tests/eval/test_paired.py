import numpy as np
import pytest
from scipy.stats import binom

from vla.eval.paired import Pairs, bootstrap_difference, difference_interval, holm, mcnemar_exact


def draws(rng, n, only_a, only_b, both):
    """Outcomes of A and B whose pairs come with these probabilities."""
    kind = rng.choice(4, size=n, p=[both, only_a, only_b, 1 - both - only_a - only_b])
    return Pairs(*np.bincount(kind, minlength=4).tolist())


def test_pairs_count_what_happened():
    pairs = Pairs.of([True, True, False, False, True], [True, False, True, False, False])
    assert pairs == Pairs(both=1, only_a=2, only_b=1, neither=1)
    assert pairs.difference == pytest.approx(0.2)
    with pytest.raises(ValueError, match="not of the same episodes"):
        Pairs.of([True], [True, False])


@pytest.mark.parametrize(("b", "c", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (10, 3, 0.0923)])
def test_mcnemar_gives_the_values_of_a_fair_coin(b, c, p):
    assert mcnemar_exact(b, c) == mcnemar_exact(c, b) == pytest.approx(p, abs=1e-4)


def test_mcnemar_finds_a_difference_that_is_none_in_at_most_5_percent():
    for n, differing in ((50, 0.1), (200, 0.05), (1000, 0.3)):
        only_a = np.arange(n + 1)
        wrong = 0.0
        for m in range(n + 1):  # exactly, over everything that can happen
            weight = binom.pmf(m, n, differing)
            if weight > 1e-9:
                p_values = [mcnemar_exact(k, m - k) for k in only_a[: m + 1].tolist()]
                wrong += weight * binom.pmf(only_a[: m + 1], m, 0.5)[np.array(p_values) <= 0.05].sum()
        assert wrong <= 0.05


def test_tangos_interval_gives_published_values():
    # Tango 1998, table III: 43 pairs of which b=0, c=1; and 44, 1, 0 of Fagerland et al. 2014
    low, high = difference_interval(Pairs(both=42, only_a=0, only_b=1, neither=0))
    assert (low, high) == pytest.approx((-0.1206, 0.0603), abs=2e-3)
    assert difference_interval(Pairs(0, 0, 0, 0)) == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("only_a", "only_b", "both"), [(0.02, 0.02, 0.9), (0.15, 0.05, 0.6), (0.0, 0.08, 0.9)]
)
def test_the_difference_lies_in_its_interval_19_times_of_20(only_a, only_b, both):
    rng, n, covered = np.random.default_rng(3), 100, 0
    for _ in range(1500):
        low, high = draws(rng, n, only_a, only_b, both).interval
        covered += low <= only_a - only_b <= high
    assert 0.935 <= covered / 1500 <= 0.985


def test_the_bootstrap_interval_covers_the_mean_over_cells_and_uses_the_pairing():
    rng, covered, widths = np.random.default_rng(0), 0, []
    for seed in range(300):
        scene = rng.normal(size=(4, 40)) * 3  # what both policies meet alike
        a, b = scene + 0.5 + rng.normal(size=(4, 40)), scene + rng.normal(size=(4, 40))
        cells = {i: (a[i], b[i]) for i in range(4)}
        mean, low, high = bootstrap_difference(cells, draws=400, seed=seed)
        assert low <= mean <= high
        covered += low <= 0.5 <= high
        widths.append(high - low)
    assert 0.91 <= covered / 300 <= 0.98
    assert np.mean(widths) < 0.6  # unpaired it would be twice as wide


def test_a_cell_without_pairs_is_refused():
    with pytest.raises(ValueError, match="Nothing to compare"):
        bootstrap_difference({})
    with pytest.raises(ValueError, match="Cell pick: expected at least one pair"):
        bootstrap_difference({"pick": ([], [])})


def test_holm_corrects_in_order_and_keeps_the_names():
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5})
    assert list(corrected) == ["a", "b", "c", "d"]
    assert [corrected[k] for k in "acbd"] == pytest.approx([0.04, 0.09, 0.09, 0.5])


def test_among_12_tasks_without_a_difference_holm_claims_one_in_at_most_5_percent():
    rng = np.random.default_rng(1)
    wrong = sum(
        min(holm({t: draws(rng, 60, 0.1, 0.1, 0.7).p_value for t in range(12)}).values()) <= 0.05
        for _ in range(400)
    )
    assert wrong / 400 <= 0.05
