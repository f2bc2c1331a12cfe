"""Repairs demonstrations into a new store: trims, cuts, drops, re-times; what it read is never changed.

Each step that is kept is as it was: a cut keeps one unbroken stretch of an episode, since leaving out steps
in the middle would join two states by an action that does not lead from one to the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vla.data.check import GROUPS, KINDS, CheckConfig, Finding, Report, check, expand_kinds
from vla.data.codec import JpegCodec
from vla.data.damage import damage_lines, damaged_episodes
from vla.data.frames import Encoded, encoded
from vla.data.mixture import held_fields, stated_ranges
from vla.data.source import EpisodeSource, read_episode
from vla.data.store import EpisodeStore
from vla.data.stretches import Change, Stretches, best, reasons_for, stretches_of
from vla.embodiment import Embodiment
from vla.errors import ConfigError, UnknownNameError
from vla.files import written_whole

#: Kinds that lie between two steps: both are kept, but not together.
_BETWEEN = ("jump", "time_gap", "time_backwards")
#: Kinds that name steps: what is cut out.
_OF_STEPS = (
    *("not_finite", "unreadable_frame", "blank_frame", "torn_frame", "frozen_frames", "odd_frame", *_BETWEEN),
    *(
        "frozen_state",
        "outlier",
        "state_out_of_range",
        "action_out_of_range",
        "idle_start",
        "idle_middle",
        "idle_end",
    ),
)
#: Of them, those that leave steps as good to learn from as any.
_HARMLESS = ("idle_start", "idle_middle", "idle_end")
#: Kinds that name no episode, as they are of all of an arm, or of what could not be opened.
_OF_ALL = (
    *("missing", "constant_action", "constant_state", "saturated_action", "held_action", "placeholder_first"),
    *("placeholder_last", "action_late", "action_early", "opposite_sign", "wrong_scale"),
)


@dataclass(frozen=True, kw_only=True)
class FixConfig:
    """What to repair.

    Args:
        trim_idle: leave the idle stretches at start and end out.
        keep_idle_s: and keep this much of them.
        drop: kinds of findings, or groups of kinds, for which an episode is left out.
        cut: kinds for which an episode is cut to the stretch without them that has most steps of which no
            other finding speaks.
        instruction: what is said in episodes that have no instruction; others keep theirs.
        retime_hz: bring all episodes to this rate; None: leave the rate.
        restamp: where time stamps do not rise, put even ones at the arm's control rate in their place; the
            steps stay in the order in which they are stored.
        min_steps: leave out what is shorter after a cut.
        jpeg_quality: 1..100 of pictures that must be encoded anew; those of our own stores are copied.
        frames: which pictures are looked at for findings; ``all`` where pictures are to be repaired.
    """

    trim_idle: bool = False
    keep_idle_s: float = 0.2
    drop: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    retime_hz: float | None = None
    restamp: bool = False
    instruction: str = ""
    min_steps: int = 3
    jpeg_quality: int = 95
    check: CheckConfig = field(default_factory=lambda: CheckConfig(frames="all"))

    def __post_init__(self) -> None:
        _check_kinds("--drop", self.drop, [kind for kind in KINDS if kind not in _OF_ALL])
        _check_kinds("--cut", self.cut, _OF_STEPS)
        dropped, cut = expand_kinds(self.drop), expand_kinds(self.cut)
        if not (self.trim_idle or dropped or cut or self.retime_hz or self.restamp or self.instruction):
            raise ConfigError(
                "Nothing to repair: give --trim-idle, --drop, --cut, --retime, --restamp or --instruction."
            )
        if self.instruction != self.instruction.strip():
            raise ConfigError(f"The instruction {self.instruction!r} begins or ends with white space.")
        if self.instruction and "empty_instruction" in dropped:
            raise ConfigError(
                "Episodes without an instruction are to be dropped, and also to be given one: choose one."
            )
        if self.restamp and "time_backwards" in {*dropped, *cut}:
            raise ConfigError(
                "time_backwards is to be dropped or cut, and also to be stamped anew: choose one."
            )
        if self.retime_hz is not None and self.retime_hz <= 0:
            raise ConfigError(f"A rate of {self.retime_hz} Hz: it must be positive.")


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """What :func:`fix` did: every change, how much there was and how much there is now.

    Args:
        changes: to episodes that could be opened.
        lost: what could not be opened, a line each, and so is not in the new store.
        num_episodes_before, num_steps_before: of what could be opened.
        num_episodes, num_steps: of the new store.
        retimed: arm -> its rate before, Hz; empty where no rate was asked for.
        num_copied, num_encoded: pictures taken over as they were stored, and encoded anew.
        codec: of the pictures of the new store, for people.
    """

    changes: tuple[Change, ...]
    lost: tuple[str, ...]
    num_episodes_before: int
    num_steps_before: int
    num_episodes: int
    num_steps: int
    retimed: Mapping[str, float]
    num_copied: int
    num_encoded: int
    codec: str


def fix(source: EpisodeSource, out: Path, config: FixConfig, *, progress: bool = False) -> Fixed:
    """Write the repaired episodes of ``source`` into a new store at ``out``.

    Every episode of the new store says in its provenance (``fixed``) where it comes from and what was done;
    the store says it of all, and what of the source could not be opened (``not_opened``). Pictures of our
    own stores are copied as they are stored; others, and video that is cut or re-timed, are encoded anew.

    Raises:
        StoreError: there is something at ``out``.
        ConfigError: what would be kept cannot be read, or nothing would be kept. Nothing is written then.
        DatasetError: an episode cannot be re-timed. Nothing is written then.
    """
    lost = tuple(damage_lines(damaged_episodes(source)))
    changes = plan(source, check(source, config.check, progress=progress), config)
    stretches = Stretches(source, {change.episode: change for change in changes})
    if not len(stretches):
        raise ConfigError(f"Nothing of {source.path} would be left: {'; '.join(map(str, changes[:3]))} ...")
    timed: EpisodeSource = stretches
    if config.retime_hz is not None:
        from vla.data.resample import ResampledSource

        timed = ResampledSource(stretches, config.retime_hz)
    own = isinstance(source, EpisodeStore)
    codec = source.codec if own else JpegCodec(quality=config.jpeg_quality)
    settings = {key: value for key, value in asdict(config).items() if key != "check"}
    copied = pictures = 0
    with (
        written_whole(Path(out)) as begun,
        EpisodeStore.create(
            begun,
            embodiments=timed.embodiments.values(),
            codec=codec,
            provenance={
                "fixed_from": str(source.path),
                "settings": settings,
                "changes": [str(change) for change in changes],
                "not_opened": list(lost),
                "ranges": stated_ranges(source),
                "held": sorted(held_fields(source)),
            },
        ) as store,
    ):
        for info in tqdm(timed.episodes, desc="writing", unit="episode", disable=not progress):
            stored = _stored(timed, info.index) if own else {}
            others = [name for name in timed.cameras(info.index) if name not in stored]
            store.append(read_episode(timed, info.index, others), stored)
            copied += info.length * len(stored)
            pictures += info.length * len(timed.cameras(info.index))
        return Fixed(
            changes=tuple(changes),
            lost=lost,
            num_episodes_before=len(source),
            num_steps_before=sum(info.length for info in source.episodes),
            num_episodes=len(store),
            num_steps=sum(info.length for info in store.episodes),
            retimed={} if config.retime_hz is None else {a.name: a.control_hz for a in _arms(stretches)},
            num_copied=copied,
            num_encoded=pictures - copied,
            codec=str(codec),
        )


def _stored(source: EpisodeSource, index: int) -> dict[str, Encoded]:
    """Pictures of the cameras whose stored form can be taken over."""
    steps = range(source.episodes[index].length)
    found = {name: encoded(source.frame_reader(index, name), steps) for name in source.cameras(index)}
    return {name: pictures for name, pictures in found.items() if pictures is not None}


def _arms(source: EpisodeSource) -> list[Embodiment]:
    """Those that have episodes."""
    return [source.embodiments[name] for name in sorted({info.embodiment for info in source.episodes})]


def _check_kinds(flag: str, names: Sequence[str], possible: Sequence[str]) -> None:
    """Refuse kinds and groups that there are not, or of which nothing can be dropped or cut."""
    groups = [name for name, kinds in GROUPS.items() if {*possible} & {*kinds}]
    for name in names:
        if name not in KINDS and name not in GROUPS:
            raise UnknownNameError(f"kind of finding for {flag}", name, [*groups, *possible])
    useless = [name for name in names if not {*possible} & {*GROUPS.get(name, (name,))}]
    if useless:
        why = "name no steps" if flag == "--cut" else "concern no single episode"
        known = ", ".join([*groups, *possible])
        raise ConfigError(
            f"{flag} {','.join(useless)}: such findings {why}. {flag} takes {known}."
            + (" --drop leaves whole episodes out." if flag == "--cut" else "")
        )


def plan(source: EpisodeSource, report: Report, config: FixConfig) -> list[Change]:
    """What is to be done to each episode that is not kept as it is.

    Raises:
        ConfigError: an episode that cannot be read would be kept, or what shall be dropped or cut names none.
    """
    found: dict[int, list[Finding]] = {}
    dropped, cut = expand_kinds(config.drop), expand_kinds(config.cut)
    for finding in report.findings:
        if finding.episode is None and finding.kind in dropped | cut:
            raise ConfigError(f"{finding.kind} ({finding.message}): it names no episode to drop or cut.")
        if finding.first is None and finding.kind in cut - dropped:
            raise ConfigError(
                f"{finding.place}: {finding.kind} ({finding.message}) names no steps to cut: --drop it."
            )
        if finding.episode is not None:
            found.setdefault(finding.episode, []).append(finding)
    changes = []
    for index in sorted(found):
        length = source.episodes[index].length
        change = _plan_episode(index, length, found[index], source, config)
        kept = (0, length - 1) if change is None else change.kept
        _refuse_damage(found[index], kept, _dispensable(source, index))
        if change is not None:
            changes.append(change)
    return changes


def _plan_episode(
    index: int, length: int, found: Sequence[Finding], source: EpisodeSource, config: FixConfig
) -> Change | None:
    """Dropped, or the best stretch of those that nothing that is cut speaks against; None: as it is."""
    dropped = [f for f in found if f.kind in expand_kinds(config.drop)]
    if dropped:
        reasons = tuple(dict.fromkeys(f"{f.kind} ({f.message})" for f in dropped))
        return Change(episode=index, length=length, kept=None, reasons=reasons)
    good, together = np.ones(length, bool), np.ones(length, bool)  # the second: with the step before
    other: dict[str, np.ndarray] = {}  # kind that is not cut -> steps that have it
    reasons, restamped, instruction = [], False, ""
    hz = source.embodiments[source.episodes[index].embodiment].control_hz
    for finding in found:
        if config.instruction and finding.kind == "empty_instruction":
            instruction = config.instruction
            reasons.append(f"empty_instruction ({finding.message})")
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
            if finding.kind not in _HARMLESS:
                other.setdefault(finding.kind, np.zeros(length, bool))[finding.steps] = True
            continue
        elif finding.kind in _BETWEEN:
            together[np.add(finding.evidence["steps"], 1)] = False
        else:
            good[finding.steps] = False
        reasons.append(f"{finding.kind} ({finding.message})")
    if not reasons:
        return None
    whole, stretches = (0, length - 1), stretches_of(good, together)
    kept = best(stretches, other)
    if kept is None or (kept != whole and kept[1] - kept[0] + 1 < config.min_steps):
        return Change(episode=index, length=length, kept=None, reasons=(*reasons, "too little would be left"))
    if kept != whole:
        reasons += reasons_for(kept, stretches, other)
    return Change(
        episode=index,
        length=length,
        kept=kept,
        reasons=tuple(reasons),
        restamped=restamped,
        instruction=instruction,
    )


def _dispensable(source: EpisodeSource, index: int) -> frozenset[str]:
    """Cameras that need not be read: those of a foreign format, where there are several."""
    arm = source.embodiments[source.episodes[index].embodiment]
    names = frozenset(camera.name for camera in arm.cameras)
    return names if len(names) > 1 and not isinstance(source, EpisodeStore) else frozenset()


def _refuse_damage(found: Sequence[Finding], kept: tuple[int, int] | None, cameras: Collection[str]) -> None:
    """Raise where a stretch that is kept cannot be read or stored; ``cameras``: one can do without."""
    if kept is None:
        return
    for finding in found:
        if finding.kind not in ("unreadable", "ragged", "not_finite", "unreadable_frame"):
            continue
        whole = finding.first is None or finding.last is None
        if whole or any(kept[0] <= t <= kept[1] for t in finding.steps):
            ways = "add --drop damaged to leave such episodes out"
            ways += "" if whole else ", or --cut frames,not_finite to keep a sound stretch"
            ways += ", or --cameras with the others alone" if finding.where in cameras else ""
            raise ConfigError(f"{finding.place}: {finding.message.rstrip('.')}. It cannot be stored: {ways}.")
