"""Position and rotation of the tool without a robot model: what the action moves as a tool is moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla.data.solve.answers import ACCEPT, Answer, accept, confidence_of, refuse
from vla.data.solve.kinematics import LENGTH_UNITS, moving, place, rests_along
from vla.data.solve.motion import Motion, pairs, search_motion, unit_of_moves
from vla.data.solve.rotation import Reading, explained, rotation_from_action, rotations, turning
from vla.data.solve.tracks import Block, Tracks
from vla.data.solve.units import Rate

_EXPLAINS = 0.5
_UNSEEN = 0.7  # confidence at most: no robot model confirms it
_REACH_M = 2.5  # no table-top arm reaches further from its base ...
_SPAN_M = (0.04, 2.5)  # ... and demonstrations move by more than the first of these
_NEAR = 0.03  # so near to -1, 0, 1 the ends of a range look made
_NORMAL = 0.1  # and so near to mean 0 and deviation 1


@dataclass(frozen=True, kw_only=True)
class Unmodelled:
    """What was found; ``why`` says why there is no ``path`` (metres, an episode each) to go on from."""

    answers: list[Answer]
    motions: list[Motion]
    position: Block | None = None
    path: list[np.ndarray] | None = None
    why: str = ""


def position_without_model(tracks: Tracks, rate: Rate) -> Unmodelled:
    """``position`` and ``position_unit``; speeds fit a unit only where the rate is known."""
    candidates = {b: tracks.parts(b) for b in tracks.state_blocks(3)}
    motions = search_motion(tracks, candidates, None)
    if not motions or motions[0].score < _EXPLAINS:
        best = f"best {100 * max(motions[0].score, 0):.0f} % explained" if motions else ""
        return _unknown("no three entries of the state follow three of the action", best)
    in_step = [m for m in motions if _in_step(m, motions[0])]
    run = [m for m in in_step if (m.mode, m.lag) == (motions[0].mode, motions[0].lag)]
    best = min(run, key=lambda m: m.position.start)
    second = max((m.score for m in motions if m not in in_step and m.position != best.position), default=0.0)
    steps = moving(np.concatenate([np.diff(p, axis=0) for p in candidates[best.position]]))
    said = (
        f"follows the action ({100 * best.score:.0f} % explained, other entries "
        f"{100 * max(second, 0):.0f} %), {steps} moving steps"
    )
    sure = confidence_of(best.score, second, steps)
    if len(run) > 1:  # rotations follow the action too: the position comes first in every published layout
        said, sure = f"{said}; first of {len(run) + 2} entries in a row that follow it", min(sure, 0.7)
    value = {**place(best.position), "axes": [0, 1, 2], "signs": [1, 1, 1]}
    found = accept("position", value, min(sure, _UNSEEN), said)
    if found.refused:
        return _unknown(found.refused, said)
    turns = _turns_beside(tracks, search_motion(tracks, {best.position: candidates[best.position]}, None))
    if not turns:
        why = (
            "joints that follow the action look the same: it takes a robot model, or beside it an "
            "orientation that turns as three more numbers of the action say"
        )
        return _unknown(why, said)
    found = accept("position", value, found.confidence, f"{said}; {turns}")
    unit, unit_said = plausible_unit(tracks.stacked(best.position))
    if unit is None:
        why = "no one unit makes the numbers an arm's reach"
        return Unmodelled(answers=[found, refuse("position_unit", why, unit_said)], motions=[], why=why)
    path = [p * LENGTH_UNITS[unit] for p in candidates[best.position]]
    if rests := rests_along(path):
        return _unknown(rests, said)
    motions = search_motion(tracks, {best.position: path}, None)
    fit = unit_of_moves(tracks, motions[0], path, None, rate)
    if not fit.alike:
        why = "the action's gain fits no unit: either may be scaled"
        return Unmodelled(answers=[found, refuse("position_unit", why, fit.said)], motions=[], why=why)
    answers = [found, accept("position_unit", unit, found.confidence, f"{unit_said}; {fit.said}")]
    return Unmodelled(answers=answers, motions=motions, position=best.position, path=path)


def _unknown(why: str, evidence: str) -> Unmodelled:
    answers = [refuse(q, why, evidence) for q in ("position", "position_unit")]
    return Unmodelled(answers=answers, motions=[], why=f"the tool's position in the state is unknown: {why}")


def _turns_beside(tracks: Tracks, motions: list[Motion]) -> str:
    """What shows that the entries are a tool's: others turn as rotations do, not as joints add up; or ""."""
    best = motions[0]
    reading, _ = rotation_without_model(tracks, motions, (best.position,))
    if reading is None:
        return ""
    commands = tracks.parts(Block(column=best.action.column, start=best.action.start + 3, size=3))
    if reading.block.size != 3:
        return f"beside it a {reading.format} turns as the action says"
    turned = rotations(tracks, reading)
    tries = [explained(*turning(turned, commands, frame, best.lag)) for frame in ("world", "tool")]
    a, _, y = pairs(commands, tracks.parts(reading.block), best.lag)
    added = explained(a, y)
    if confidence_of(max(tries), added, len(y)) < ACCEPT:
        return ""
    said = f"beside it a {reading.format} turns as the action says"
    return f"{said}, added up it leaves {100 - 100 * added:.0f} %"


def _in_step(motion: Motion, best: Motion) -> bool:
    """Whether a hypothesis continues the entries of the best one in step with the action."""
    shift = motion.position.start - best.position.start
    return (
        motion.position.column == best.position.column
        and motion.action.start - best.action.start == shift
        and abs(shift) <= 3
        and motion.score >= _EXPLAINS
    )


def rotation_without_model(
    tracks: Tracks, motions: list[Motion], known: tuple[Block | None, ...]
) -> tuple[Reading | None, list[Answer]]:
    """The rotation questions, from the three entries of the action that follow its position."""
    why = "it takes a robot model, or an action that turns the tool by three numbers a step"
    refused = [refuse("rotation", why), refuse("rotation_unit", why)]
    if not motions or motions[0].mode != "delta" or motions[0].score < _EXPLAINS:
        return None, refused
    best = motions[0]
    start = best.action.start + 3
    if start + 3 > tracks.width(best.action.column):
        return None, refused
    turns = tracks.parts(Block(column=best.action.column, start=start, size=3))
    tries = [rotation_from_action(tracks, turns, known, frame, best.lag) for frame in ("world", "tool")]
    good = [t for t in tries if t[0] is not None]
    if not good:
        return tries[0]
    return max(good, key=lambda item: item[1][0].confidence)


def plausible_unit(values: np.ndarray) -> tuple[str | None, str]:
    """The one unit in which an arm could have been at ``values`` [N 3]; None also where they look scaled."""
    if scaled := _scaled(values):
        return None, scaled
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    span, far = float((high - low).max()), float(np.abs(values).max())
    fits = [
        unit
        for unit, scale in (("m", 1.0), ("mm", 1e-3), ("cm", 1e-2))
        if far * scale <= _REACH_M and _SPAN_M[0] <= span * scale <= _SPAN_M[1]
    ]
    said = f"reaches to {far:.3g} and spans {span:.3g} as stored; plausible as {', '.join(fits) or 'nothing'}"
    return (fits[0] if len(fits) == 1 else None), said


def _scaled(values: np.ndarray) -> str:
    """What shows that numbers were normalised; empty where nothing does."""
    for share in (0.0, 0.01):
        low, high = np.quantile(values, [share, 1 - share], axis=0)
        for first in (-1.0, 0.0):
            if ((np.abs(low - first) < _NEAR) & (np.abs(high - 1) < _NEAR)).sum() >= 2:
                return f"the axes fill {first:g}..1: scaled numbers"
    if (np.abs(values.mean(axis=0)) < _NORMAL).all() and (np.abs(values.std(axis=0) - 1) < _NORMAL).all():
        return "the axes have mean 0 and deviation 1: scaled numbers"
    return ""
