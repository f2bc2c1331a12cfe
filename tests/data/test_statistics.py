"""Statistics are right, travel exactly through JSON, and their normaliser is invertible and strict."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.worlds import make_arm
from vla.data.statistics import (
    Normalizer,
    Statistics,
    VectorStatistics,
    compute_statistics,
    statistics_from_json,
    statistics_to_json,
)
from vla.data.store import EpisodeStore
from vla.errors import StatisticsError, UnknownNameError

ARM = make_arm()
MODES = ("mean_std", "quantile", "range")


def vector(mean: np.ndarray, std: np.ndarray) -> VectorStatistics:
    rows = {"mean": mean, "std": std, "min": mean - 3 * std, "max": mean + 3 * std}
    rows |= {"q01": mean - 2 * std, "q99": mean + 2 * std}
    return VectorStatistics(**{key: tuple(row.tolist()) for key, row in rows.items()})


def make_statistics(spread: float = 0.1, shift: float = 0.0) -> Statistics:
    parts = {k: vector(np.full(n, shift), np.full(n, spread)) for k, n in (("state", 11), ("action", 5))}
    return Statistics(num_episodes=2, num_steps=20, **parts)


def test_statistics_equal_those_of_all_rows_at_once(filled):
    with EpisodeStore.open(filled) as store:
        found = compute_statistics(store)
        for name in ("alpha", "beta"):
            mine = [info.index for info in store.episodes if info.embodiment == name]
            for kind in ("state", "action"):
                rows = np.concatenate([store.column(i, kind) for i in mine]).astype(float)
                got = getattr(found[name], kind)
                np.testing.assert_allclose(got.mean, rows.mean(axis=0), atol=1e-9)
                np.testing.assert_allclose(got.std, rows.std(axis=0), rtol=1e-9)
                np.testing.assert_array_equal(got.min, rows.min(axis=0))
                np.testing.assert_array_equal(got.max, rows.max(axis=0))
                for q, values in ((0.01, got.q01), (0.99, got.q99)):
                    exact = np.quantile(rows, q, axis=0, method="inverted_cdf")
                    assert (np.abs(exact - values) <= np.ptp(rows, axis=0) / 8192).all()
            assert found[name].num_steps == len(rows)


def test_statistics_of_two_stores_are_pooled(filled):
    with EpisodeStore.open(filled) as store:
        once, twice = compute_statistics(store), compute_statistics([store, store])
    assert twice["alpha"].num_steps == 2 * once["alpha"].num_steps
    np.testing.assert_allclose(twice["alpha"].state.std, once["alpha"].state.std, rtol=1e-9)


def test_json_round_trip_is_exact(filled):
    with EpisodeStore.open(filled) as store:
        found = compute_statistics(store)
    assert statistics_from_json(json.loads(json.dumps(statistics_to_json(found)))) == found
    normalizer = Normalizer({"alpha": ARM}, {"alpha": found["alpha"]}, state_mode="quantile")
    again = Normalizer.from_json(json.loads(json.dumps(normalizer.to_json())), {"alpha": ARM})
    assert again.to_json() == normalizer.to_json()


@given(
    mode=st.sampled_from(MODES),
    spread=st.floats(0.0, 1e3),
    shift=st.floats(-1e3, 1e3),
    rows=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_unnormalise_inverts_normalise(mode, spread, shift, rows, seed):
    normalizer = Normalizer(
        {"alpha": ARM}, {"alpha": make_statistics(spread, shift)}, state_mode=mode, action_mode=mode
    )
    rng = np.random.default_rng(seed)
    for size, there, back in (
        (11, normalizer.normalise_state, normalizer.unnormalise_state),
        (5, normalizer.normalise_action, normalizer.unnormalise_action),
    ):
        values = (shift + rng.normal(size=(rows, size)) * (spread + 1)).astype(np.float32)
        scale = np.abs(values).max() + abs(shift) + spread
        np.testing.assert_allclose(
            back("alpha", there("alpha", values)), values, atol=3e-7 * scale, rtol=1e-6
        )


def test_modes_map_what_they_say_to_order_one():
    stats = {"alpha": make_statistics(0.2, 0.5)}
    mean_std, quantile, ranges = (
        Normalizer({"alpha": ARM}, stats, state_mode=m, action_mode=m) for m in MODES
    )
    np.testing.assert_allclose(mean_std.normalise_state("alpha", np.full(11, 0.7)), 1, rtol=1e-6)
    np.testing.assert_allclose(quantile.normalise_state("alpha", np.full(11, 0.9)), 1, rtol=1e-6)
    np.testing.assert_allclose(ranges.normalise_action("alpha", ARM.action_low), -1, rtol=1e-6)
    np.testing.assert_allclose(ranges.normalise_action("alpha", ARM.action_high), 1, rtol=1e-6)


@pytest.mark.parametrize("mode", ["mean_std", "quantile"])
def test_an_entry_that_hardly_varies_is_not_blown_up(mode):
    normalizer = Normalizer({"alpha": ARM}, {"alpha": make_statistics(1e-9)}, state_mode=mode)
    assert np.abs(normalizer.normalise_state("alpha", np.full(11, 1e-6))).max() < 1e-4


def test_missing_statistics_raise():
    normalizer = Normalizer({"alpha": ARM}, {"alpha": make_statistics()})
    with pytest.raises(StatisticsError, match=r"'beta'; there are those of 'alpha'\."):
        normalizer.normalise_state("beta", np.zeros(11))
    with pytest.raises(StatisticsError, match="shape"):
        normalizer.normalise_action("alpha", np.zeros(4))
    with pytest.raises(StatisticsError, match="described"):
        Normalizer({}, {"alpha": make_statistics()})
    with pytest.raises(UnknownNameError, match="Did you mean 'quantile'"):
        Normalizer({"alpha": ARM}, {}, state_mode="quantiles")


def test_damaged_statistics_raise(tmp_path):
    data = make_statistics().to_json()
    with pytest.raises(StatisticsError, match="keys"):
        Statistics.from_json({**data, "sum": 1})
    data["state"]["std"] = [float("nan")] * 11
    with pytest.raises(StatisticsError, match="finite"):
        Normalizer({"alpha": ARM}, {"alpha": Statistics.from_json(data)})
    with EpisodeStore.create(tmp_path / "s") as store, pytest.raises(StatisticsError, match="No episodes"):
        compute_statistics(store)
