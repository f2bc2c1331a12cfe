"""Repairs demonstrations into a new store: trims, cuts, drops, re-times; what it read is never changed.

Each step that is kept is as it was: a cut keeps one unbroken stretch of an episode, since leaving out steps
in the middle would join two states by an action that does not lead from one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vla.data.check import CheckConfig, Finding, Report, check, expand_kinds
from vla.data.mixture import stated_ranges
from vla.data.source import EpisodeInfo, EpisodeSource, Frames, read_episode
from vla.data.source_view import SourceView
from vla.data.store import EpisodeStore
from vla.errors import ConfigError

#: Kinds that lie between two steps: both are kept, but not together.
_BETWEEN = ("jump", "time_gap", "time_backwards")


@dataclass(frozen=True, kw_only=True)
class FixConfig:
    """What to repair.

    Args:
        trim_idle: leave the idle stretches at start and end out.
        keep_idle_s: and keep this much of them.
        drop: kinds of findings, or groups of kinds, for which an episode is left out.
        cut: kinds for which an episode is cut to its longest stretch without them.
        retime_hz: bring all episodes to this rate; None: leave the rate.
        restamp: where time stamps do not rise, put even ones at the arm's control rate in their place; the
            steps stay in the order in which they are stored.
        min_steps: leave out what is shorter after a cut.
        frames: which pictures are looked at for findings; ``all`` where pictures are to be repaired.
    """

    trim_idle: bool = False
    keep_idle_s: float = 0.2
    drop: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    retime_hz: float | None = None
    restamp: bool = False
    min_steps: int = 3
    check: CheckConfig = field(default_factory=lambda: CheckConfig(frames="all"))

    def __post_init__(self) -> None:
        dropped, cut = expand_kinds(self.drop), expand_kinds(self.cut)
        if not (self.trim_idle or dropped or cut or self.retime_hz or self.restamp):
            raise ConfigError("Nothing to repair: give --trim-idle, --drop, --cut, --retime or --restamp.")
        if self.restamp and "time_backwards" in {*dropped, *cut}:
            raise ConfigError(
                "time_backwards is to be dropped or cut, and also to be stamped anew: choose one."
            )
        if self.retime_hz is not None and self.retime_hz <= 0:
            raise ConfigError(f"A rate of {self.retime_hz} Hz: it must be positive.")


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of an episode.

    ``kept`` are the first and last step in the new store, None: left out; ``restamped``: with even time
    stamps.
    """

    episode: int
    length: int
    kept: tuple[int, int] | None
    reasons: tuple[str, ...]
    restamped: bool = False

    def __str__(self) -> str:
        what = (
            "left out" if self.kept is None else f"steps {self.kept[0]}-{self.kept[1]} of {self.length} kept"
        )
        what += ", with even time stamps" if self.restamped else ""
        return f"episode {self.episode}: {what}: {'; '.join(self.reasons)}"


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """What :func:`fix` did: every change, and how much there is now."""

    changes: tuple[Change, ...]
    num_episodes: int
    num_steps: int


def fix(source: EpisodeSource, out: Path, config: FixConfig, *, progress: bool = False) -> Fixed:
    """Write the repaired episodes of ``source`` into a new store at ``out``.

    Every episode of the new store says in its provenance (``fixed``) where it comes from and what was done;
    the store says it of all. Pictures are encoded anew.

    Raises:
        StoreError: there is something at ``out``.
        ConfigError: what would be kept cannot be read, or nothing would be kept. Nothing is written then.
    """
    changes = plan(source, check(source, config.check, progress=progress), config)
    stretches = Stretches(source, {change.episode: change for change in changes})
    if not len(stretches):
        raise ConfigError(f"Nothing of {source.path} would be left: {'; '.join(map(str, changes[:3]))} ...")
    timed: EpisodeSource = stretches
    if config.retime_hz is not None:
        from vla.data.resample import ResampledSource

        timed = ResampledSource(stretches, config.retime_hz)
    settings = {key: value for key, value in asdict(config).items() if key != "check"}
    with EpisodeStore.create(
        out,
        embodiments=timed.embodiments.values(),
        codec=source.codec if isinstance(source, EpisodeStore) else None,
        provenance={
            "fixed_from": str(source.path),
            "settings": settings,
            "changes": [str(change) for change in changes],
            "ranges": stated_ranges(source),
        },
    ) as store:
        for info in tqdm(timed.episodes, desc="writing", unit="episode", disable=not progress):
            store.append(read_episode(timed, info.index))
        num_steps = sum(info.length for info in store.episodes)
        return Fixed(changes=tuple(changes), num_episodes=len(store), num_steps=num_steps)


def plan(source: EpisodeSource, report: Report, config: FixConfig) -> list[Change]:
    """What is to be done to each episode that is not kept as it is.

    Raises:
        ConfigError: an episode that cannot be read would be kept.
    """
    found: dict[int, list[Finding]] = {}
    for finding in report.findings:
        if finding.episode is not None:
            found.setdefault(finding.episode, []).append(finding)
    changes = []
    for index in sorted(found):
        length = source.episodes[index].length
        change = _plan_episode(index, length, found[index], source, config)
        kept = (0, length - 1) if change is None else change.kept
        _refuse_damage(found[index], kept)
        if change is not None:
            changes.append(change)
    return changes


def _plan_episode(
    index: int, length: int, found: Sequence[Finding], source: EpisodeSource, config: FixConfig
) -> Change | None:
    """Dropped, or the longest stretch that nothing speaks against; None: as it is."""
    dropped = [f for f in found if f.kind in expand_kinds(config.drop)]
    if dropped:
        reasons = tuple(dict.fromkeys(f"{f.kind} ({f.message})" for f in dropped))
        return Change(episode=index, length=length, kept=None, reasons=reasons)
    good, together = np.ones(length, bool), np.ones(length, bool)  # the second: with the step before
    reasons, restamped = [], False
    hz = source.embodiments[source.episodes[index].embodiment].control_hz
    for finding in found:
        if finding.first is None or finding.last is None:
            continue
        first, last = finding.first, finding.last
        if config.restamp and finding.kind == "time_backwards":
            restamped = True
        elif config.trim_idle and finding.kind in ("idle_start", "idle_end"):
            kept = min(round(config.keep_idle_s * hz), last - first)
            first, last = (first, last - kept) if finding.kind == "idle_start" else (first + kept, last)
            good[first : last + 1] = False
        elif finding.kind not in expand_kinds(config.cut):
            continue
        elif finding.kind in _BETWEEN:
            together[np.add(finding.evidence["steps"], 1)] = False
        else:
            good[list(finding.evidence.get("steps", range(first, last + 1)))] = False
        reasons.append(f"{finding.kind} ({finding.message})")
    if not reasons:
        return None
    kept = _longest(good, together)
    if kept is None or kept[1] - kept[0] + 1 < config.min_steps:
        return Change(episode=index, length=length, kept=None, reasons=(*reasons, "too little would be left"))
    return Change(episode=index, length=length, kept=kept, reasons=tuple(reasons), restamped=restamped)


def _longest(good: np.ndarray, together: np.ndarray) -> tuple[int, int] | None:
    """First and last step of the longest stretch of good steps that belong together."""
    best: tuple[int, int] | None = None
    start: int | None = None
    for t in range(len(good)):
        if not good[t]:
            start = None
            continue
        start = t if start is None or not together[t] else start
        if best is None or t - start > best[1] - best[0]:
            best = (start, t)
    return best


def _refuse_damage(found: Sequence[Finding], kept: tuple[int, int] | None) -> None:
    """Raise where a stretch that is kept cannot be read or stored."""
    if kept is None:
        return
    for finding in found:
        if finding.kind not in ("unreadable", "ragged", "not_finite", "unreadable_frame"):
            continue
        whole = finding.first is None or finding.last is None
        steps = finding.evidence.get("steps", () if whole else (finding.first, finding.last))
        if whole or any(kept[0] <= t <= kept[1] for t in steps):
            raise ConfigError(
                f"{finding.place}: {finding.message}. It cannot be stored: add --drop damaged to leave such "
                "episodes out, or --cut frames,not_finite to keep the longest sound stretch."
            )


class Stretches(SourceView):
    """A source without the episodes and steps that changes leave out, stamped anew where they say so."""

    def __init__(self, source: EpisodeSource, changes: Mapping[int, Change]) -> None:
        self._first: list[int] = []  # step of each episode
        self._restamped: list[bool] = []
        infos: list[EpisodeInfo] = []
        places: list[int] = []
        for info in source.episodes:
            change = changes.get(info.index)
            kept = (0, info.length - 1) if change is None else change.kept
            if kept is None:
                continue
            facts: dict[str, object] = {"source": str(source.path), "episode": info.index}
            if change is not None:
                facts |= {"kept_steps": list(kept), "of": info.length, "reasons": list(change.reasons)}
                facts |= {"restamped": True} if change.restamped else {}
            length, provenance = kept[1] - kept[0] + 1, {**info.provenance, "fixed": facts}
            infos.append(replace(info, index=len(infos), length=length, provenance=provenance))
            places.append(info.index)
            self._first.append(kept[0])
            self._restamped.append(change is not None and change.restamped)
        what = [places, self._first, [info.length for info in infos], self._restamped]
        super().__init__(source, embodiments=source.embodiments, episodes=infos, places=places, facts=what)

    def column(self, index: int, name: str) -> np.ndarray:
        first, info = self._first[index], self.episodes[index]
        if name == "time_s" and self._restamped[index]:
            return np.arange(info.length) / self.embodiments[info.embodiment].control_hz
        values = super().column(index, name)[first : first + info.length]
        return values - values[0] if name == "time_s" else values

    def frame_reader(self, index: int, camera: str) -> Frames:
        return _Stretch(super().frame_reader(index, camera), self._first[index], self.episodes[index].length)


class _Stretch:
    """Some of the pictures of a camera."""

    def __init__(self, frames: Frames, first: int, length: int) -> None:
        self._frames, self._first, self._length = frames, first, length
        self.shape = frames.shape

    def __len__(self) -> int:
        return self._length

    def read(self, step: int, out: np.ndarray) -> None:
        self._frames.read(self._first + step, out)
