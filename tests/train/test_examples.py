"""Example episodes in the prompt, from the recipe to the running policy."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.worlds import make_arm, make_episode
from tests.models.nets import make_net
from tests.train.runs import SIZE, fill_store, make_trainer, tiny_config, vlm_config
from vla.data.mixture import open_sources
from vla.data.source import read_episode
from vla.data.store import EpisodeStore
from vla.errors import ConfigError, ObservationError, UnknownNameError
from vla.models.examples import example_steps, show_examples
from vla.train.config import BudgetConfig, TrainConfig
from vla.train.examples import example_source
from vla.train.loop import train
from vla.train.setup import draft_contract
from vla.train.vlm import ExamplesConfig, vlm_notes
from vla_policies.learned import LearnedPolicy

EXAMPLES = ExamplesConfig(num_episodes=2, num_steps=3, num_latents=2, num_layers=1, hidden_share=0.0)


def reading(config: TrainConfig, **changes: Any) -> TrainConfig:
    model = replace(config.model, examples=replace(EXAMPLES, **changes))
    return replace(config, model=model, budget=BudgetConfig(steps=2))


def episodes_of(path: Path, *numbers: int) -> list[Any]:
    (source,) = open_sources(tiny_config(path).data.sources)
    return [read_episode(source, number) for number in numbers]


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes: four of one task, of two arms; one each of two others."""
    path, rng = tmp_path_factory.mktemp("tasks") / "tasks.zarr", np.random.default_rng(0)
    arms = [make_arm("alpha", image_size=SIZE), make_arm("beta", image_size=SIZE, joints=5)]
    with EpisodeStore.create(path, embodiments=arms) as store:
        for i, task in enumerate(("reach", "lift", "reach", "reach", "push", "reach")):
            store.append(make_episode(rng, arms[i % 2], length=5 + i, provenance={"task": task}))
    return path


def test_examples_are_other_episodes_of_the_same_task_spread_over_time(two_tasks: Path):
    config = reading(tiny_config(two_tasks))
    sources = open_sources(config.data.sources)
    source = example_source(config, sources, draft_contract(config, sources, {}))
    assert source is not None
    index, there = source.draw(np.array([0, 1, 3] * 20), np.random.default_rng(1))
    again, _ = source.draw(np.array([0, 1, 3] * 20), np.random.default_rng(1))
    assert np.array_equal(index, again)
    shown = [set(row[known][:, 0].tolist()) for row, known in zip(index, there, strict=True)]
    assert all(len(row) == 2 and row <= {2, 3, 5} for row in shown[::3])
    assert not any(shown[1::3])  # the only one of its task
    assert set().union(*shown[2::3]) == {0, 2, 5}
    assert index[0, 0, :, 1].tolist() == [0, (4 + index[0, 0, 0, 0]) // 2, 4 + index[0, 0, 0, 0]]


def test_a_share_of_samples_is_shown_nothing(two_tasks: Path):
    config = reading(tiny_config(two_tasks), hidden_share=0.5)
    sources = open_sources(config.data.sources)
    source = example_source(config, sources, draft_contract(config, sources, {}))
    assert source is not None
    _, there = source.draw(np.zeros(400, np.int64), np.random.default_rng(0))
    assert 0.4 < there.any((1, 2)).mean() < 0.6


def test_short_episodes_fill_the_steps_they_have():
    steps, there = example_steps(2, 4)
    assert steps.tolist() == [0, 1, 0, 0]
    assert there.tolist() == [True, True, False, False]
    assert example_steps(11, 3)[0].tolist() == [0, 5, 10]


@pytest.mark.parametrize("base", ["tiny", "smolvlm"])
def test_a_recipe_trains_saves_and_loads_a_policy_that_reads_examples(
    base: str, store: Path, smolvlm: str, tmp_path: Path
):
    config = reading(tiny_config(store) if base == "tiny" else vlm_config(store, smolvlm))
    policy = LearnedPolicy.load(train(config, tmp_path / "run"), head="regression")
    episodes = episodes_of(store, 0, 2, 4)
    seen = [episodes[2].steps[3].observation]
    alone, chunks = policy.act(seen)[0].actions, []
    for shown in (episodes[:2], episodes[1:2], episodes[:2]):
        policy.show(shown)
        chunks.append(policy.act(seen)[0].actions)
    assert not np.array_equal(chunks[0], alone)
    assert not np.array_equal(chunks[0], chunks[1])
    assert np.array_equal(chunks[0], chunks[2])
    policy.show([])
    assert np.array_equal(policy.act(seen)[0].actions, alone)


def test_training_opens_the_gates_and_aligning_teaches_what_reads_examples(store: Path):
    trainer = make_trainer(reading(tiny_config(store)))
    gate = trainer.net.backbone.layers[0].attention_gate
    latents = trainer.net.backbone.resampler.latents.detach().clone()
    for _ in range(3):
        trainer.step(share=0.0)
    assert gate.abs().item() > 0
    assert not torch.equal(latents, trainer.net.backbone.resampler.latents)  # once a gate is open
    assert trainer.describe_stages()[0]["parts"]["projector"][0] > latents.numel()


def test_training_and_running_see_an_example_alike(store: Path):
    config = reading(tiny_config(store), num_episodes=1)
    sources = open_sources(config.data.sources)
    contract = draft_contract(config, sources, {})
    trainer, source = make_trainer(config), example_source(config, sources, contract)
    assert source is not None
    batch = trainer.source(0)
    rng = np.random.default_rng(0)
    drawn = int(source.draw(batch.index[:1, 0], np.random.default_rng(0))[0][0, 0, 0, 0])
    one = replace(batch, index=batch.index[:1])
    trainer.net.eval()
    with torch.no_grad():
        trainer.net.backbone.show(source(one, trainer.net.backbone, rng, torch.device("cpu")))
        ours = trainer.net.backbone._memory
        show_examples(trainer.net, contract, episodes_of(store, drawn))
        theirs = trainer.net.backbone._memory
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def test_what_cannot_be_shown_is_refused(store: Path):
    config = reading(tiny_config(store))
    sources = open_sources(config.data.sources)
    contract = draft_contract(config, sources, {})
    net, episodes = make_trainer(config).net, episodes_of(store, 0, 1, 2)
    with pytest.raises(ObservationError, match="at most 2 example episodes"):
        show_examples(net, contract, episodes)
    with pytest.raises(UnknownNameError, match="gamma"):
        show_examples(net, contract, [replace(episodes[0], embodiment="gamma")])
    with pytest.raises(ConfigError, match=r"does not read examples.*model\.examples"):
        show_examples(make_net(), contract, episodes[:1])
    with pytest.raises(ConfigError, match="1 or more"):
        ExamplesConfig(num_steps=0)


def test_the_only_episode_of_its_task_trains_without_examples(tmp_path: Path):
    trainer = make_trainer(reading(tiny_config(fill_store(tmp_path / "one.zarr", num_episodes=1))))
    assert np.isfinite(trainer.step(share=0.0)["loss"])


def test_the_pipeline_is_shown_examples_too(store: Path, tmp_path: Path):
    from transformers import pipeline

    from vla.models.auto import TASK

    policy = train(reading(tiny_config(store)), tmp_path / "run")
    run: Any = pipeline(TASK, model=str(policy))  # type: ignore[call-overload]
    episodes = episodes_of(store, 0, 2, 4)
    seen = episodes[2].steps[3].observation
    alone = run(seen).actions
    run.show(episodes[:2])
    assert not np.array_equal(run(seen).actions, alone)


def test_a_backbone_without_a_preprocessor_file_is_noted(store: Path, smolvlm: str, tmp_path: Path):
    (note,) = vlm_notes(vlm_config(store, smolvlm))
    assert "no preprocessor file: pictures are prepared as usual for 'smolvlm'" in note
    shutil.copytree(smolvlm, tmp_path / "whole")
    (tmp_path / "whole" / "preprocessor_config.json").write_text("{}")
    assert vlm_notes(vlm_config(store, str(tmp_path / "whole"))) == []
    assert vlm_notes(tiny_config(store)) == []
