"""A store of random episodes and the smallest training run over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.data.worlds import make_arm, make_episode
from vla.data.mixture import SourceConfig
from vla.data.store import EpisodeStore
from vla.models.net_config import PolicyNetConfig
from vla.models.policy_net import PolicyNet
from vla.train.config import AugmentConfig, BudgetConfig, DataConfig, ModelConfig, OptimConfig, TrainConfig
from vla.train.cotraining import build_cotraining
from vla.train.examples import example_source
from vla.train.processes import ProcessGroup
from vla.train.setup import batch_source, draft_contract, open_data
from vla.train.trainer import Trainer
from vla.train.vlm import VLMConfig

SIZE = 16


def fill_store(path: Path, *, num_episodes: int = 6, things: Sequence[str] = (), color: str = "red") -> Path:
    rng = np.random.default_rng(3)
    arms = [make_arm("alpha", image_size=SIZE), make_arm("beta", image_size=SIZE, joints=5)]
    with EpisodeStore.create(path, embodiments=arms) as store:
        for i in range(num_episodes):
            text = f"reach the {(color, 'blue')[i % 3 == 0]} square"
            where = {"task": "reach", "seed": i, **({"things": list(things)} if things else {})}
            store.append(make_episode(rng, arms[i % 2], instruction=text, provenance=where))
    return path


def tiny_config(store: Path, *, steps: int = 4, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        data=DataConfig(sources=(SourceConfig(path=str(store)),), image_size=SIZE),
        model=ModelConfig(
            width=32, horizon=4, num_queries=3, num_noise=2, num_fusion_blocks=1, num_head_blocks=1
        ),
        optim=OptimConfig(batch_size=4, warmup_steps=2),
        budget=BudgetConfig(steps=steps),
        num_processes=1,
        device="cpu",
        log_every=1,
    )
    return replace(config, **changes)


def vlm_config(
    store: Path, model: str, *, vlm: Mapping[str, Any] | None = None, **changes: Any
) -> TrainConfig:
    """The same with a small pretrained backbone; ``vlm``: of its settings."""
    config = tiny_config(store)
    given = {"model": model, "image_size": 56, "max_tokens": 24, **(vlm or {})}
    model_config = replace(
        config.model, backbone="auto", vlm=VLMConfig(**given), locate_by_sight=False, heads=("regression",)
    )
    augment = AugmentConfig(word_dropout=0.0)
    return replace(config, **{"model": model_config, "augment": augment, **changes})


def make_trainer(config: TrainConfig) -> Trainer:
    sources = open_data(config.data)
    contract = draft_contract(config, sources, {})
    torch.manual_seed(config.seed)
    net = PolicyNet(PolicyNetConfig.from_json(contract.network))
    return Trainer(
        net,
        config,
        source=batch_source(config, sources, contract, ProcessGroup()),
        camera_roles=contract.camera_roles,
        embodiments=sorted(contract.embodiments),
        device=torch.device("cpu"),
        cotraining=build_cotraining(config, net, ProcessGroup()),
        examples=example_source(config, sources, contract),
    )
