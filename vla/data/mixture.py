"""Demonstrations of any format, arm and rate as the sources of one training mixture.

::

    path ─► open_source ─► successes ─► resampled ─► renamed ─► EpisodeSource ─► WindowDataset (weights)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vla.data.damage import damage_lines
from vla.data.description import Ranges
from vla.data.mapped import MappedSource
from vla.data.readers import open_source
from vla.data.resample import ResampledSource
from vla.data.source import EpisodeSource, read_through
from vla.data.source_view import AdaptedSource
from vla.data.statistics import MODES, Mode
from vla.data.store import EpisodeStore
from vla.data.undescribed import UndescribedSource
from vla.embodiment import Camera, Embodiment
from vla.errors import ConfigError, DatasetError, StoreError, UnknownNameError
from vla.interfaces import TRAIN_SEED
from vla.spaces import STATE_SLOTS


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One set of demonstrations in a mixture.

    Args:
        path: of any format that ``vla.data.readers.open_source`` knows.
        weight: its part of every batch, relative to the other sources' weights.
        description: embodiment file of a foreign format; None: the one beside the data.
        rename: arm in the data -> its name in this run, where one name means two arms.
        hz: resample to this control rate; None: that of the whole mixture, or as it is.
        resize: area-resize pictures to the recipe's size, squeezed to a square; otherwise another size is
            refused. None: do so in foreign formats, whose cameras nobody chose for this recipe.
        state_mode, action_mode: normalisation of its arms (see ``vla.data.statistics.Normalizer``); None:
            the recipe's. ``quantile`` suits actions whose declared range is a guess.
        failures: learn from unsuccessful episodes too; those of unknown success are always learned from.
        skip_damaged: leave damaged episodes out and say which, instead of refusing the source. Everything is
            read once for that when it is opened, in foreign formats every picture decoded: import a large
            data set once (``vla data import --skip-damaged``) rather than do so in every run.
    """

    path: str
    weight: float = 1.0
    description: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    hz: float | None = None
    resize: bool | None = None
    state_mode: Mode | None = None
    action_mode: Mode | None = None
    failures: bool = False
    skip_damaged: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.weight) and self.weight > 0):
            raise ConfigError(f"Source {self.path}: weight is {self.weight}, expected more than 0.")
        if self.hz is not None and not self.hz > 0:
            raise ConfigError(f"Source {self.path}: hz is {self.hz}, expected more than 0.")
        for mode in (self.state_mode, self.action_mode):
            if mode is not None and mode not in MODES:
                raise UnknownNameError(f"normalisation mode of {self.path}", mode, MODES)


def open_sources(
    configs: Sequence[SourceConfig], *, control_hz: float | None = None
) -> tuple[EpisodeSource, ...]:
    """Open every source and bring it into the form the mixture wants; all are closed again if one fails.

    Args:
        configs: of the sources.
        control_hz: resample those that name no rate of their own to this one.

    Raises:
        DatasetError, StoreError: data that cannot be read, or of which no episode is left.
    """
    with ExitStack() as opened:
        sources = []
        for config in configs:
            source = open_source(config.path, config.description, skip_damaged=config.skip_damaged)
            opened.callback(source.close)
            sources.append(_adapt(source, config, config.hz or control_hz))
        opened.pop_all()
    return tuple(sources)


def source_names(configs: Sequence[SourceConfig]) -> tuple[str, ...]:
    """A short, distinct name for each source: of its file, numbered where two have the same."""
    names = [Path(config.path).name for config in configs]
    return tuple(f"{name}#{i}" if names.count(name) > 1 else name for i, name in enumerate(names))


def shares(configs: Sequence[SourceConfig]) -> tuple[float, ...]:
    """Part of a batch that each source makes up, in expectation."""
    total = sum(config.weight for config in configs)
    return tuple(config.weight / total for config in configs)


def normalisation_modes(
    configs: Sequence[SourceConfig], sources: Sequence[EpisodeSource], state_mode: Mode, action_mode: Mode
) -> dict[str, tuple[Mode, Mode]]:
    """Modes of the arms that a source has its own for, by arm; sources that disagree raise.

    ``range`` needs ranges that somebody declared: where a description says that they are measured or assumed,
    quantiles take its place unless the source asks for ``range`` by name.
    """
    found: dict[str, tuple[Mode, Mode]] = {}
    for config, source in zip(configs, sources, strict=True):
        pair = (
            config.state_mode or _usual_mode(state_mode, source),
            config.action_mode or _usual_mode(action_mode, source),
        )
        for name in sorted({info.embodiment for info in source.episodes}):
            if found.setdefault(name, pair) != pair:
                raise ConfigError(
                    f"Arm {name!r} would be normalised by {found[name]} and, for {config.path}, by {pair}: "
                    "give its sources the same state_mode and action_mode, or rename one."
                )
    return {name: pair for name, pair in found.items() if pair != (state_mode, action_mode)}


def check_pictures(
    configs: Sequence[SourceConfig], sources: Sequence[EpisodeSource], roles: Sequence[str], image_size: int
) -> None:
    """Raise :class:`ConfigError` where pictures have another size and the source does not say resize."""
    for config, source in zip(configs, sources, strict=True):
        for arm, camera in _cameras(source, roles):
            if (camera.height, camera.width) != (image_size, image_size) and not _resizes(config, source):
                raise ConfigError(
                    f"Camera {camera.name!r} of {arm!r} in {config.path} is {camera.height}x{camera.width}, "
                    f"image_size is {image_size}: set resize=True of this source, or image_size to match."
                )


def mixture_notes(
    configs: Sequence[SourceConfig],
    sources: Sequence[EpisodeSource],
    *,
    roles: Sequence[str],
    image_size: int,
    state_slots: Sequence[str],
) -> list[str]:
    """What a person should know of a mixture: all in the data that training leaves out or changes."""
    notes: list[str] = []
    rates: dict[float, list[str]] = {}
    for name, opened in zip(source_names(configs), sources, strict=True):
        source = opened
        arms = {arm: source.embodiments[arm] for arm in sorted({i.embodiment for i in source.episodes})}
        for arm in arms.values():
            rates.setdefault(arm.control_hz, []).append(arm.name)
            notes += [f"{name}: {text}" for text in _arm_notes(arm, roles, image_size, state_slots)]
        if isinstance(source, ResampledSource):
            before = sorted({arm.control_hz for arm in source.source.embodiments.values()})
            notes.append(
                f"{name}: resampled from {', '.join(f'{hz:g}' for hz in before)} to {source.hz:g} Hz"
            )
            source = source.source
        if isinstance(source, AdaptedSource) and source.num_failures_left_out:
            count = source.num_failures_left_out
            notes.append(f"{name}: {count} unsuccessful episodes left out (failures=True takes them)")
        if unknown := sum(info.success is None for info in source.episodes):
            notes.append(f"{name}: {unknown} episodes of unknown success are learned from")
        notes += [f"{name}: left out, damaged: {what}" for what in damaged_episodes(source)]
        notes += [f"{name}: {text}" for text in _description_notes(source)]
        held = sum(
            "suite" in i.provenance and 0 <= int(i.provenance.get("seed", TRAIN_SEED)) < TRAIN_SEED
            for i in source.episodes
        )
        if held:
            notes.append(
                f"{name}: {held} episodes are of evaluation seeds (below {TRAIN_SEED}): a policy that learns "
                "from them must not be judged on these scenes"
            )
    if len(rates) > 1:
        listing = "; ".join(
            f"{hz:g} Hz: {', '.join(sorted(set(arms)))}" for hz, arms in sorted(rates.items())
        )
        notes.append(f"control rates differ, a chunk is not equally long for all ({listing})")
    return list(dict.fromkeys(notes))


def _arm_notes(
    arm: Embodiment, roles: Sequence[str], image_size: int, state_slots: Sequence[str]
) -> list[str]:
    notes = []
    unused = [camera.role for camera in arm.cameras if camera.role not in roles]
    if unused:
        notes.append(f"{arm.name!r} has cameras the recipe does not look through: {', '.join(unused)}")
    missing = [role for role in roles if role not in {camera.role for camera in arm.cameras}]
    if missing:
        notes.append(f"{arm.name!r} has no {', '.join(missing)} camera (masked)")
    for camera in arm.cameras:
        if camera.role in roles and (camera.height, camera.width) != (image_size, image_size):
            notes.append(
                f"camera {camera.name!r} of {arm.name!r} is resized from {camera.height}x{camera.width} to "
                f"{image_size}x{image_size}"
            )
    unread = [member.name for member in arm.state if member.slot not in state_slots]
    if unread:
        notes.append(f"state of {arm.name!r} that the net does not read (state_slots): {', '.join(unread)}")
    if len(unread) == len(arm.state):
        known = ", ".join(sorted({member.slot for member in arm.state} & set(STATE_SLOTS))) or "none"
        notes.append(f"the net reads no state of {arm.name!r} at all; its slots: {known}")
    return notes


def stated_ranges(source: EpisodeSource) -> Ranges:
    """Where the ranges of the fields come from, as far as the description or the imported store tells."""
    source = _innermost(source)
    if isinstance(source, EpisodeStore):
        return source.provenance.get("ranges", "declared")
    return source.description.ranges if isinstance(source, MappedSource) else "declared"


def _usual_mode(mode: Mode, source: EpisodeSource) -> Mode:
    return "quantile" if mode == "range" and stated_ranges(source) != "declared" else mode


def _description_notes(source: EpisodeSource) -> list[str]:
    """What a description does to the numbers that is not in them."""
    notes, ranges = [], stated_ranges(source)
    if ranges != "declared":
        notes.append(
            f"the ranges of {', '.join(map(repr, sorted(source.embodiments)))} are {ranges}, not declared: "
            "normalised by quantiles unless the source sets state_mode or action_mode"
        )
    source = _innermost(source)
    if not isinstance(source, MappedSource):
        return notes
    known = source.description
    if known.skip_first or known.skip_last:
        notes.append(
            f"{known.skip_first} steps left out at the start of each episode, {known.skip_last} at the end"
        )
    for place, (held, total) in source.clipped().items():
        if held:
            notes.append(
                f"{held} of {total} values of {place} lie outside its range and are held at its ends"
            )
    return notes


def _cameras(source: EpisodeSource, roles: Sequence[str]) -> Iterator[tuple[str, Camera]]:
    for name in sorted({info.embodiment for info in source.episodes}):
        for camera in source.embodiments[name].cameras:
            if camera.role in roles:
                yield name, camera


def _resizes(config: SourceConfig, source: EpisodeSource) -> bool:
    return config.resize if config.resize is not None else source_format(source) != "store"


def _adapt(source: EpisodeSource, config: SourceConfig, hz: float | None) -> EpisodeSource:
    for name in config.rename:
        if name not in source.embodiments:
            raise UnknownNameError(f"arm to rename in {config.path}", name, source.embodiments)
    kept = [info.index for info in source.episodes if info.success is not False or config.failures]
    if not kept:
        raise DatasetError(
            f"{config.path} has {len(source.episodes)} episodes, none of them successful: nothing to learn "
            "from. Set failures=True of this source to learn from them all the same."
        )
    damaged: list[str] = []
    if config.skip_damaged and not isinstance(source, EpisodeStore):  # which checked itself when it opened
        kept, damaged = _sound(source, kept)
    if config.rename or len(kept) < len(source.episodes):
        source = AdaptedSource(source, episodes=kept, rename=config.rename, damaged=damaged)
    differs = any(arm.control_hz != hz for arm in source.embodiments.values())
    if hz is not None and (config.hz is not None or differs):  # asked for by name: time stamps made even too
        source = ResampledSource(source, hz)
    return source


def _sound(source: EpisodeSource, episodes: Sequence[int]) -> tuple[list[int], list[str]]:
    """Those that can be read whole, and what is said of the others."""
    faults: dict[int, str] = {}
    for index in episodes:
        try:
            read_through(source, index)
        except (DatasetError, StoreError) as error:
            faults[index] = str(error)
    lines = damage_lines(faults.items())
    if len(faults) == len(episodes):
        raise DatasetError(f"Every episode of {source.path} is damaged:\n  " + "\n  ".join(lines[:5]))
    return [index for index in episodes if index not in faults], lines


def damaged_episodes(source: EpisodeSource) -> list[str]:
    """What ``skip_damaged`` left out of a source, and why: a line an episode or file."""
    if isinstance(source, AdaptedSource | ResampledSource):
        own = source.damaged if isinstance(source, AdaptedSource) else []
        return [*damaged_episodes(source.source), *own]
    if isinstance(source, EpisodeStore):
        return damage_lines((d.episode, f"{d.column}: {d.reason}") for d in source.skipped)
    return list(source.raw.damaged) if isinstance(source, MappedSource | UndescribedSource) else []


def source_format(source: EpisodeSource) -> str:
    """``store`` for our own, else what the reader calls it."""
    source = _innermost(source)
    if isinstance(source, EpisodeStore):
        return "store"
    return str(source.episodes[0].provenance.get("format", type(source).__name__))


def _innermost(source: EpisodeSource) -> EpisodeSource:
    while isinstance(source, AdaptedSource | ResampledSource):
        source = source.source
    return source
