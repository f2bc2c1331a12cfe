"""What is said of a data set (published, written beside it, carried by a store) against what its data say.

A convention that is said wrongly costs as much as one that is guessed wrongly, and nobody looks at it again:
whatever the solver can see for itself is compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vla.data.description import ColumnRule, DatasetDescription
from vla.data.solve.answers import Solution, short
from vla.data.solve.rotation import FORMATS
from vla.data.source import RawDataset
from vla.embodiment import Field
from vla.text import prose_table

Verdict = Literal["agrees", "as stated", "CONTRADICTS", "not seen"]
_RATES_AGREE = 0.03


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One convention: as it is said and as it was found; ``as stated``: found in nothing but a statement."""

    question: str
    said: Any
    found: Any
    verdict: Verdict
    why: str


def stated(description: DatasetDescription) -> dict[str, Any]:
    """The answers that a description gives to the solver's questions, as far as it has them (of one arm).

    None: there is no right answer (numbers scaled to a range have no unit).
    """
    arm, out = description.embodiment, dict[str, Any]()
    out |= {"control_hz": arm.control_hz, "action_lag": description.action_lag}
    for of_state, members, rules in (
        (True, arm.state, description.state),
        (False, arm.action, description.action),
    ):
        by_name = {rule.field: rule for rule in rules}
        slots: dict[str, list[tuple[Field, ColumnRule]]] = {}
        for member in members:
            slots.setdefault(member.slot, []).append((member, by_name[member.name]))
        for slot, parts in slots.items():
            name = slot.removeprefix("arm0.")
            if name != slot:
                out |= _of_state(name, parts) if of_state else _of_action(name, parts)
    roles = {camera.name: camera.role for camera in arm.cameras}
    for rule in description.cameras:
        out[f"camera.{rule.column}"] = {"camera": roles[rule.camera], "flip": rule.flip, "bgr": rule.bgr}
    return out


def named(raw: RawDataset) -> dict[str, Any]:
    """Places that the names of the entries state (``x y z``, ``qx qy qz qw``, ``gripper``); no units."""
    out: dict[str, Any] = {}
    for column in raw.columns.values():
        last = re.split(r"[./]", column.name)[-1]
        if not column.names or last not in ("state", "action", "actions"):
            continue
        prefix, names = ("" if last == "state" else "action_"), [name.lower() for name in column.names]
        found: dict[str, dict[str, Any]] = {}
        for question, words, more in _NAMES:
            if (start := _run(names, words)) is not None:
                found[prefix + question] = {"column": column.name, "start": start, **more}
        grips = [i for i, name in enumerate(names) if "grip" in name]
        if len(grips) == 1:
            question = "gripper_action" if prefix else "gripper_state"
            found[question] = {"column": column.name, "start": grips[0]}
        joints = [i for i, name in enumerate(names) if _JOINT.search(name) and "grip" not in name]
        if len(joints) >= 4 and joints == list(range(joints[0], joints[0] + len(joints))):
            found["joint_action" if prefix else "joints"] = {
                "column": column.name, "start": joints[0], "size": len(joints),
            }  # fmt: skip
        out |= found
    return out


def compare(solution: Solution, said: Mapping[str, Any]) -> list[Comparison]:
    """Each convention that is said, against what was found. An answer to joints where the tool is said to be
    moved, or the other way round, contradicts as well."""
    found = {q: a for q, a in solution.answers.items() if not a.refused}
    rows = []
    for question, value in said.items():
        answer = found.get(question)
        if answer is None:
            rival = _OTHERWISE.get(question, "")
            other = found.get(rival)
            refused = solution.answers[question].refused if question in solution.answers else "not asked"
            rows.append(
                Comparison(question=question, said=value, found=None, verdict="not seen", why=refused)
                if other is None or rival in said or value is None
                else Comparison(
                    question=question, said=value, found={rival: other.value}, verdict="CONTRADICTS",
                    why=other.evidence,
                )
            )  # fmt: skip
            continue
        verdict: Verdict = "agrees" if _same(question, value, answer.value) else "CONTRADICTS"
        alone = solution.raw.control_hz is not None and answer.confidence < 0.7
        if question == "control_hz" and verdict == "agrees" and alone:
            verdict = "as stated"  # nothing but the file tells the rate
        rows.append(
            Comparison(
                question=question, said=value, found=answer.value, verdict=verdict, why=answer.evidence
            )
        )
    return rows


def comparison_table(rows: Sequence[Comparison]) -> str:
    """For people: one line a convention that the data show."""
    shown = [
        [
            row.question,
            "scaled" if row.said is None else short(row.said),
            short(row.found),
            f"{row.verdict}: {row.why}" if row.verdict == "CONTRADICTS" else row.verdict,
        ]
        for row in rows
        if row.verdict != "not seen"
    ]
    return prose_table(["convention", "said", "found", "verdict"], shown) if shown else ""


#: Where one of these is said and the other found, one of the two is wrong.
_OTHERWISE = {"action_position": "joint_action", "joint_action": "action_position"}
_JOINT = re.compile(r"joint|motor|shoulder|elbow|wrist|waist|forearm")
_NAMES: tuple[tuple[str, tuple[str, ...], Mapping[str, Any]], ...] = (
    ("position", ("x", "y", "z"), {}),
    ("rotation", ("qx", "qy", "qz", "qw"), {"format": "quat_xyzw"}),
    ("rotation", ("qw", "qx", "qy", "qz"), {"format": "quat_wxyz"}),
    ("rotation", ("roll", "pitch", "yaw"), {}),
    ("rotation", ("rx", "ry", "rz"), {}),
)


def _run(names: Sequence[str], words: Sequence[str]) -> int | None:
    """Where entries of these names stand side by side, with any one prefix; None: nowhere, or twice."""
    found = []
    for start in range(len(names) - len(words) + 1):
        heads = {
            name[: -len(word)] if name.endswith(word) else None
            for name, word in zip(names[start:], words, strict=False)
        }
        head = heads.pop() if len(heads) == 1 else None
        if head is not None and (not head or not head[-1].isalnum() or head in ("d", "delta")):
            found.append(start)
    return found[0] if len(found) == 1 else None


def _of_state(name: str, parts: list[tuple[Field, ColumnRule]]) -> dict[str, Any]:
    member, rule = parts[0]
    if name == "tcp_position":
        placed = _vector(parts)
        return {} if placed is None else {"position": placed, "position_unit": _unit(member, rule)}
    if name == "tcp_rotation":
        return _rotation(member, rule, "rotation")
    if name == "joint_position" and len(parts) == 1:
        return {"joints": _at(rule, size=member.size), "joint_unit": _unit(member, rule)}
    if name == "gripper_opening":
        return {"gripper_state": _ends(rule, opened=1.0, closed=0.0)}
    return {}


def _of_action(name: str, parts: list[tuple[Field, ColumnRule]]) -> dict[str, Any]:
    member, rule = parts[0]
    unit = _unit(member, rule)
    if name in ("tcp_position", "tcp_position_delta"):
        placed = _vector(parts)
        tool = "tool" in (rule.frame, member.frame)
        moves = "velocity" if (unit or "").endswith("/s") else member.mode
        return {} if placed is None else {
            "action_position": placed, "action_mode": moves, "action_frame": "tool" if tool else "world",
            "action_unit": unit,
        }  # fmt: skip
    if name == "tcp_rotation":
        return _rotation(member, rule, "action_rotation")
    if name == "tcp_rotation_delta" and len(parts) == 1:
        kind = {"format": "yaw"} if member.size == 1 else {}
        return {"action_rotation": _at(rule, **kind), "action_rotation_unit": unit}
    if name in ("joint_position", "joint_delta", "joint_velocity") and len(parts) == 1:
        moves = "velocity" if (unit or "").endswith("/s") else member.mode
        return {"joint_action": _at(rule, size=member.size, mode=moves), "joint_action_unit": unit}
    if name == "gripper":
        return {"gripper_action": _ends(rule, opened=-1.0, closed=1.0)}
    return {}


def _at(rule: ColumnRule, **more: Any) -> dict[str, Any]:
    return {"column": rule.column, "start": rule.start, **more}


def _unit(member: Field, rule: ColumnRule) -> str | None:
    return (rule.unit or member.unit) if abs(rule.scale) == 1.0 else None


def _vector(parts: list[tuple[Field, ColumnRule]]) -> dict[str, Any] | None:
    """Three entries, in one field or in one a coordinate; None where they are spread over the columns."""
    entries: dict[int, tuple[str, int, int]] = {}
    for member, rule in parts:
        for i in range(member.size):
            entries[member.slot_start + i] = (rule.column, rule.start + i, int(np.sign(rule.scale)))
    starts = [entries[i][1] for i in range(3)] if sorted(entries) == [0, 1, 2] else []
    if not starts or len({column for column, _, _ in entries.values()}) != 1:
        return None
    axes = [start - min(starts) for start in starts]
    if sorted(axes) != [0, 1, 2]:
        return None
    signs = [entries[i][2] for i in range(3)]
    return {"column": entries[0][0], "start": min(starts), "axes": axes, "signs": signs}


def _rotation(member: Field, rule: ColumnRule, question: str) -> dict[str, Any]:
    written = rule.rotation or member.rotation_format
    if written not in FORMATS:
        return {}
    return {question: _at(rule, format=written), f"{question}_unit": "deg" if rule.unit == "deg" else "rad"}


def _ends(rule: ColumnRule, *, opened: float, closed: float) -> dict[str, Any]:
    return _at(
        rule, open=(opened - rule.offset) / rule.scale + 0.0, closed=(closed - rule.offset) / rule.scale + 0.0
    )


def _same(question: str, said: Any, found: Any) -> bool:
    """Whether an answer is what was said; of a gripper only which entry it is and which way it opens."""
    if said is None:
        return False
    if question == "control_hz":
        return abs(found / said - 1) < _RATES_AGREE
    if not isinstance(said, Mapping):
        return said == found
    if question.startswith("camera."):
        found = {**found, "camera": found.get("role", found["camera"])}
    if "open" in said:
        said = {**said, "open": said["open"] > said["closed"]}
        found = {**found, "open": found["open"] > found["closed"]}
        del said["closed"]
    return all(found.get(key) == value for key, value in said.items())
