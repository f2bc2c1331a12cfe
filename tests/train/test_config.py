"""Configurations: JSON round trip, strictness, schedule; and the recipes build and train."""

import importlib.util
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.nets import make_net
from vla.data.mixture import SourceConfig
from vla.errors import ConfigError, UnknownNameError
from vla.train.config import BudgetConfig, GenerationConfig, ModelConfig, OptimConfig, TrainConfig
from vla.train.loop import train
from vla.train.optim import MovingAverage, learning_rate

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


def recipe(path: Path) -> TrainConfig:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.config()


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_survives_json(path):
    config = recipe(path)
    assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_trains_two_steps(path, named_store, smolvlm, tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_VLM", smolvlm)
    config, store = recipe(path), named_store
    data = replace(config.data, sources=(SourceConfig(path=str(store)),), generate=None, image_size=16)
    stages = tuple(replace(stage, budget=BudgetConfig(steps=1)) for stage in config.stages)
    config = replace(
        config, data=data, budget=BudgetConfig(steps=2), stages=stages, num_processes=1, device="cpu"
    )
    if config.init_from is not None:  # the second part of two: the first is the same but for it
        first = train(replace(config, init_from=None), tmp_path / "first")
        config = replace(config, init_from=str(first))
    policy = train(config, tmp_path / "run")
    assert (policy / "policy.json").is_file()


def test_unknown_keys_are_refused_with_a_suggestion():
    data = TrainConfig().to_json()
    with pytest.raises(UnknownNameError, match="Did you mean 'batch_size'"):
        TrainConfig.from_json({**data, "optim": {"batchsize": 3}})
    with pytest.raises(UnknownNameError, match="device"):
        TrainConfig(device="gpu")


def test_contradictions_are_refused():
    with pytest.raises(ConfigError, match="needs steps, minutes, or both"):
        BudgetConfig(steps=None)
    with pytest.raises(ConfigError, match=r"1\.\.4"):
        TrainConfig(model=ModelConfig(horizon=4, execution_horizon=5))


def test_nested_optional_parts_are_read_back():
    config = TrainConfig()
    config = replace(config, data=replace(config.data, generate=GenerationConfig(tasks=("pick", "push"))))
    assert TrainConfig.from_json(config.to_json()) == config


def test_the_learning_rate_warms_up_and_anneals_over_the_budget():
    config = OptimConfig(lr=1.0, warmup_steps=10, final_lr_share=0.02)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    rates = [learning_rate(config, 100, share) for share in np.linspace(0, 1, 11)]
    assert rates[0] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.02)
    assert all(a > b for a, b in itertools.pairwise(rates))


def test_the_budget_is_used_up_by_whichever_runs_out_first():
    budget = BudgetConfig(steps=100, minutes=10.0)
    assert budget.share(50, 1.0) == 0.5
    assert budget.share(10, 8.0) == 0.8
    assert budget.share(500, 0.0) == 1.0


def test_the_moving_average_follows_its_formula():
    net = make_net(heads=("regression",))
    average = MovingAverage(net, 0.9)
    before = [p.detach().clone() for p in net.parameters()]
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1.0)
    average.update(net, step=1000)
    for old, new in zip(before, average.values, strict=True):
        torch.testing.assert_close(new, old + 0.1)
