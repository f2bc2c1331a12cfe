"""What a run needs before its first step: demonstrations, statistics, vocabulary, network, contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vla.contract import PolicyContract
from vla.data.statistics import compute_statistics
from vla.data.store import EpisodeStore
from vla.data.windows import Batch, WindowConfig, WindowDataset
from vla.embodiment import Embodiment
from vla.errors import ConfigError
from vla.interfaces import Cell
from vla.models.backbones.words import build_vocabulary
from vla.models.policy_net import PolicyNetConfig
from vla.train.config import DataConfig, ModelConfig, TrainConfig
from vla.train.host import auto_num_processes
from vla.train.processes import ProcessGroup
from vla.train.trainer import BatchSource

INSTRUCTION_NORMALISATION = (
    "lower case, split into words at anything that is not a letter, digit or underscore"
)


def ensure_demonstrations(config: DataConfig) -> None:
    """Fill ``stores[0]`` by the recipe, if there is one."""
    if not config.stores:
        raise ConfigError("Nothing to learn from: data.stores is empty.")
    recipe = config.generate
    if recipe is None:
        return
    from vla.data.generate import generate

    generate(
        recipe.suite,
        [Cell(task=task, embodiment=arm) for arm in recipe.embodiments for task in recipe.tasks],
        recipe.episodes_per_cell,
        Path(config.stores[0]),
        image_size=recipe.image_size,
        num_workers=recipe.num_workers or auto_num_processes(torch.device("cpu")),
        progress=True,
    )


def draft_contract(
    config: TrainConfig, stores: Sequence[EpisodeStore], provenance: dict[str, Any]
) -> PolicyContract:
    """The contract of the policy to be, complete but for the weights' hash."""
    statistics = compute_statistics(list(stores))
    windows = WindowDataset(list(stores), window_config(config), statistics)
    embodiments = {name: arm for name, arm in windows.embodiments.items() if name in statistics}
    vocabulary = build_vocabulary(info.instruction for store in stores for info in store.episodes)
    network = network_config(config.model, config.data, embodiments, vocabulary)
    return PolicyContract(
        embodiments=embodiments,
        normalisation=windows.normalizer.to_json(),
        camera_roles=config.data.camera_roles,
        image_size=config.data.image_size,
        horizon=config.model.horizon,
        execution_horizon=config.model.execution_horizon,
        heads=config.model.heads,
        num_flow_steps=config.model.num_flow_steps,
        instruction={"normalisation": INSTRUCTION_NORMALISATION, "vocabulary": vocabulary},
        network=network.to_json(),
        provenance=provenance,
    )


def network_config(
    model: ModelConfig, data: DataConfig, embodiments: dict[str, Embodiment], vocabulary: list[str]
) -> PolicyNetConfig:
    """The network that fits this data: its words, its arms, the union of their action entries."""
    active = sorted({int(i) for arm in embodiments.values() for i in arm.action_index})
    return PolicyNetConfig(
        action_index=tuple(active),
        backbone=model.backbone,
        backbone_settings={
            "vocabulary": vocabulary,
            "embodiments": sorted(embodiments),
            "camera_roles": list(data.camera_roles),
            "image_size": data.image_size,
            "width": model.width,
            "num_queries": model.num_queries,
            "num_heads": model.num_heads,
            "feed_ratio": model.feed_ratio,
        },
        projector=model.projector,
        width=model.width,
        num_fusion_blocks=model.num_fusion_blocks,
        num_heads=model.num_heads,
        feed_ratio=model.feed_ratio,
        state_slots=model.state_slots,
        heads=model.heads,
        horizon=model.horizon,
        num_head_blocks=model.num_head_blocks,
        num_noise=model.num_noise,
        localisation_weight=model.localisation_weight,
        keypoint_weight=model.keypoint_weight,
        state_dropout=model.state_dropout,
    )


def window_config(config: TrainConfig) -> WindowConfig:
    return WindowConfig(
        horizon=config.model.horizon,
        camera_roles=config.data.camera_roles,
        image_size=config.data.image_size,
        approach_share=config.data.approach_share,
    )


def batch_source(
    config: TrainConfig, stores: Sequence[EpisodeStore], contract: PolicyContract, group: ProcessGroup
) -> BatchSource:
    """This process's windows at each step: its share of one draw that all processes make alike."""
    if config.optim.batch_size % group.size:
        raise ConfigError(
            f"batch_size {config.optim.batch_size} does not divide among {group.size} processes."
        )
    windows = WindowDataset(list(stores), window_config(config), contract.normalizer().statistics)
    size = config.optim.batch_size // group.size

    def source(step: int) -> Batch:
        return windows.step_batch(
            seed=config.seed, step=step, batch_size=size, rank=group.rank, world=group.size
        )

    return source
