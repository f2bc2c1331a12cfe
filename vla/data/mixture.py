"""Demonstrations of any format, arm and rate as the sources of one training mixture.

::

    path ─► open_source ─► successes ─► resampled ─► renamed ─► EpisodeSource ─► WindowDataset (weights)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from vla.data.damage import damage_lines
from vla.data.description import Ranges
from vla.data.mapped import MappedSource
from vla.data.readers import open_source
from vla.data.resample import ResampledSource
from vla.data.source import EpisodeSource, Fault, episode_name, read_through, stacked_column
from vla.data.source_view import AdaptedSource
from vla.data.statistics import MODES, Mode
from vla.data.store import EpisodeStore
from vla.data.time_stamps import check_rising
from vla.embodiment import Camera
from vla.errors import ConfigError, DatasetError, StoreError, UnknownNameError
from vla.text import counted

#: Who moved the arm in an episode that a session recorded.
Actor = Literal["policy", "human"]


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One set of demonstrations in a mixture.

    Args:
        path: of any format that ``vla.data.readers.open_source`` knows.
        weight: its part of every batch, relative to the other sources' weights.
        description: embodiment file of a foreign format; None: the one beside the data.
        instruction: said of every episode of a foreign format that has none of its own.
        cameras: of a foreign format that are read, by their stored names; pictures of the others need not be
            there. None: those of the embodiment file, all where there is none.
        rename: arm in the data -> its name in this run, where one name means two arms.
        hz: resample to this control rate; None: that of the whole mixture, or as it is.
        resize: area-resize pictures to the recipe's size, squeezed to a square; otherwise another size is
            refused. None: do so in foreign formats, whose cameras nobody chose for this recipe.
        state_mode, action_mode: normalisation of its arms (see ``vla.data.statistics.Normalizer``); None:
            the recipe's. ``quantile`` suits actions whose declared range is a guess.
        failures: learn from unsuccessful episodes too; those of unknown success are always learned from.
        actor: of what a session recorded (``vla.teleop``), only the episodes in which a ``human``, or the
            ``policy``, moved the arm; None: all.
        without_tasks: episodes of these tasks (``provenance``) are left out.
        skip_damaged: leave damaged episodes out and say which, instead of refusing the source. Everything is
            read once for that when it is opened, in foreign formats every picture decoded: import a large
            data set once (``vla data import --skip-damaged``) rather than do so in every run.
    """

    path: str
    weight: float = 1.0
    description: str | None = None
    instruction: str = ""
    cameras: tuple[str, ...] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    hz: float | None = None
    resize: bool | None = None
    state_mode: Mode | None = None
    action_mode: Mode | None = None
    failures: bool = False
    actor: Actor | None = None
    without_tasks: tuple[str, ...] = ()
    skip_damaged: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.weight) and self.weight > 0):
            raise ConfigError(f"Source {self.path}: weight is {self.weight}, expected more than 0.")
        if self.hz is not None and not self.hz > 0:
            raise ConfigError(f"Source {self.path}: hz is {self.hz}, expected more than 0.")
        if self.actor not in (None, *get_args(Actor)):
            raise UnknownNameError("actor", self.actor, get_args(Actor))
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
            source = open_source(
                config.path,
                config.description,
                instruction=config.instruction,
                skip_damaged=config.skip_damaged,
                cameras=config.cameras,
            )
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
            config.state_mode or usual_mode(state_mode, source),
            config.action_mode or usual_mode(action_mode, source),
        )
        for name in sorted({info.embodiment for info in source.episodes}):
            if found.setdefault(name, pair) != pair:
                raise ConfigError(
                    f"Arm {name!r} would be normalised by {_modes_text(found[name])} and, for {config.path}, "
                    f"by {_modes_text(pair)}: give its sources the same state_mode and "
                    "action_mode, or rename one."
                )
    return {name: pair for name, pair in found.items() if pair != (state_mode, action_mode)}


def check_pictures(
    configs: Sequence[SourceConfig], sources: Sequence[EpisodeSource], roles: Sequence[str], image_size: int
) -> None:
    """Raise :class:`ConfigError` where pictures have another size and the source does not say resize, or no
    source has a camera that the recipe looks through."""
    seen = {c.role for source in sources for arm in source.embodiments.values() for c in arm.cameras}
    if blind := [role for role in roles if seen and role not in seen]:
        raise ConfigError(
            f"No source has a camera of role {', '.join(map(repr, blind))}; there are "
            f"{', '.join(sorted(seen))}: name those in the recipe's data.camera_roles."
        )
    for config, source in zip(configs, sources, strict=True):
        for arm, camera in _cameras(source, roles):
            if (camera.height, camera.width) != (image_size, image_size) and not _resizes(config, source):
                raise ConfigError(
                    f"Camera {camera.name!r} of {arm!r} in {config.path} is {camera.height}x{camera.width}, "
                    f"image_size is {image_size}: set resize=True of this source, or image_size to match."
                )


def stated_ranges(source: EpisodeSource) -> Ranges:
    """Where the ranges of the fields come from, as far as the description or the imported store tells."""
    source = innermost(source)
    if isinstance(source, EpisodeStore):
        return source.provenance.get("ranges", "declared")
    return source.description.ranges if isinstance(source, MappedSource) else "declared"


def held_fields(source: EpisodeSource) -> frozenset[str]:
    """Action fields that are executed at the end of their range, however far they ask, as the layout says; of
    a store that was made of such data, what they said."""
    source = innermost(source)
    if isinstance(source, EpisodeStore):
        return frozenset(source.provenance.get("held", ()))
    rules = source.description.executed if isinstance(source, MappedSource) else ()
    return frozenset(rule.field for rule in rules if rule.clip)


def _modes_text(modes: tuple[Mode, Mode]) -> str:
    return f"{modes[0]} (state) and {modes[1]} (action)"


def usual_mode(mode: Mode, source: EpisodeSource) -> Mode:
    """The recipe's ``mode``; quantiles in place of ranges that nobody declared."""
    return "quantile" if mode == "range" and stated_ranges(source) != "declared" else mode


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
    acted = [info for info in source.episodes if config.actor in (None, info.provenance.get("actor"))]
    if not acted:
        raise DatasetError(
            f"{config.path} has {counted(len(source.episodes), 'episode')}, none of actor={config.actor!r}: "
            "only what a session with teleoperation records says who acted."
        )
    tasks = {str(info.provenance.get("task", "")) for info in acted}
    for task in config.without_tasks:
        if task not in tasks:
            raise UnknownNameError(f"task to leave out of {config.path}", task, tasks)
    acted = [info for info in acted if info.provenance.get("task") not in config.without_tasks]
    kept = [info.index for info in acted if info.success is not False or config.failures]
    if not kept:
        raise DatasetError(
            f"{config.path} has {counted(len(acted), 'episode')} to choose from, none successful: nothing to "
            "learn from. Set failures=True of this source to learn from them all the same."
        )
    damaged: list[Fault] = []
    if not isinstance(source, EpisodeStore):
        if config.skip_damaged:
            kept, damaged = _sound(source, kept, read_through)
    elif config.skip_damaged:  # it read everything when it opened, and knows nothing of time
        kept, damaged = _sound(source, kept, _check_time)
    else:
        _check_all_times(source, kept)
    if config.rename or len(kept) < len(source.episodes):
        source = AdaptedSource(source, episodes=kept, rename=config.rename, damaged=damaged)
    differs = any(arm.control_hz != hz for arm in source.embodiments.values())
    if hz is not None and (config.hz is not None or differs):  # asked for by name: time stamps made even too
        source = ResampledSource(source, hz)
    return source


def _check_time(source: EpisodeSource, index: int) -> None:
    check_rising(source.column(index, "time_s"), episode_name(source, index))


def _check_all_times(source: EpisodeStore, episodes: Sequence[int]) -> None:
    """Foreign formats check this themselves, whenever an episode is read."""
    ends = np.cumsum([source.episodes[index].length for index in episodes])[:-1]
    times = np.split(stacked_column(source, episodes, "time_s"), ends)
    for index, time_s in zip(episodes, times, strict=True):
        check_rising(time_s, episode_name(source, index))


def _sound(
    source: EpisodeSource, episodes: Sequence[int], check: Callable[[EpisodeSource, int], None]
) -> tuple[list[int], list[Fault]]:
    """Those that ``check`` lets pass, and what is wrong with the others."""
    faults: dict[int, str] = {}
    for index in episodes:
        try:
            check(source, index)
        except (DatasetError, StoreError) as error:
            faults[index] = str(error)
    if len(faults) == len(episodes):
        lines = damage_lines(faults.items())
        raise DatasetError(f"Every episode of {source.path} is damaged:\n  " + "\n  ".join(lines[:5]))
    return [index for index in episodes if index not in faults], list(faults.items())


def source_format(source: EpisodeSource) -> str:
    """``store`` for our own, else what its reader calls it; not what its episodes once came from."""
    source = innermost(source)
    if isinstance(source, EpisodeStore):
        return "store"
    raw = getattr(source, "raw", None)
    return type(source).__name__ if raw is None else str(raw.format)


def innermost(source: EpisodeSource) -> EpisodeSource:
    """The source that views (renamed, resampled) are of."""
    while isinstance(source, AdaptedSource | ResampledSource):
        source = source.source
    return source
