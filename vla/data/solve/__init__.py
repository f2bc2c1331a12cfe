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

import numpy as np

from vla.data.solve.answers import ABSENT, Answer, Solution
from vla.data.solve.given import given_block, given_mode, read_answers, replaced
from vla.data.solve.gripper import gripper_answers
from vla.data.solve.joint_action import joint_action_answers, joints_explain_more
from vla.data.solve.motion import motion_answers, search_motion
from vla.data.solve.pictures import camera_answers
from vla.data.solve.pose import find_pose, orientation
from vla.data.solve.rate import rate_answer
from vla.data.solve.robot import RobotModel, SceneModel
from vla.data.solve.tracks import Tracks, load_tracks
from vla.data.solve.turning import find_turn, turning_answers
from vla.data.solve.units import Rate
from vla.data.source import RawDataset
from vla.errors import DatasetError

__all__ = ["Answer", "Solution", "solve"]

MIN_STEPS = 40


def solve(
    raw: RawDataset, *, model: RobotModel | None = None, given: Mapping[str, Any] | None = None
) -> Solution:
    """Ask every question about a data set.

    Args:
        raw: demonstrations as stored.
        model: the robot, where there is one; a scene of a suite also sees pictures.
        given: answers that a person knows, by question; they replace those found, and what depends on a
            ``position``, ``rotation``, ``joints`` or ``control_hz`` among them is found from them.
            ``"absent"`` (null in a file): the data set has no such thing.

    Raises:
        DatasetError: there is nothing to look at, or a given answer is not of the kind that is asked for.
        UnknownNameError: a given answer to a question that is not asked, or about no column.
    """
    tracks = load_tracks(raw)
    if not tracks.numbers or not tracks.state_columns or tracks.action_column is None:
        missing = "state column" if tracks.action_column else "action column"
        there = ", ".join(f"{c.name} [{c.size}]" for c in raw.columns.values()) or "none"
        raise DatasetError(
            f"{raw.path} has no {missing if tracks.numbers else 'episode of 4 steps'} that can be studied; "
            f"its columns: {there}. Conventions can be found only where both the state and the action are "
            "stored as numbers."
        )
    known = read_answers(raw, given or {})
    answers = {a.question: a for a in _ask(raw, tracks, model, known)}
    return Solution(raw=raw, answers=replaced(answers, known))


def _ask(raw: RawDataset, tracks: Tracks, model: RobotModel | None, given: Mapping[str, Any]) -> list[Answer]:
    of_rate = rate_answer(raw, tracks, model)
    rate = Rate(hz=of_rate.value, sure=of_rate.confidence)
    if "control_hz" in given:
        rate = Rate() if given["control_hz"] == ABSENT else Rate(hz=given["control_hz"], sure=1.0)
    pose = find_pose(tracks, model, given, rate)
    motions, why, turns = pose.motions, pose.why, orientation(tracks, pose.reading)
    if motions and pose.position is not None and pose.path and pose.joints is None and turns is not None:
        motions = search_motion(tracks, {pose.position: pose.path}, turns)
    if motions and pose.joints is not None and joints_explain_more(tracks, pose.joints, motions[0]):
        motions, why = [], "the entries that seem to move the tool move the joints, see joint_action"
    turn = find_turn(tracks, turns, motions)
    mode = given_mode(given, "action_mode", "action_unit", "action_rotation_unit")
    moved = motion_answers(tracks, motions, pose.path or [], turns, rate, why, mode, turn.fit(rate))
    values = {a.question: a.value for a in moved}
    action = motions[0].action if values["action_position"] is not None else None
    lag = motions[0].lag if action is not None else 0
    mode = values["action_mode"] if action is not None else None
    turn_block, turning = turning_answers(
        tracks, turns, action, mode, values["action_frame"], lag, rate, turn
    )
    answers, joint_block = [*pose.answers, *moved, *turning], None
    given_joints = given_block(tracks, given, "joints")
    joints_at = given_joints or pose.joints
    if action is None:
        unit = given.get("joint_unit", pose.joint_unit)
        joint_block, found = joint_action_answers(
            tracks, joints_at, unit, rate, given_mode(given, "joint_action", "joint_action_unit")
        )
        answers += found
    in_state = (pose.position, joints_at, pose.reading.block if pose.reading else None)
    taken = (*in_state, action, turn_block, joint_block)
    height = [p[:, 2] for p in pose.path] if pose.path else None
    answers += gripper_answers(tracks, taken, height, lag)
    scale = 1.0 if pose.joint_unit == "rad" else np.pi / 180
    joints = None if pose.joints is None else [p * scale for p in tracks.parts(pose.joints)]
    scene = model if isinstance(model, SceneModel) else None
    return [*answers, of_rate, *camera_answers(raw, tracks, scene, joints)]
