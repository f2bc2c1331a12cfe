"""Earlier moments in training windows."""

from dataclasses import replace

import numpy as np
import pytest

from tests.train.runs import fill_store, make_trainer, tiny_config
from vla.data.statistics import compute_statistics
from vla.data.store import EpisodeStore
from vla.data.windows import WindowConfig, WindowDataset
from vla.errors import ConfigError


def test_the_past_is_what_windows_there_hold_and_is_masked_before_the_episode(tmp_path):
    store = EpisodeStore.open(fill_store(tmp_path / "s.zarr"))
    config = WindowConfig(horizon=2, image_size=16, history=2, history_gap=2)
    windows = WindowDataset(store, config, compute_statistics([store]))
    now, before = windows.batch([(1, 5), (1, 2), (1, 1)]), windows.batch([(1, 3), (1, 1), (1, 0)])
    assert now.past_there.tolist() == [[True, True], [True, False], [False, False]]
    assert np.array_equal(now.past_state[0], before.state[:2])
    assert np.array_equal(now.past_action[0], before.actions[:2, 0])
    assert not now.past_state[1, 1].any()
    assert not now.past_state[2].any()
    assert not now.past_action[2].any()
    with pytest.raises(ConfigError, match="history_gap"):
        WindowConfig(history_gap=0)


def test_a_run_with_history_trains_on_moments_a_decision_apart(tmp_path):
    config = tiny_config(fill_store(tmp_path / "s.zarr"))
    trainer = make_trainer(replace(config, model=replace(config.model, history=2)))
    before = trainer.net.history.moment[0].weight.detach().clone()
    for _ in range(3):
        trainer.step(share=0.1)
    assert not before.equal(trainer.net.history.moment[0].weight)
    assert trainer.source(0).past_there.shape == (4, 2)
