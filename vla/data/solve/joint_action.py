"""Actions in joint space: targets, changes or speeds of the joints in the state, and their unit."""

from __future__ import annotations

import numpy as np

from vla.data.solve.answers import Answer, accept, confidence_of, refuse
from vla.data.solve.kinematics import moving, place
from vla.data.solve.motion import COPY, LAGS, WINDOW, Motion, copied, pairs
from vla.data.solve.rotation import explained
from vla.data.solve.tracks import Block, Tracks
from vla.data.solve.units import ANGLES, UNFIT, Fit, Rate, fit_units

_EXPLAINS = 0.5
_JOINT_FACTOR = 2.0  # the gain of a joint may differ by so much from that of all
_MOVES = 0.2  # a joint that moves less than this share of what the liveliest does has no gain of its own
_Scored = tuple[float, Block, str, int]  # explained share, entries, mode, lag


def search_joint_action(tracks: Tracks, joints: Block) -> list[_Scored]:
    """Every reading of the action in joint space, best first."""
    states, scored = tracks.parts(joints), list[_Scored]()
    for block in tracks.action_blocks(joints.size):
        for lag in LAGS:
            a, q, dq = pairs(tracks.parts(block), states, lag)
            scored.append((explained(a, dq), block, "delta", lag))
            scored.append((explained(a - q, dq), block, "absolute", lag))
    return sorted(scored, key=lambda item: -item[0])


def joints_explain_more(tracks: Tracks, joints: Block, motion: Motion) -> bool:
    """Whether entries that seem to move the tool move the joints, some of which carry the tool about."""
    scored = search_joint_action(tracks, joints)
    return bool(scored) and scored[0][1].overlaps(motion.action) and scored[0][0] > motion.score


def joint_action_answers(
    tracks: Tracks, joints: Block | None, joint_unit: str, rate: Rate, mode_said: str | None = None
) -> tuple[Block | None, list[Answer]]:
    """Questions ``joint_action``, ``joint_action_unit`` and ``action_lag``; also the block that was found.

    Args:
        joints: where the state has them; None: unknown, and so is the answer.
        joint_unit: of the joints in the state.
        rate: steps a second, where known; without it speeds cannot be told.
        mode_said: "delta" or "velocity", where a person says so.
    """
    questions = ("joint_action", "joint_action_unit")
    if joints is None:
        return None, [refuse(q, "the joints in the state are unknown") for q in questions]
    states, scored = tracks.parts(joints), search_joint_action(tracks, joints)
    if not scored or scored[0][0] < _EXPLAINS:
        why = "no entries of the action explain how the joints move"
        return None, [refuse(q, why) for q in (*questions, "action_lag")]
    score, block, mode, lag = scored[0]
    if mode == "absolute" and copied(tracks.parts(block), states):
        return None, [refuse(q, COPY) for q in (*questions, "action_lag")]
    second = max((s for s, b, m, _ in scored if (b, m) != (block, mode)), default=0.0)
    late = max((s for s, b, m, n in scored if (b, m) == (block, mode) and n != lag), default=0.0)
    steps = moving(np.concatenate([np.diff(s, axis=0) for s in states]))
    said = f"explains {100 * score:.0f} % of the joints' motion, the next best {100 * max(second, 0):.0f} %"
    sure = confidence_of(score, second, steps)
    late_answer = accept("action_lag", max(lag, 0), confidence_of(score, late, steps), said)
    value = {**place(block), "size": joints.size, "mode": mode}
    if mode == "absolute":
        unit_said = f"targets lie where the joints do, which are in {joint_unit}"
        return block, [
            accept("joint_action", value, sure, f"{said}; {unit_said}"),
            late_answer,
            accept("joint_action_unit", joint_unit, sure, unit_said),
        ]
    path = [part * ANGLES[joint_unit] for part in states]
    fit = _unit(tracks.parts(block), path, lag, rate, mode_said)
    if len(fit.alike) > 1:
        why = fit.twins("joint_action_unit", "joint_action")
        both = [refuse(q, why, f"{said}; {fit.said}", sure) for q in questions]
        return block, [both[0], late_answer, both[1]]
    # numbers that fit no unit are changes at some scale, whatever they are called
    value["mode"] = fit.only.mode if fit.only else mode_said or mode
    found = accept("joint_action", value, min(sure, fit.sure), f"{said}; {fit.said}")
    if fit.only is None:
        return block, [found, late_answer, refuse("joint_action_unit", fit.why, fit.said)]
    of_unit = accept("joint_action_unit", fit.only.unit, min(sure, fit.sure), fit.said)
    return block, [found, late_answer, of_unit]


def _unit(actions: list[np.ndarray], path: list[np.ndarray], lag: int, rate: Rate, mode: str | None) -> Fit:
    """What changes fit, from how far the joints (rad) go for an action of 1."""
    xy, xx, yy = _window_sums(actions, path, lag)
    gain = float(xy.sum() / max(xx.sum(), 1e-300))
    said = f"the joints move {gain:.4g} rad for an action of 1"
    largest = float(np.abs(np.concatenate(actions)).max())
    fit = fit_units(gain, ANGLES, rate, said, mode, largest=largest)
    own = np.where(yy > _MOVES**2 * yy.max(), xy / np.maximum(xx, 1e-300), gain)
    apart = np.abs(np.log(np.maximum(own, 1e-9) / max(gain, 1e-9)))
    if fit.alike and apart.max() > np.log(_JOINT_FACTOR):
        worst = int(apart.argmax())
        said = f"{said}, but joint {worst} moves {own[worst]:.4g}: each has a scale of its own"
        return Fit(alike=(), said=said, why=UNFIT)
    return fit


def _window_sums(
    actions: list[np.ndarray], path: list[np.ndarray], lag: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per joint, sums of action x move, action^2 and move^2, each over a few steps at a time."""
    kernel = np.ones(WINDOW)
    sums = np.zeros((3, path[0].shape[1]))
    for action, positions in zip(actions, path, strict=True):
        rows = np.arange(max(0, -lag), len(positions) - 1)
        rows = rows[rows + lag < len(action)]
        if len(rows) < WINDOW:
            continue
        a, y = action[rows + lag], positions[rows + 1] - positions[rows]
        for joint in range(sums.shape[1]):
            x_sum, y_sum = (np.convolve(v[:, joint], kernel, "valid") for v in (a, y))
            sums[:, joint] += x_sum @ y_sum, x_sum @ x_sum, y_sum @ y_sum
    return sums[0], sums[1], sums[2]
