"""What a policy remembers on an arm is what it was trained on, at the rate that was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.worlds import make_arm, make_episode
from tests.train.runs import SIZE, make_trainer, tiny_config
from vla.data.source import read_episode
from vla.data.store import EpisodeStore
from vla.models.heads.history import Past
from vla.train.config import TrainConfig
from vla.train.setup import draft_contract, open_data, open_windows
from vla_policies.learned import LearnedPolicy

HISTORY, GAP, ASKED, STORED = 3, 2, 10.0, 30.0


def filmed_faster(path: Path, start_s: float) -> Path:
    """Two episodes at 30 Hz whose clock began at ``start_s``."""
    rng, arm = np.random.default_rng(1), replace(make_arm("alpha", image_size=SIZE), control_hz=STORED)
    with EpisodeStore.create(path, embodiments=[arm]) as store:
        for _ in range(2):
            episode = make_episode(rng, arm, length=60)
            steps = tuple(
                replace(step, observation=replace(step.observation, time_s=start_s + t / STORED))
                for t, step in enumerate(episode.steps)
            )
            store.append(replace(episode, steps=steps))
    return path


def asked_config(path: Path) -> TrainConfig:
    config = tiny_config(path)
    model = replace(
        config.model, history=HISTORY, execution_horizon=GAP, heads=("regression",), things_weight=0.0
    )
    return replace(config, model=model, data=replace(config.data, control_hz=ASKED))


@pytest.mark.parametrize("start_s", [0.0, 1.7e9])
def test_the_past_in_training_is_at_the_asked_rate(tmp_path: Path, start_s: float) -> None:
    config = asked_config(filmed_faster(tmp_path / "fast.zarr", start_s))
    [source] = open_data(config.data)
    contract = draft_contract(config, [source], {})
    batch = open_windows(config, [source], contract).batch([(1, 9), (1, 3)])
    assert batch.past_there.tolist() == [[True] * 3, [True, False, False]]
    arm, normalizer = source.embodiments["alpha"], contract.normalizer()
    with EpisodeStore.open(tmp_path / "fast.zarr") as stored:
        states, actions = stored.column(1, "state"), stored.column(1, "action")
    for k in range(HISTORY):
        then = round((9 - (k + 1) * GAP) * STORED / ASKED)  # step as stored
        np.testing.assert_allclose(
            batch.past_state[0, k, arm.state_index],
            normalizer.normalise_state("alpha", states[then][None])[0],
            atol=1e-4,
        )
        commanded = np.append(actions[then : then + 3, :4].sum(axis=0), actions[then + 2, 4])
        np.testing.assert_allclose(
            batch.past_action[0, k, arm.action_index],
            normalizer.normalise_action("alpha", commanded[None].astype(np.float32))[0],
            atol=1e-4,
        )
    source.close()


@pytest.mark.parametrize("start_s", [0.0, 1.7e9])
def test_the_past_on_an_arm_is_that_of_training_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_s: float
) -> None:
    config = asked_config(filmed_faster(tmp_path / "fast.zarr", start_s))
    [source] = open_data(config.data)
    contract = draft_contract(config, [source], {})
    windows = open_windows(config, [source], contract)
    policy = LearnedPolicy(make_trainer(config).net.eval(), contract)
    told: list[Past] = []

    def as_demonstrated(inputs, **_):
        told.append(inputs.past)
        labels = windows.batch([(number, step)]).actions
        return torch.from_numpy(labels), torch.zeros(1, 2, 3)

    monkeypatch.setattr(policy.net, "sample", as_demonstrated)
    for number in range(len(source)):
        episode = read_episode(source, number)
        policy.reset()
        for step in range(0, len(episode.steps), GAP):
            policy.act([episode.steps[step].observation])
            trained = windows.batch([(number, step)])
            assert np.array_equal(told[-1].there.numpy(), trained.past_there)
            np.testing.assert_allclose(told[-1].state.numpy(), trained.past_state, atol=1e-5)
            np.testing.assert_array_equal(told[-1].action.numpy(), trained.past_action)
    assert len(told) == 20
    assert bool(told[-1].there.all())
    source.close()
