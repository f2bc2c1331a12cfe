"""What a run needs before its first step: demonstrations, statistics, vocabulary, network, contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vla import registry
from vla.contract import PolicyContract
from vla.data.batch import Batch
from vla.data.loader import BatchLoader
from vla.data.mixture import (
    check_pictures,
    normalisation_modes,
    open_sources,
    shares,
    source_format,
    source_names,
)
from vla.data.mixture_notes import mixture_notes
from vla.data.packing import merge_embodiments
from vla.data.source import EpisodeSource
from vla.data.statistics import Mode, Normalizer, compute_statistics
from vla.data.windows import WindowConfig, WindowDataset
from vla.errors import ConfigError, IncompatibleError
from vla.interfaces import Cell, tasks_of
from vla.models.backbones.words import build_vocabulary
from vla.train.action_tokens import fit_codec
from vla.train.config import DataConfig, TrainConfig
from vla.train.cotraining import question_names
from vla.train.host import auto_num_processes
from vla.train.network import network_config
from vla.train.processes import ProcessGroup
from vla.train.start import known_words
from vla.train.trainer import BatchSource
from vla.train.vlm import vlm_notes

INSTRUCTION_NORMALISATION = (
    "lower case, split into words at anything that is not a letter, digit or underscore"
)


def ensure_demonstrations(config: DataConfig) -> None:
    """Fill the first sources by the recipe, if there is one: the suite's, then those of its seasons."""
    if not config.sources:
        raise ConfigError("Nothing to learn from: data.sources is empty.")
    recipe = config.generate
    if recipe is None:
        return
    from vla.data.generate import generate
    from vla.data.record import NoiseConfig

    suites = {recipe.suite: recipe.episodes_per_cell}
    suites |= {f"{recipe.suite}@{season}": recipe.episodes_per_season_cell for season in recipe.seasons}
    if len(suites) > len(config.sources):
        raise ConfigError(
            f"data.generate fills {len(suites)} sources ({', '.join(suites)}), data.sources has "
            f"{len(config.sources)}: name one for each."
        )
    for (name, episodes), source in zip(suites.items(), config.sources, strict=False):
        tasks = tasks_of(registry.suite(name), recipe.tasks)
        generate(
            name,
            [Cell(task=task, embodiment=arm) for arm in recipe.embodiments for task in tasks],
            episodes,
            Path(source.path),
            image_size=recipe.image_size,
            num_workers=recipe.num_workers or auto_num_processes(torch.device("cpu")),
            noise=NoiseConfig().times(recipe.noise),
            progress=True,
        )


def open_data(config: DataConfig) -> tuple[EpisodeSource, ...]:
    """The recipe's sources, renamed and resampled as it says; see ``vla.data.mixture.open_sources``."""
    sources = open_sources(config.sources, control_hz=config.control_hz)
    check_pictures(config.sources, sources, config.camera_roles, config.image_size)
    return sources


def close_data(sources: Sequence[EpisodeSource]) -> None:
    for source in sources:
        source.close()


def draft_contract(
    config: TrainConfig, sources: Sequence[EpisodeSource], provenance: dict[str, Any]
) -> PolicyContract:
    """The contract of the policy to be, complete but for the weights' hash."""
    merged = merge_embodiments(sources)  # first: it says why two arms of one name are not one
    statistics = compute_statistics(sources)
    modes = _modes(config.data, sources)
    embodiments = {name: arm for name, arm in merged.items() if name in statistics}
    normalizer = Normalizer(
        embodiments,
        statistics,
        modes=modes,
        state_mode=config.data.state_mode,
        action_mode=config.data.action_mode,
    )
    instructions = (i.instruction for source in sources for i in source.episodes)
    vocabulary = build_vocabulary([*instructions, *question_names(config), *known_words(config.init_from)])
    network = network_config(config, embodiments, vocabulary)
    if "fast" in config.model.heads:
        windows = WindowDataset(sources, window_config(config, modes), statistics)
        size, actions = config.model.action_vocabulary, network.action_index
        codec = fit_codec(windows, actions, vocabulary=size, seed=config.seed).to_json()
        network = replace(network, head_settings={**network.head_settings, "codec": codec})
    return PolicyContract(
        embodiments=embodiments,
        normalisation=normalizer.to_json(),
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


def describe_data(config: DataConfig, sources: Sequence[EpisodeSource]) -> list[dict[str, Any]]:
    """Of each source: name, format, share of a batch, rates, episodes of each cell, a checksum over all."""
    described = []
    names, parts = source_names(config.sources), shares(config.sources)
    for name, share, source in zip(names, parts, sources, strict=True):
        cells = Counter(f"{i.provenance.get('task', '?')}/{i.embodiment}" for i in source.episodes)
        arms = sorted({i.embodiment for i in source.episodes})
        described.append(
            {
                "store": name,
                "format": source_format(source),
                "share": round(share, 6),
                "control_hz": {arm: source.embodiments[arm].control_hz for arm in arms},
                "episodes": dict(cells),
                "num_episodes": len(source),
                "num_steps": sum(i.length for i in source.episodes),
                "index_crc32c": source.index_checksum(),
            }
        )
    return described


def data_notes(config: TrainConfig, sources: Sequence[EpisodeSource]) -> list[str]:
    """What training leaves out of these data or changes in them; see ``vla.data.mixture_notes``."""
    notes = mixture_notes(
        config.data.sources,
        sources,
        roles=config.data.camera_roles,
        image_size=config.data.image_size,
        state_slots=config.model.state_slots,
        state_mode=config.data.state_mode,
        action_mode=config.data.action_mode,
    )
    return [*notes, *vlm_notes(config)]


def check_data(config: DataConfig, sources: Sequence[EpisodeSource], contract: PolicyContract) -> None:
    """Raise :class:`IncompatibleError` unless the sources hold what the run was started with."""
    began, now = contract.provenance.get("data", []), describe_data(config, sources)
    reasons = [] if len(began) == len(now) else [f"{len(began)} sources then, {len(now)} now"]
    for before, here in zip(began, now, strict=False):
        # a run of an older version pinned fewer facts
        changed = [key for key in before if key in here and before[key] != here[key]]
        reasons += [f"{here['store']}: {key} {before[key]} then, {here[key]} now" for key in changed]
    if reasons:
        advice = "restore these sources, or start a new run directory"
        raise IncompatibleError("the run", "what its sources hold now", [*reasons, advice])


def window_config(config: TrainConfig, modes: Mapping[str, tuple[Mode, Mode]]) -> WindowConfig:
    """Pictures were checked when the data were opened (:func:`open_data`); here all may be resized."""
    return WindowConfig(
        horizon=config.model.horizon,
        history=config.model.history,
        history_gap=config.model.execution_horizon,
        camera_roles=config.data.camera_roles,
        image_size=config.data.image_size,
        resize=True,
        modes=modes,
        approach_share=config.data.approach_share,
        equal_cells=config.data.equal_cells,
        state_mode=config.data.state_mode,
        action_mode=config.data.action_mode,
    )


def open_windows(
    config: TrainConfig, sources: Sequence[EpisodeSource], contract: PolicyContract
) -> WindowDataset:
    """All windows of the sources, normalised as the contract says."""
    return WindowDataset(
        sources,
        window_config(config, _modes(config.data, sources)),
        contract.normalizer().statistics,
        weights=[source.weight for source in config.data.sources],
    )


def batch_source(
    config: TrainConfig, sources: Sequence[EpisodeSource], contract: PolicyContract, group: ProcessGroup
) -> BatchSource:
    """This process's windows at each step: its share of one draw that all processes make alike."""
    if config.optim.batch_size % group.size:
        raise ConfigError(
            f"batch_size {config.optim.batch_size} does not divide among {group.size} processes."
        )
    windows = open_windows(config, sources, contract)
    draw = {
        "batch_size": config.optim.batch_size // group.size,
        "seed": config.seed,
        "rank": group.rank,
        "world": group.size,
        "num_workers": config.data.num_workers,
    }
    loader = BatchLoader(windows, **draw)

    def source(step: int) -> Batch:
        nonlocal loader
        if step != loader.step:  # a resumed run begins elsewhere
            loader.close()
            loader = BatchLoader(windows, start=step, **draw)
        return next(loader)

    return source


def _modes(config: DataConfig, sources: Sequence[EpisodeSource]) -> dict[str, tuple[Mode, Mode]]:
    return normalisation_modes(config.sources, sources, config.state_mode, config.action_mode)
