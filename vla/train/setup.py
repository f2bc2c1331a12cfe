"""What a run needs before its first step: demonstrations, statistics, vocabulary, network, contract."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vla.contract import PolicyContract
from vla.data.statistics import compute_statistics
from vla.data.store import EpisodeStore
from vla.data.windows import Batch, WindowConfig, WindowDataset
from vla.embodiment import Embodiment, compatible
from vla.errors import ConfigError, IncompatibleError
from vla.interfaces import Cell
from vla.models.backbones.words import build_vocabulary
from vla.models.policy_net import PolicyNetConfig
from vla.models.saving import load_policy
from vla.train.config import DataConfig, ModelConfig, TrainConfig
from vla.train.host import auto_num_processes
from vla.train.processes import ProcessGroup
from vla.train.trainer import BatchSource

INSTRUCTION_NORMALISATION = (
    "lower case, split into words at anything that is not a letter, digit or underscore"
)
#: Settings of the network that may differ from those of the policy that a run starts from.
_TRAINING_ONLY = {"num_noise", "localisation_weight", "keypoint_weight", "state_dropout"}


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


def describe_data(stores: Sequence[EpisodeStore]) -> list[dict[str, Any]]:
    """Name, episodes of each cell, and a checksum over all episodes, of each store."""
    described = []
    for store in stores:
        cells = Counter(f"{i.provenance.get('task', '?')}/{i.embodiment}" for i in store.episodes)
        described.append(
            {
                "store": Path(store.path).name,
                "episodes": dict(cells),
                "num_episodes": len(store),
                "index_crc32c": store.index_checksum(),
            }
        )
    return described


def check_data(stores: Sequence[EpisodeStore], contract: PolicyContract) -> None:
    """Raise :class:`IncompatibleError` unless the stores hold what the run was started with."""
    began, now = contract.provenance.get("data", []), describe_data(stores)
    reasons = [] if len(began) == len(now) else [f"{len(began)} stores then, {len(now)} now"]
    for before, here in zip(began, now, strict=False):
        # a run of an older version pinned fewer facts
        changed = [key for key in before if key in here and before[key] != here[key]]
        reasons += [f"{here['store']}: {key} {before[key]} then, {here[key]} now" for key in changed]
    if reasons:
        advice = "restore these stores, or start a new run directory"
        raise IncompatibleError("the run", "what its stores hold now", [*reasons, advice])


def load_start(path: str, contract: PolicyContract) -> dict[str, torch.Tensor]:
    """Weights of the policy at ``path``, if they mean in this run what they meant there.

    Raises:
        IncompatibleError: arms, normalisation, cameras, words or network differ; with every reason.
    """
    net, start = load_policy(path)
    reasons = _start_reasons(start, contract)
    if reasons:
        raise IncompatibleError(f"the policy {path} (init_from)", "this run", reasons)
    return net.state_dict()


def _start_reasons(start: PolicyContract, run: PolicyContract) -> list[str]:
    reasons = []
    theirs, ours = sorted(start.embodiments), sorted(run.embodiments)
    if theirs != ours:
        reasons.append(f"embodiments {theirs} there, {ours} here")
    for name in sorted(set(theirs) & set(ours)):
        answer = compatible(start.embodiments[name], run.embodiments[name])
        reasons += [f"embodiment {name!r}: {reason}" for reason in answer.reasons]
    for key in ("state_mode", "action_mode"):
        if start.normalisation[key] != run.normalisation[key]:
            reasons.append(f"{key} {start.normalisation[key]!r} there, {run.normalisation[key]!r} here")
    words, known = (list(c.instruction["vocabulary"]) for c in (start, run))
    if words != known:
        only_there, only_here = sorted(set(words) - set(known)), sorted(set(known) - set(words))
        reasons.append(f"vocabulary: only there {only_there}, only here {only_here} (or another order)")
    if start.instruction["normalisation"] != run.instruction["normalisation"]:
        reasons.append("instructions become words in another way")
    left, right = _settings(start), _settings(run)
    for key in sorted(left.keys() | right.keys()):
        if left.get(key) != right.get(key):
            reasons.append(f"{key} {left.get(key)!r} there, {right.get(key)!r} here")
    return reasons


def _settings(contract: PolicyContract) -> dict[str, Any]:
    """What decides the meaning of weights beside arms and words, flat and as JSON values."""
    network = json.loads(json.dumps(dict(contract.network)))
    nested = network.pop("backbone_settings")
    flat = {**{f"backbone {key}": value for key, value in nested.items()}, **network}
    flat |= {"camera_roles": list(contract.camera_roles), "image_size": contract.image_size}
    compared = {"backbone vocabulary", "backbone embodiments", "backbone camera_roles", "backbone image_size"}
    return {key: value for key, value in flat.items() if key not in compared | _TRAINING_ONLY}


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
            "num_film_layers": model.num_film_layers,
            "num_frequencies": model.num_frequencies,
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
