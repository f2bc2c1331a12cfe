"""What the action does to the tool's orientation: turns in the world's or the tool's frame, or targets."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vla.data.solve.answers import ACCEPT, Answer, accept, confidence_of, refuse
from vla.data.solve.kinematics import moving, place
from vla.data.solve.motion import Motion
from vla.data.solve.rotation import explained, read, readings, turning
from vla.data.solve.tracks import Block, Tracks
from vla.data.solve.units import ANGLES, Fit, Rate, fit_units

_EXPLAINS = 0.5
_STILL_RAD = 0.002
_UNKNOWN = "the orientation in the state, or how the action moves the tool, is unknown"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Entries of the action that turn the tool by changes or speeds; where there are none ``why`` says so."""

    block: Block | None = None
    gain: float = 0.0  # rad for an action of 1
    largest: float = 0.0  # of its numbers
    sure: float = 0.0
    said: str = ""
    why: str = ""

    def fit(self, rate: Rate, mode: str | None = None) -> Fit | None:
        """The units that the gain fits; None where it is not sure that these entries turn the tool."""
        if self.block is None or self.sure < ACCEPT:
            return None
        said = f"turns {self.gain:.4g} rad for an action of 1"
        return fit_units(self.gain, ANGLES, rate, said, mode, largest=self.largest)


def turning_answers(
    tracks: Tracks,
    turned: list[Rotation] | None,
    action: Block | None,
    mode: str | None,
    frame: str | None,
    lag: int,
    rate: Rate,
    turn: Turn,
) -> tuple[Block | None, list[Answer]]:
    """Questions ``action_rotation``, ``action_rotation_unit``; also the block that was found.

    Args:
        turned: orientation of the tool, an array of rotations for each episode.
        action: entries that move the tool.
        mode, frame, lag: of the action's position.
        rate: steps a second, where known.
        turn: the entries that turn the tool by changes or speeds.
    """
    if turned is None or mode is None or frame is None:
        return None, _refused(_UNKNOWN)
    if mode == "absolute":
        return _target(tracks, turned, (action,), lag)
    if turn.block is None:
        return None, _refused(turn.why, turn.said)
    value = {**place(turn.block), "format": "rotvec" if turn.block.size == 3 else "yaw"}
    answers = [accept("action_rotation", value, turn.sure, turn.said)]
    fit = turn.fit(rate, mode)
    if fit is None:
        answers.append(accept("action_rotation_unit", None, turn.sure, turn.said))
    elif fit.only is None:
        answers.append(refuse("action_rotation_unit", fit.why, fit.said))
    else:
        answers.append(accept("action_rotation_unit", fit.only.unit, min(turn.sure, fit.sure), fit.said))
    return turn.block, answers


def find_turn(tracks: Tracks, turned: list[Rotation] | None, motions: list[Motion]) -> Turn:
    """The entries of the action beside the likeliest move that explain how the tool turns, in its frame."""
    if turned is None or not motions or motions[0].mode == "absolute":
        return Turn(why=_UNKNOWN)
    without, frame, lag = (motions[0].action,), motions[0].frame, motions[0].lag
    scored: list[tuple[float, int, Block, float]] = []
    steps = 0
    for size in (3, 1):
        for block in tracks.action_blocks(size, without=without):
            x, y = turning(turned, tracks.parts(block), frame, lag)
            y = y if size == 3 else y[:, 2:]
            if not (x.std(axis=0) > 1e-6).any():
                continue
            steps = max(steps, moving(y))
            scored.append((explained(x, y), size, block, _gain(x, y)))
    if not scored:
        return Turn(why="no entries of the action move beside those already understood")
    scored.sort(key=lambda item: (-round(item[0], 2), -item[1]))
    whole = [s for s in scored if s[1] == 3 and s[0] >= _EXPLAINS and s[2].overlaps(scored[0][2])]
    score, size, best, gain = whole[0] if whole else scored[0]
    if score < _EXPLAINS:
        said = f"best {100 * max(score, 0):.0f} %"
        return Turn(why="no entries of the action explain how the tool turns", said=said)
    beside = Block(column=best.column, start=best.start - 2, size=3)
    alone = size == 3 or best.start < 2 or any(beside.overlaps(other) for other in without)
    if not alone and (tracks.stacked(beside)[:, :2].std(axis=0) > 1e-6).all():
        why = "one entry follows the turning alone, but the two before it move as well"
        return Turn(why=why, said=f"best {100 * score:.0f} %")
    second = max((s for s, _, block, _ in scored if not block.overlaps(best)), default=0.0)
    said = f"explains {100 * score:.0f} % of the turning, other entries {100 * max(second, 0):.0f} %"
    largest = float(np.abs(tracks.stacked(best)).max())
    return Turn(block=best, gain=gain, largest=largest, sure=confidence_of(score, second, steps), said=said)


def _target(
    tracks: Tracks, turned: list[Rotation], without: tuple[Block | None, ...], lag: int
) -> tuple[Block | None, list[Answer]]:
    """The reading of the action that lies nearest to where the tool points next."""
    if tracks.action_column is None:
        return None, _refused("there is no action")
    motion = np.sqrt(np.mean(np.concatenate([(r * r.mean().inv()).magnitude() ** 2 for r in turned])))
    steps = sum(len(r) for r in turned)
    scored = []
    for reading in readings(tracks, tracks.action_column, without=without):
        squares = []
        for values, rotation in zip(tracks.parts(reading.block), turned, strict=True):
            late = max(lag, 0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                target = read(values[late : len(values) - 1], reading)
            squares.append((rotation[1 : 1 + len(target)] * target.inv()).magnitude() ** 2)
        scored.append((float(np.sqrt(np.concatenate(squares).mean())), reading))
    if not scored or motion < _STILL_RAD:
        return None, _refused("no entries of the action can be an orientation, or the tool never turns")
    scored.sort(key=lambda item: item[0])
    off, best = scored[0]
    second = next((s for s, r in scored[1:] if r.block != best.block or r.format != best.format), 10 * motion)
    said = (
        f"within {np.rad2deg(off):.1f} deg of the next orientation, the next best reading "
        f"{np.rad2deg(second):.1f}"
    )
    score, other = 1 - (off / motion) ** 2, 1 - (min(second, motion) / motion) ** 2
    sure = confidence_of(score, other, steps) if score > _EXPLAINS else 0.0
    found = accept("action_rotation", best.value(), sure, said, "no reading follows the orientation")
    if found.refused:
        return None, _refused(found.refused, said)
    return best.block, [found, accept("action_rotation_unit", best.unit, sure, said)]


def _gain(x: np.ndarray, y: np.ndarray) -> float:
    power = float((x**2).sum())
    return float((x * y).sum()) / power if power > 0 else 0.0


def _refused(why: str, evidence: str = "") -> list[Answer]:
    return [refuse(q, why, evidence) for q in ("action_rotation", "action_rotation_unit")]
