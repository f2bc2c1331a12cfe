"""Answers -> the embodiment file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vla.data.description import CameraRule, ColumnRule, DatasetDescription, SourceFrame
from vla.data.solve.answers import ABSENT, ACCEPT, QUESTIONS, Answer, Solution
from vla.data.solve.first_actions import without_placeholders
from vla.data.solve.forms import check_form
from vla.data.solve.ranges import with_measured_ranges
from vla.embodiment import Camera, CameraRole, Embodiment, Field
from vla.errors import DatasetError

# ranges of the draft; those of the data replace them (ranges.py)
_HALF_TURN = float(np.pi)
_REACH_M = 3.0
_STEP_M = 0.5

_Parts = tuple[list[Field], list[ColumnRule]]


def describe(solution: Solution) -> DatasetDescription:
    """See :meth:`vla.data.solve.answers.Solution.description`."""
    _require(solution)
    state, action = ([], []), ([], [])
    _state(solution, state)
    _action(solution, action)
    cameras, camera_rules = _cameras(solution)
    embodiment = Embodiment(
        name=_name(solution),
        cameras=tuple(cameras),
        state=tuple(state[0]),
        action=tuple(action[0]),
        control_hz=float(solution.value("control_hz")),
    )
    draft = DatasetDescription(
        embodiment=embodiment,
        state=tuple(state[1]),
        action=tuple(action[1]),
        cameras=tuple(camera_rules),
        action_lag=int(solution.value("action_lag") or 0),
        evidence={a.question: _evidence(a) for a in solution.answers.values()},
    )
    return with_measured_ranges(solution.raw, without_placeholders(solution.raw, draft))


def needed(answers: Mapping[str, Answer]) -> list[str]:
    """Questions without whose answer no embodiment file can be written."""
    always = ["control_hz", "action_lag"]
    cameras = [q for q in answers if q.startswith("camera.")]
    joint = answers.get("joint_action")
    if (
        joint and joint.value != ABSENT and joint.confidence >= ACCEPT
    ):  # a refused one may be sure to be there
        always += ["joint_action", "joint_action_unit", "joints", "joint_unit"]
        return [*always, "gripper_action", *cameras]
    always += ["action_position", "action_mode", "action_frame", "action_unit"]
    for question in ("position", "rotation", "action_rotation"):
        gone = question in answers and answers[question].value == ABSENT
        always += [question] if gone else [question, f"{question}_unit"]
    return [*always, "gripper_action", *cameras]


def _can_be_absent(question: str, solution: Solution) -> bool:
    """Whether a data set can do without what a question asks for."""
    if question in ("position", "rotation", "action_rotation", "gripper_action", "gripper_state"):
        return True
    if question == "joint_action":
        return True
    return question.startswith("camera.") or (
        question == "joints" and solution.value("joint_action") in (None, ABSENT)
    )


def _require(solution: Solution) -> None:
    answers = solution.answers
    for question in needed(answers):
        if solution.value(question) == ABSENT and not _can_be_absent(question, solution):
            raise DatasetError(
                f"{solution.raw.path}: {question!r} was given as null, but every data set has one: give its "
                "answer, or leave it out of the JSON file to have it looked for. null is for "
                f"{', '.join(q for q in answers if _can_be_absent(q, solution))}."
            )
        if solution.value(question) not in (None, ABSENT):
            check_form(f"{solution.raw.path}: answer to {question!r}", question, solution.value(question))
    missing = [q for q in needed(answers) if q not in answers or answers[q].value is None]
    if missing:
        raise DatasetError(
            f"No embodiment file for {solution.raw.path}: answers that it needs were refused.\n"
            f"{solution.refusals(missing)}\n{_others(solution)}"
            "Give them in a JSON file {question: answer} with --answers; null says that the data set has "
            "no such thing."
        )


def refused_besides(answers: Mapping[str, Answer]) -> list[str]:
    """Questions that the file can do without and that have no answer either."""
    other = [q for q in dict.fromkeys([*QUESTIONS, *answers]) if q not in needed(answers)]
    return [
        q
        for q in other
        if (q not in answers and q.startswith("joint_action")) or (q in answers and answers[q].refused)
    ]


def _others(solution: Solution) -> str:
    others = refused_besides(solution.answers)
    if not others:
        return ""
    return (
        "No answer either, and needed only for more fields of the state, or for an action in joint space\n"
        "(joint_action, joint_action_unit, joints, joint_unit in place of action_* and the pose):\n"
        f"{solution.refusals(others)}\n"
    )


def _state(solution: Solution, parts: _Parts) -> None:
    position, rotation = _given(solution, "position"), _given(solution, "rotation")
    if position is not None:
        unit = solution.value("position_unit")
        _vector(parts, "tcp_position", "tcp_position", position, unit, "m", "absolute", _REACH_M)
    if rotation is not None:
        _rotation(parts, "tcp_rotation", rotation, solution.value("rotation_unit"))
    joints = _given(solution, "joints")
    if joints is not None and joints["size"] <= 8:
        _joints(parts, joints, solution.value("joint_unit"), "joint_position", "absolute")
    _gripper(parts, _given(solution, "gripper_state"), "gripper_opening", closed=0.0, opened=1.0)


def _action(solution: Solution, parts: _Parts) -> None:
    joints = _given(solution, "joint_action")
    if joints is not None:
        absolute = joints["mode"] == "absolute"
        slot, unit = "joint_position" if absolute else "joint_delta", solution.value("joint_action_unit")
        _joints(parts, joints, unit, slot, "absolute" if absolute else "delta")
    else:
        _tool_action(solution, parts)
    _gripper(parts, _given(solution, "gripper_action"), "gripper", closed=1.0, opened=-1.0)


def _tool_action(solution: Solution, parts: _Parts) -> None:
    frame: SourceFrame = "tool" if solution.value("action_frame") == "tool" else ""
    position, unit = solution.value("action_position"), solution.value("action_unit")
    rotation, turn_unit = _given(solution, "action_rotation"), solution.value("action_rotation_unit")
    if solution.value("action_mode") == "absolute":
        _vector(parts, "tcp_position", "tcp_position", position, unit, "m", "absolute", _REACH_M)
        if rotation is not None:
            _rotation(parts, "tcp_rotation", rotation, turn_unit)
        return
    slot = "tcp_position_delta"
    _vector(parts, slot, slot, position, unit, "m/step", "delta", _STEP_M, frame=frame)
    if rotation is None:
        return
    yaw = rotation["format"] == "yaw"
    if yaw and frame:
        raise DatasetError(
            f"{solution.raw.path}: a single turn a step in the tool's frame has no field to go to. Store "
            "three numbers, or give 'action_rotation': null to leave it out."
        )
    size = 1 if yaw else 3
    parts[0].append(
        Field(
            name="tcp_yaw_delta" if yaw else "tcp_rotation_delta", size=size, unit="rad/step", frame="world",
            mode="delta", low=(-_HALF_TURN,) * size, high=(_HALF_TURN,) * size,
            slot="arm0.tcp_rotation_delta", slot_start=2 if yaw else 0,
            rotation_format="yaw" if yaw else "rotvec",
        )
    )  # fmt: skip
    parts[1].append(
        ColumnRule(
            field=parts[0][-1].name, column=rotation["column"], start=rotation["start"], unit=turn_unit,
            frame=frame,
        )
    )  # fmt: skip


def _vector(
    parts: _Parts,
    name: str,
    slot: str,
    value: Mapping[str, Any],
    stored: str,
    unit: str,
    mode: Any,
    limit: float,
    frame: SourceFrame = "",
) -> None:
    """Three entries: one field where they are in order, else one a coordinate."""
    axes, signs = value.get("axes", [0, 1, 2]), value.get("signs", [1, 1, 1])
    straight = list(axes) == [0, 1, 2] and list(signs) == [1, 1, 1]
    pieces = [("", 0, 3, 1)] if straight else [(f"_{c}", i, 1, signs[i]) for i, c in enumerate("xyz")]
    for suffix, first, size, sign in pieces:
        parts[0].append(
            Field(
                name=name + suffix, size=size, unit=unit, frame="world", mode=mode, low=(-limit,) * size,
                high=(limit,) * size, slot=f"arm0.{slot}", slot_start=first,
            )
        )  # fmt: skip
        start = value["start"] + (0 if straight else axes[first])
        parts[1].append(
            ColumnRule(
                field=name + suffix,
                column=value["column"],
                start=start,
                unit=stored,
                scale=float(sign),
                frame=frame,
            )
        )


def _rotation(parts: _Parts, name: str, value: Mapping[str, Any], unit: str) -> None:
    parts[0].append(
        Field(
            name=name, size=6, unit="rad" if unit else "1", frame="world", mode="absolute", low=(-1.01,) * 6,
            high=(1.01,) * 6, slot="arm0.tcp_rotation", rotation_format="matrix_6d",
        )
    )  # fmt: skip
    written = value["format"]
    parts[1].append(
        ColumnRule(field=name, column=value["column"], start=value["start"], unit=unit, rotation=written)
    )


def _joints(parts: _Parts, value: Mapping[str, Any], unit: str, slot: str, mode: Any) -> None:
    size, per = int(value["size"]), "/step" if mode == "delta" else ""
    limit = 2 * _HALF_TURN
    parts[0].append(
        Field(
            name=slot, size=size, unit=f"rad{per}", frame="joint", mode=mode, low=(-limit,) * size,
            high=(limit,) * size, slot=f"arm0.{slot}",
        )
    )  # fmt: skip
    parts[1].append(ColumnRule(field=slot, column=value["column"], start=value["start"], unit=unit))


def _gripper(parts: _Parts, value: Any, name: str, *, closed: float, opened: float) -> None:
    if value is None:
        return
    scale = (closed - opened) / (float(value["closed"]) - float(value["open"]))
    offset = opened - scale * float(value["open"])
    state = name == "gripper_opening"
    parts[0].append(
        Field(
            name=name, size=1, unit="1", frame="none", mode="absolute", low=(-0.2,) if state else (-1.0,),
            high=(1.2,) if state else (1.0,), slot=f"arm0.{name}",
            gripper_sign="positive_opens" if state else "positive_closes",
        )
    )  # fmt: skip
    parts[1].append(
        ColumnRule(
            field=name, column=value["column"], start=value["start"], scale=scale + 0.0, offset=offset + 0.0
        )
    )


def _cameras(solution: Solution) -> tuple[list[Camera], list[CameraRule]]:
    cameras, rules = [], []
    for question in solution.answers:
        value = _given(solution, question) if question.startswith("camera.") else None
        if value is None:
            continue
        column = question.removeprefix("camera.")
        raw = solution.raw.cameras[column]
        role: CameraRole = value.get("role", value["camera"])
        cameras.append(Camera(name=value["camera"], role=role, height=raw.height, width=raw.width))
        rules.append(
            CameraRule(
                camera=value["camera"],
                column=column,
                flip=value.get("flip", "none"),
                bgr=value.get("bgr", False),
            )
        )
    return cameras, rules


def _given(solution: Solution, question: str) -> Any:
    """The answer; None also where ``absent`` says that the data have no such thing."""
    value = solution.value(question)
    return None if value == ABSENT else value


def _evidence(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer.value,
        "confidence": round(answer.confidence, 3),
        "evidence": f"refused: {answer.refused}" if answer.refused else answer.evidence,
    }


def _name(solution: Solution) -> str:
    name = solution.raw.robot or solution.raw.path.name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name) or "arm"
