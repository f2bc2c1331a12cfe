"""Finding out what the columns of a data set mean, from the data, the robot model and its simulator.

::

    raw columns ── kinematics ── rotation ── motion ── turning ── gripper ── rate ── pictures ──► Solution
                   joints, tcp    format      mode,     action's    open,      Hz      camera, flip,
                   position,      of the      frame,    rotation    closed             colour order
                   unit, axes     state       lag, unit                                     │
                                                                      describe ──► DatasetDescription

One module a question. Each tries every convention it knows, measures how much of the data each explains, and
answers only where the best leaves the second best behind; otherwise it refuses and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scipy.spatial.transform import Rotation

from vla.data.solve.answers import Answer, Solution
from vla.data.solve.gripper import gripper_answers
from vla.data.solve.joint_action import joint_action_answers, joints_explain_more
from vla.data.solve.kinematics import arm_answers, canonical_position, fit_arm
from vla.data.solve.motion import motion_answers, search_motion
from vla.data.solve.pictures import camera_answers
from vla.data.solve.rate import rate_answer
from vla.data.solve.robot import RobotModel, SceneModel
from vla.data.solve.rotation import Reading, rotation_from_arm, rotations
from vla.data.solve.tracks import Block, Tracks, load_tracks
from vla.data.solve.turning import turning_answers
from vla.data.solve.unmodelled import position_without_model, rotation_without_model
from vla.data.source import RawDataset
from vla.errors import DatasetError, UnknownNameError

__all__ = ["Answer", "Solution", "solve"]

MIN_STEPS = 40


def solve(
    raw: RawDataset, *, model: RobotModel | None = None, given: Mapping[str, Any] | None = None
) -> Solution:
    """Ask every question about a data set.

    Args:
        raw: demonstrations as stored.
        model: the robot, where there is one; a scene of a suite also sees pictures.
        given: answers that a person knows, by question; they replace those found. ``"absent"`` (null in a
            file): the data set has no such thing.

    Raises:
        DatasetError: there is nothing to look at.
        UnknownNameError: a given answer to a question that is not asked.
    """
    tracks = load_tracks(raw)
    if not tracks.numbers or not tracks.state_columns or tracks.action_column is None:
        missing = (
            "episode of 4 steps" if not tracks.numbers else "state" if tracks.action_column else "action"
        )
        raise DatasetError(
            f"{raw.path} has no {missing} column that can be studied; its columns: "
            f"{', '.join(f'{c.name} [{c.size}]' for c in raw.columns.values()) or 'none'}. Conventions can "
            "be found only where both the state and the action are stored as numbers."
        )
    answers = {a.question: a for a in _ask(raw, tracks, model)}
    for question, value in (given or {}).items():
        if question not in answers:
            raise UnknownNameError("question of the solver", question, answers)
        known = "absent" if value is None else value
        answers[question] = Answer(question=question, value=known, confidence=1.0, evidence="given")
    return Solution(raw=raw, answers=answers)


def _ask(raw: RawDataset, tracks: Tracks, model: RobotModel | None) -> list[Answer]:
    rate = rate_answer(raw, tracks, model)
    fit = fit_arm(tracks, model) if model is not None else None
    answers = arm_answers(tracks, model, fit)
    if fit is not None and model is not None:
        path = canonical_position(tracks, fit.position, fit.scale_m, fit.axes, fit.signs)
        position, known = fit.position, (fit.joints, fit.position)
        turned = fit.base * model.forward(tracks.stacked(fit.joints) * fit.joint_scale)[1]
        reading, found = rotation_from_arm(tracks, turned, known)
        motions = search_motion(tracks, {position: path}, _orientation(tracks, reading))
        if motions and joints_explain_more(tracks, fit.joints, motions[0]):
            motions = []
    else:
        motions, path, position_found = position_without_model(tracks)
        answers = [*(a for a in answers if a.question.startswith("joint")), *position_found]
        position = motions[0].position if motions and path else None
        known = (position,)
        reading, found = rotation_without_model(tracks, motions if path else [], known)
        if path and position is not None and reading is not None:
            motions = search_motion(tracks, {position: path}, _orientation(tracks, reading))
    answers += found
    turns = _orientation(tracks, reading)
    moved = motion_answers(tracks, motions if path else [], path or [], turns, rate.value)
    answers += moved
    values = {a.question: a.value for a in moved}
    used: list[Block | None] = [motions[0].action] if values["action_position"] else []
    lag = motions[0].lag if used else 0
    block, turning = turning_answers(
        tracks, turns, tuple(used), values["action_mode"], values["action_frame"], lag, rate.value
    )
    used.append(block)
    answers += turning
    if not used[0]:
        unit = "rad" if fit is None or fit.joint_scale == 1.0 else "deg"
        joints_at = fit.joints if fit else None
        joint_block, joint_found = joint_action_answers(tracks, joints_at, unit, rate.value)
        answers += joint_found
        used.append(joint_block)
    taken = (*known, reading.block if reading else None, *used)
    height = [p[:, 2] for p in path] if path else None
    answers += gripper_answers(tracks, taken, height, lag)
    joints = [p * fit.joint_scale for p in tracks.parts(fit.joints)] if fit else None
    scene = model if isinstance(model, SceneModel) else None
    return [*answers, rate, *camera_answers(raw, tracks, scene, joints)]


def _orientation(tracks: Tracks, reading: Reading | None) -> list[Rotation] | None:
    return None if reading is None else rotations(tracks, reading)
