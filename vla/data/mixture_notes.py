"""What a person should know of a mixture: what is left out, masked, resized, resampled, held in range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from vla import registry
from vla.data.damage import damage_lines, damaged_episodes
from vla.data.mapped import MappedSource
from vla.data.mixture import SourceConfig, innermost, source_names, stated_ranges, usual_mode
from vla.data.resample import ResampledSource
from vla.data.source import EpisodeSource
from vla.data.source_view import AdaptedSource
from vla.data.statistics import Mode
from vla.data.time_stamps import unsteady
from vla.embodiment import Embodiment
from vla.errors import DatasetError, StoreError, VlaError
from vla.interfaces import TRAIN_SEED, heldout_embodiments_of
from vla.spaces import STATE_SLOTS
from vla.text import counted

_MODE_WORDS: dict[Mode, str] = {
    "mean_std": "mean and deviation",
    "quantile": "quantiles",
    "range": "these ranges",
}


def mixture_notes(
    configs: Sequence[SourceConfig],
    sources: Sequence[EpisodeSource],
    *,
    roles: Sequence[str],
    image_size: int,
    state_slots: Sequence[str],
    state_mode: Mode = "mean_std",
    action_mode: Mode = "range",
) -> list[str]:
    """What a person should know of a mixture: all in the data that training leaves out or changes.

    Args:
        configs, sources: of the mixture.
        roles, image_size: of the cameras that the recipe looks through.
        state_slots: that the net reads.
        state_mode, action_mode: of sources that have no other.
    """
    notes: list[str] = []
    rates: dict[float, list[str]] = {}
    for name, config, opened in zip(source_names(configs), configs, sources, strict=True):
        source = opened
        arms = {arm: source.embodiments[arm] for arm in sorted({i.embodiment for i in source.episodes})}
        for arm in arms.values():
            rates.setdefault(arm.control_hz, []).append(arm.name)
            notes += [f"{name}: {text}" for text in _arm_notes(arm, roles, image_size, state_slots)]
        if isinstance(source, ResampledSource):
            before = sorted({arm.control_hz for arm in source.source.embodiments.values()})
            rates_before = ", ".join(f"{hz:g}" for hz in before)
            notes.append(
                f"{name}: resampled from {rates_before} to {source.hz:g} Hz: it will drive arms at "
                f"{source.hz:g} Hz only and refuse them at {rates_before} Hz (control_hz=None keeps the rate)"
            )
            source = source.source
        if isinstance(source, AdaptedSource) and source.num_failures_left_out:
            count = source.num_failures_left_out
            notes.append(
                f"{name}: {counted(count, 'unsuccessful episode')} left out (failures=True takes them)"
            )
        if config.actor is not None:
            said = counted(len(source.episodes), "episode")
            notes.append(f"{name}: {said} in which the {config.actor} moved the arm, and no others")
        if config.without_tasks:
            notes.append(f"{name}: without its episodes of {', '.join(config.without_tasks)}")
        notes += [f"{name}: {text}" for text in timing_notes(source)]
        if unknown := sum(info.success is None for info in source.episodes):
            notes.append(f"{name}: {counted(unknown, 'episode')} of unknown success: learned from")
        if isinstance(inner := innermost(source), MappedSource) and inner.raw.unread:
            notes.append(
                f"{name}: cannot be read, and is no part of the mixture: {', '.join(inner.raw.unread)}"
            )
        notes += [f"{name}: left out, damaged: {what}" for what in damage_lines(damaged_episodes(source))]
        modes: dict[str, tuple[Mode | None, Mode]] = {
            "states": (config.state_mode, usual_mode(state_mode, source)),
            "actions": (config.action_mode, usual_mode(action_mode, source)),
        }
        notes += [f"{name}: {text}" for text in (*_range_notes(source, modes), *_description_notes(source))]
        held = sum(
            "suite" in i.provenance and 0 <= int(i.provenance.get("seed", TRAIN_SEED)) < TRAIN_SEED
            for i in source.episodes
        )
        if held:
            notes.append(
                f"{name}: {counted(held, 'episode')} of evaluation seeds (below {TRAIN_SEED}): a policy that "
                "learns from them must not be judged on these scenes (vla eval --record with --first-seed "
                f"{TRAIN_SEED} records others)"
            )
        notes += [f"{name}: {text}" for text in _heldout_notes(source)]
    if len(rates) > 1:
        listing = "; ".join(
            f"{hz:g} Hz: {', '.join(sorted(set(arms)))}" for hz, arms in sorted(rates.items())
        )
        notes.append(f"control rates differ, a chunk is not equally long for all ({listing})")
    return list(dict.fromkeys(notes))


def _heldout_notes(source: EpisodeSource) -> list[str]:
    """Episodes of arms that their suite keeps out of training."""
    counts = Counter((str(i.provenance.get("suite", "")), i.embodiment) for i in source.episodes)
    return [
        f"{counted(number, 'episode')} with {arm}, which {suite} keeps out of training: for a policy that "
        "learns from them it is no new arm"
        for (suite, arm), number in sorted(counts.items())
        if arm in _heldout_by(suite)
    ]


def _heldout_by(suite: str) -> tuple[str, ...]:
    """What the suite of that name keeps out of training; nothing where it is not known here."""
    try:
        return heldout_embodiments_of(registry.suite(suite))
    except VlaError:
        return ()


def timing_notes(source: EpisodeSource) -> list[str]:
    """Where time stamps have another rate than their arm, or leave steps out: chunks and moves are then not
    what the numbers say. Reads the time stamps of every episode that has rising ones."""
    rates: dict[str, list[float]] = {}
    holes = torn = 0
    for info in source.episodes:
        stated = source.embodiments[info.embodiment].control_hz
        try:
            found, gaps = unsteady(source.column(info.index, "time_s"), stated)
        except (DatasetError, StoreError):
            continue  # told where it is read
        holes, torn = holes + gaps, torn + bool(gaps)
        if found != stated:
            rates.setdefault(info.embodiment, []).append(round(found, 1))
    notes = [
        f"time stamps of {counted(len(found), 'episode')} say {_range_text(found)} Hz, {arm!r} has "
        f"{source.embodiments[arm].control_hz:g} Hz: which is true? Correct control_hz, or the time stamps "
        "(vla data fix --retime)"
        for arm, found in rates.items()
    ]
    if holes:
        notes.append(
            f"{counted(holes, 'gap')} in the time stamps of {counted(torn, 'episode')}: the step after a gap "
            "counts as the next one (vla data fix --cut time_gap)"
        )
    return notes


def _range_text(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


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


def _range_notes(source: EpisodeSource, modes: Mapping[str, tuple[Mode | None, Mode]]) -> list[str]:
    """How states and actions are normalised where nobody declared their ranges; modes: own, and usual."""
    ranges = stated_ranges(source)
    if ranges == "declared":
        return []
    used: dict[str, Mode] = {what: own or usual for what, (own, usual) in modes.items()}
    said = [f"{what} are normalised by {_MODE_WORDS[mode]}" for what, mode in used.items()]
    arms = ", ".join(map(repr, sorted(source.embodiments)))
    return [f"the ranges of {arms} are {ranges}, not declared; {' and '.join(said)}"]


def _description_notes(source: EpisodeSource) -> list[str]:
    """What a description does to the numbers that is not in them."""
    notes, source = [], innermost(source)
    if not isinstance(source, MappedSource):
        return notes
    known = source.description
    if known.skip_first or known.skip_last:
        notes.append(
            f"{counted(known.skip_first, 'step')} left out at the start of each episode, "
            f"{known.skip_last} at the end"
        )
    for place, (held, total) in source.clipped().items():
        if held:
            notes.append(
                f"{held} of {total} values of {place} lie outside its range and are held at its ends"
            )
    return notes
