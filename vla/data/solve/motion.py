"""What the action does to the tool: change, target or velocity; which frame; which unit; how late.

For step t let ``y = p[t+1] - p[t]`` be the tool's move and ``a`` the action's three entries in row
``t + lag``. A change explains y by ``a`` itself, a target by ``a - p[t]``; each is tried in the world's frame
and, turned by the orientation in the state, in the tool's. The hypothesis that explains most wins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vla.data.solve.answers import Answer, accept, confidence_of, refuse
from vla.data.solve.kinematics import LENGTH_UNITS, moving, place
from vla.data.solve.rotation import explained
from vla.data.solve.tracks import Block, Tracks
from vla.data.solve.units import UNFIT, Fit, Meaning, Rate, fit_units

LAGS = (0, 1, 2, 3, 4, -1, -2)
COPY = "the action repeats the state of the same row: what was commanded is not in the data"
WINDOW = 4  # steps over which gains are measured, so that a slow servo counts less
_EXPLAINS = 0.5
_COPIED = 1e-3  # of the spread: no servo keeps so near to its targets
_TURNED_RAD, _TURN_EXPLAINS = np.deg2rad(8.0), 0.03  # axes that are turned by more, and what that explains
_AXIS_FACTOR = 2.0  # the gain of an axis may differ by so much from that of all
_MOVES = 0.2  # an axis that moves less than this share of what the liveliest does has no gain of its own
_UNTRIED = 0.7  # confidence at most, where the other hypothesis could not be tried


@dataclass(frozen=True, kw_only=True)
class Motion:
    """One hypothesis and how much of the tool's motion it explains."""

    action: Block
    position: Block
    mode: str  # "delta" (also velocity) or "absolute"
    frame: str
    lag: int
    scale: float  # absolute: metres an entry unit
    score: float


def search_motion(
    tracks: Tracks,
    positions: dict[Block, list[np.ndarray]],
    turned: list[Rotation] | None,
) -> list[Motion]:
    """All hypotheses, best first.

    Args:
        positions: blocks of the state that may be the tool's position, in metres (as stored where unknown).
        turned: the tool's orientation of each episode, where it is known.
    """
    found = []
    matrices = [r.as_matrix() for r in turned] if turned is not None else None
    for block in tracks.action_blocks(3):
        actions = tracks.parts(block)
        for position, path in positions.items():
            for lag in LAGS:
                a, p, y = pairs(actions, path, lag)
                found.append(_motion(block, position, "delta", "world", lag, 1.0, explained(a, y)))
                scale = _level_scale(a, p)
                if scale is not None:
                    x = a * scale - p
                    score = _beyond_return(x, p, y) if _same_level(a * scale, p) else 0.0
                    found.append(_motion(block, position, "absolute", "world", lag, scale, score))
                if matrices is not None:
                    x = _turn(actions, matrices, lag)
                    found.append(_motion(block, position, "delta", "tool", lag, 1.0, explained(x, y)))
    return sorted(found, key=lambda motion: -motion.score)


def motion_answers(
    tracks: Tracks,
    found: list[Motion],
    path: list[np.ndarray],
    turned: list[Rotation] | None,
    rate: Rate,
    why: str = "",
    mode: str | None = None,
    turning: Fit | None = None,
) -> list[Answer]:
    """Questions ``action_position``, ``action_mode``, ``action_frame``, ``action_lag``, ``action_unit``.

    Args:
        found: hypotheses, best first.
        path: the tool's position, m.
        turned: its orientation, where it is known.
        rate: steps a second, where known.
        why: there is nothing to look at; empty where there is.
        mode: "delta" or "velocity", where a person says so.
        turning: how the action turns the tool, which tells a change from a speed where the moves do not.
    """
    questions = ("action_position", "action_mode", "action_frame", "action_lag", "action_unit")
    steps = moving(np.concatenate([np.diff(p, axis=0) for p in path])) if path else 0
    if why or not found:
        return [refuse(q, why or "the action has no three entries") for q in questions]
    if found[0].score < _EXPLAINS:
        best = f"best {100 * max(found[0].score, 0):.0f} % explained"
        return [refuse(q, "no entries of the action explain how the tool moves", best) for q in questions]
    if found[0].mode == "absolute" and copied(tracks.parts(found[0].action), path, found[0].scale):
        return [refuse(q, COPY) for q in questions]
    best = found[0]
    if turn := _turned_axes(tracks, best, path, turned):
        return [refuse(q, turn) for q in questions]

    def rival(same: str) -> float:
        return max((m.score for m in found[1:] if getattr(m, same) != getattr(best, same)), default=0.0)

    def say(same: str) -> str:
        return (
            f"explains {100 * best.score:.0f} % of the tool's motion, the best other "
            f"{100 * max(rival(same), 0):.0f} %, {steps} moving steps"
        )

    sure = {k: confidence_of(best.score, rival(k), steps) for k in ("action", "mode", "frame", "lag")}
    fit = unit_of_moves(tracks, best, path, turned, rate, mode).settled(turning)
    value = {**place(best.action), "axes": [0, 1, 2], "signs": [1, 1, 1]}
    answers = [accept("action_position", value, sure["action"], say("action"))]
    if fit.only:
        answers.append(
            accept("action_mode", fit.only.mode, min(sure["mode"], fit.sure), f"{say('mode')}; {fit.said}")
        )
    else:
        alike = fit.twins("action_unit", "action_mode") if fit.alike else ""
        answers.append(refuse("action_mode", alike or "change or velocity cannot be told apart", fit.said))
    frame_said = say("frame")
    if turned is None:
        said = "moves along fixed axes; the tool's frame cannot be tried without an orientation"
        frame_said, sure["frame"] = said, min(sure["frame"], _UNTRIED)
    answers.append(accept("action_frame", best.frame, sure["frame"], frame_said))
    if best.lag >= 0:
        answers.append(accept("action_lag", best.lag, sure["lag"], say("lag")))
    else:
        said = f"the tool answers {-best.lag} steps after the action; {say('lag')}"
        answers.append(accept("action_lag", 0, sure["lag"], said))
        answers.append(accept("response_delay", -best.lag, sure["lag"], said))
    if fit.only and fit.only.unit:
        answers.append(accept("action_unit", fit.only.unit, min(sure["action"], fit.sure), fit.said))
    else:
        alike = fit.twins("action_unit", "action_mode") if len(fit.alike) > 1 else fit.why
        answers.append(refuse("action_unit", alike, fit.said))
    return answers


def copied(actions: list[np.ndarray], path: list[np.ndarray], scale: float = 1.0) -> bool:
    """Whether every row of the action is the state of the same row: a record of it, not a command."""
    a, p = np.concatenate(actions) * scale, np.concatenate(path)
    return bool(np.abs(a - p).max() <= _COPIED * p.std())


def pairs(
    actions: list[np.ndarray], path: list[np.ndarray], lag: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(action rows, positions before, moves) of the same steps over all episodes."""
    a, p, y = [], [], []
    for action, positions in zip(actions, path, strict=True):
        rows = np.arange(max(0, -lag), len(positions) - 1)
        rows = rows[rows + lag < len(action)]
        a.append(action[rows + lag])
        p.append(positions[rows])
        y.append(positions[rows + 1] - positions[rows])
    return np.concatenate(a), np.concatenate(p), np.concatenate(y)


def _motion(
    action: Block, position: Block, mode: str, frame: str, lag: int, scale: float, score: float
) -> Motion:
    return Motion(action=action, position=position, mode=mode, frame=frame, lag=lag, scale=scale, score=score)


def _turn(actions: list[np.ndarray], matrices: list[np.ndarray], lag: int) -> np.ndarray:
    """Action rows turned from the tool's frame into the world's, in step with :func:`pairs`."""
    out = []
    for action, turn in zip(actions, matrices, strict=True):
        rows = np.arange(max(0, -lag), len(action) - 1)
        rows = rows[rows + lag < len(action)]
        out.append(np.einsum("tij,tj->ti", turn[rows], action[rows + lag]))
    return np.concatenate(out)


def _level_scale(a: np.ndarray, p: np.ndarray) -> float | None:
    """The ratio of units that brings ``a`` to the level of ``p``; None where they differ otherwise."""
    x, y = a - a.mean(axis=0), p - p.mean(axis=0)
    power = (x**2).sum()
    slope = (x * y).sum() / power if power > 1e-12 else 0.0
    if slope <= 0:
        return None
    ratio = min((1.0, 1e-3, 1e-2, 1e3, 1e2, 10.0, 0.1), key=lambda r: abs(np.log(slope / r)))
    return ratio if abs(np.log(slope / ratio)) < 0.4 else None


def _beyond_return(x: np.ndarray, p: np.ndarray, y: np.ndarray) -> float:
    """Share of the moves that targets explain beyond what returning to the middle would."""
    alone = explained(p.mean(axis=0) - p, y)
    return 1 - (1 - explained(x, y)) / max(1 - alone, 1e-6)


def _same_level(a: np.ndarray, p: np.ndarray) -> bool:
    """Whether targets lie where the positions lie."""
    spread = np.sqrt(((p - p.mean(axis=0)) ** 2).sum(axis=1).mean())
    return bool(np.linalg.norm((a - p).mean(axis=0)) < spread)


def unit_of_moves(
    tracks: Tracks,
    best: Motion,
    path: list[np.ndarray],
    turned: list[Rotation] | None,
    rate: Rate,
    mode: str | None = None,
) -> Fit:
    """What the gain over a few steps fits: changes in every unit and, with the rate, speeds; or targets."""
    if best.mode == "absolute":
        unit = next((n for n, size in LENGTH_UNITS.items() if np.isclose(size, best.scale)), "")
        said = f"targets at {best.scale:g} m a unit"
        return Fit(alike=(Meaning(mode="absolute", unit=unit),), said=said, why=UNFIT)
    products, xx, yy = _window_sums(tracks, best, path, turned)
    xy = np.diagonal(products)
    gain = float(xy.sum() / xx.sum()) if xx.sum() > 0 else 0.0
    said = f"the tool moves {gain:.4g} m for an action of 1"
    largest = float(np.abs(tracks.stacked(best.action)).max())
    fit = fit_units(gain, LENGTH_UNITS, rate, said, mode, largest=largest)
    own = np.where(yy > _MOVES**2 * yy.max(), xy / np.maximum(xx, 1e-300), gain)
    apart = np.abs(np.log(np.maximum(own, 1e-9) / max(gain, 1e-9)))
    if fit.alike and apart.max() > np.log(_AXIS_FACTOR):
        worst = int(apart.argmax())
        said = f"{said}, but along {'xyz'[worst]} {own[worst]:.4g}: each axis has its own scale"
        return Fit(alike=(), said=said, why=UNFIT)
    return fit


def _turned_axes(tracks: Tracks, best: Motion, path: list[np.ndarray], turned: list[Rotation] | None) -> str:
    """Why axes of a change cannot be named: they are those of another frame, turned against the state's (a
    base that is mounted at an angle). Empty where they are the state's."""
    if best.mode == "absolute":
        return ""
    products, xx, yy = _window_sums(tracks, best, path, turned)
    power = float(xx.sum() * yy.sum())
    left, _, right = np.linalg.svd(products)
    turn = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
    angle = float(Rotation.from_matrix(turn).magnitude())
    gained = ((turn * products).sum() ** 2 - np.trace(products) ** 2) / power if power > 0 else 0.0
    if angle <= _TURNED_RAD or gained <= _TURN_EXPLAINS:
        return ""
    return (
        f"the action's axes are turned by {np.rad2deg(angle):.0f} degrees against the state's, which "
        f"explains {100 * gained:.0f} % more of the motion: turn one of them before"
    )


def _window_sums(
    tracks: Tracks, best: Motion, path: list[np.ndarray], turned: list[Rotation] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of move x action [3 3], of action^2 [3] and of move^2 [3], each over a few steps at a time."""
    products, squares, lag = np.zeros((3, 3)), np.zeros((2, 3)), best.lag
    for e, (action, positions) in enumerate(zip(tracks.parts(best.action), path, strict=True)):
        rows = np.arange(max(0, -lag), len(positions) - 1)
        rows = rows[rows + lag < len(action)]
        if len(rows) < WINDOW:
            continue
        a, y = action[rows + lag], positions[rows + 1] - positions[rows]
        if turned is not None and best.frame == "tool":
            a = np.einsum("tij,tj->ti", turned[e].as_matrix()[rows], a)
        a, y = (np.lib.stride_tricks.sliding_window_view(v, WINDOW, axis=0).sum(-1) for v in (a, y))
        products += y.T @ a
        squares += (a**2).sum(0), (y**2).sum(0)
    return products, squares[0], squares[1]
