"""Where the state has the tool and how it points: by the robot model, by the action, or as a person says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla.data.solve.answers import Answer, accept, refuse
from vla.data.solve.given import given_block, given_reading
from vla.data.solve.kinematics import (
    LENGTH_UNITS,
    ArmFit,
    arm_answers,
    canonical_position,
    fit_arm,
    rests_along,
)
from vla.data.solve.motion import Motion, search_motion
from vla.data.solve.robot import RobotModel
from vla.data.solve.rotation import Reading, rotation_from_arm, rotations
from vla.data.solve.tracks import Block, Tracks
from vla.data.solve.units import Rate
from vla.data.solve.unmodelled import plausible_unit, position_without_model, rotation_without_model

_UNKNOWN = "the tool's position in the state is unknown"


@dataclass(frozen=True, kw_only=True)
class Pose:
    """What is known of the tool, and the answers that say so.

    ``path`` is its position [T 3] of each episode, m, and ``motions`` how the action may move it, best first;
    without them ``why`` says why not. ``joints`` are in ``joint_unit``.
    """

    answers: list[Answer]
    motions: list[Motion]
    position: Block | None = None
    path: list[np.ndarray] | None = None
    reading: Reading | None = None
    joints: Block | None = None
    joint_unit: str = "rad"
    why: str = ""


def find_pose(tracks: Tracks, model: RobotModel | None, given: Mapping[str, Any], rate: Rate) -> Pose:
    """Questions about joints, position and rotation in the state.

    Args:
        given: answers that are known; a ``position`` or ``rotation`` among them is gone on from.
        rate: steps a second, where known.
    """
    at = given_block(tracks, given, "position")
    fit = None if model is None else fit_arm(tracks, model, at)
    answers = arm_answers(tracks, model, fit)
    found = {answer.question: answer.value for answer in answers}
    joints, of_position = answers[:2], answers[2:]
    if fit is not None and model is not None and found["joints"] is not None and _as_given(fit, given):
        return _modelled(tracks, model, fit, joints, of_position, given)
    if at is not None:
        return _as_said(tracks, joints, at, given)
    if fit is not None:  # two arms, or too little to see: the model was there and settled nothing
        why = f"{_UNKNOWN}: {joints[0].refused}"
        return Pose(answers=[*answers, *_no_rotation(why)], motions=[], why=why)
    guess = position_without_model(tracks, rate)
    reading, turning = _reading(tracks, guess.motions, guess.position, given)
    return Pose(
        answers=[*joints, *guess.answers, *turning], motions=guess.motions, position=guess.position,
        path=guess.path, reading=reading, why=guess.why,
    )  # fmt: skip


def _modelled(
    tracks: Tracks,
    model: RobotModel,
    fit: ArmFit,
    joints: list[Answer],
    of_position: list[Answer],
    given: Mapping[str, Any],
) -> Pose:
    """Position and orientation as forward kinematics confirms them."""
    joint_unit = "rad" if fit.joint_scale == 1.0 else "deg"
    if of_position[0].refused:
        why = f"{_UNKNOWN}: {of_position[0].refused}"
        return Pose(
            answers=[*joints, *of_position, *_no_rotation(why)], motions=[], joints=fit.joints,
            joint_unit=joint_unit, why=why,
        )  # fmt: skip
    scale = LENGTH_UNITS.get(given.get("position_unit", ""), fit.scale_m)
    path = canonical_position(tracks, fit.position, scale, fit.axes, fit.signs)
    turned = fit.base * model.forward(tracks.stacked(fit.joints) * fit.joint_scale)[1]
    reading, turning = rotation_from_arm(tracks, turned, (fit.joints, fit.position))
    reading = given_reading(tracks, given) or reading
    motions = search_motion(tracks, {fit.position: path}, orientation(tracks, reading))
    return Pose(
        answers=[*joints, *of_position, *turning], motions=motions, position=fit.position, path=path,
        reading=reading, joints=fit.joints, joint_unit=joint_unit,
    )  # fmt: skip


def _as_said(tracks: Tracks, joints: list[Answer], at: Block, given: Mapping[str, Any]) -> Pose:
    """The position where a person says it is; its unit, if they do not say that too, as far as it shows."""
    value, unit, said = given["position"], given.get("position_unit"), "given"
    if unit not in LENGTH_UNITS:
        unit, said = plausible_unit(tracks.stacked(at))
    position = Answer(question="position", value=value, confidence=1.0, evidence="given")
    if unit is None:
        why = "the unit of the position is unknown: no one unit makes the numbers an arm's reach"
        answers = [*joints, position, refuse("position_unit", why, said), *_no_rotation(why)]
        return Pose(answers=answers, motions=[], position=at, why=why)
    axes, signs = tuple(value.get("axes", (0, 1, 2))), tuple(value.get("signs", (1, 1, 1)))
    path = canonical_position(tracks, at, LENGTH_UNITS[unit], axes, signs)
    answers = [*joints, position, accept("position_unit", unit, 0.7, said)]
    if rests := rests_along(path):
        return Pose(answers=[*answers, *_no_rotation(rests)], motions=[], position=at, why=rests)
    motions = search_motion(tracks, {at: path}, None)
    reading, turning = _reading(tracks, motions, at, given)
    return Pose(answers=[*answers, *turning], motions=motions, position=at, path=path, reading=reading)


def orientation(tracks: Tracks, reading: Reading | None) -> Any:
    """A ``Rotation`` for each episode; None where it is unknown how it is written."""
    return None if reading is None else rotations(tracks, reading)


def _reading(
    tracks: Tracks, motions: list[Motion], position: Block | None, given: Mapping[str, Any]
) -> tuple[Reading | None, list[Answer]]:
    reading, answers = rotation_without_model(tracks, motions, (position,))
    return given_reading(tracks, given) or reading, answers


def _as_given(fit: ArmFit, given: Mapping[str, Any]) -> bool:
    """Whether the axes of a given position, if any, are those that the model shows."""
    value = given.get("position")
    value = value if isinstance(value, Mapping) else {}
    same_axes = list(value.get("axes", fit.axes)) == list(fit.axes)
    return same_axes and list(value.get("signs", fit.signs)) == list(fit.signs)


def _no_rotation(why: str) -> list[Answer]:
    return [refuse("rotation", why), refuse("rotation_unit", why)]
