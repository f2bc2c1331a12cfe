"""Actions in joint space: targets or changes of the joints in the state."""

from __future__ import annotations

import numpy as np

from vla.data.solve.answers import Answer, accept, confidence_of, refuse
from vla.data.solve.kinematics import moving, place
from vla.data.solve.motion import LAGS, pairs
from vla.data.solve.rotation import explained
from vla.data.solve.tracks import Block, Tracks

_EXPLAINS = 0.5


def joint_action_answers(tracks: Tracks, joints: Block | None) -> tuple[Block | None, list[Answer]]:
    """Questions ``joint_action`` and ``action_lag``; also the block that was found.

    Args:
        joints: where the state has them; None: unknown, and so is the answer.
    """
    question = "joint_action"
    if joints is None:
        return None, [refuse(question, "the joints in the state are unknown")]
    states = tracks.parts(joints)
    scored: list[tuple[float, Block, str, int]] = []
    for block in tracks.action_blocks(joints.size):
        for lag in LAGS:
            a, q, dq = pairs(tracks.parts(block), states, lag)
            scored.append((explained(a, dq), block, "delta", lag))
            scored.append((explained(a - q, dq), block, "absolute", lag))
    scored.sort(key=lambda item: -item[0])
    if not scored or scored[0][0] < _EXPLAINS:
        return None, [refuse(question, "no entries of the action explain how the joints move")]
    score, block, mode, lag = scored[0]
    second = max((s for s, b, m, _ in scored if (b, m) != (block, mode)), default=0.0)
    late = max((s for s, b, m, n in scored if (b, m) == (block, mode) and n != lag), default=0.0)
    steps = moving(np.concatenate([np.diff(s, axis=0) for s in states]))
    said = f"explains {100 * score:.0f} % of the joints' motion, the next best {100 * max(second, 0):.0f} %"
    value = {**place(block), "size": joints.size, "mode": mode}
    return block, [
        accept(question, value, confidence_of(score, second, steps), said),
        accept("action_lag", max(lag, 0), confidence_of(score, late, steps), said),
    ]
