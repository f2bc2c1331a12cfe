"""Answers that a person gives: of the right kind, about columns that there are, and used to go on from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from vla.data.description import ROTATION_SIZES
from vla.data.solve.answers import ABSENT, QUESTIONS, Answer
from vla.data.solve.forms import check_form, keys_of
from vla.data.solve.rotation import FORMATS, Reading
from vla.data.solve.tracks import Block, Tracks
from vla.data.source import RawDataset
from vla.errors import DatasetError, UnknownNameError


def read_answers(raw: RawDataset, given: Mapping[str, Any]) -> dict[str, Any]:
    """The same with :data:`ABSENT` for null.

    Raises:
        UnknownNameError: an answer to no question, or about no column.
        DatasetError: an answer that is not of the kind that its question asks for.
    """
    known = dict.fromkeys([*QUESTIONS, *(f"camera.{name}" for name in raw.cameras)])
    out: dict[str, Any] = {}
    for question, value in given.items():
        if question not in known:
            raise UnknownNameError("question of the solver", question, known)
        out[question] = ABSENT if value is None else value
        if out[question] != ABSENT:
            _check(raw, question, value)
    return out


def _check(raw: RawDataset, question: str, value: Any) -> None:
    where = f"{raw.path}: answer to {question!r}"
    check_form(where, question, value)
    if "column" not in keys_of(question):
        return
    if value["column"] not in raw.columns:
        raise UnknownNameError(f"column in {where}", value["column"], raw.columns)
    start, size, width = value["start"], _size(question, value), raw.columns[value["column"]].size
    if not isinstance(start, int) or not 0 <= start <= width - size:
        raise DatasetError(
            f"{where} starts at {start!r}, expected {size} entries within the {width} of {value['column']!r}."
        )


def _size(question: str, value: Mapping[str, Any]) -> int:
    if "size" in value:
        return int(value["size"])
    return 3 if question.endswith("position") else ROTATION_SIZES.get(value.get("format", ""), 1)


def given_block(tracks: Tracks, given: Mapping[str, Any], question: str) -> Block | None:
    """Where a given answer says that something is; None where none is given."""
    value = given.get(question)
    if not isinstance(value, Mapping) or value["column"] not in tracks.episodes:
        return None
    return Block(column=value["column"], start=value["start"], size=_size(question, value))


def given_reading(tracks: Tracks, given: Mapping[str, Any]) -> Reading | None:
    """How a given answer says that the orientation in the state is written."""
    block = given_block(tracks, given, "rotation")
    if block is None or given["rotation"]["format"] not in FORMATS:
        return None
    unit = given.get("rotation_unit")
    return Reading(block=block, format=given["rotation"]["format"], unit="deg" if unit == "deg" else "rad")


def given_mode(given: Mapping[str, Any], *questions: str) -> str | None:
    """Whether answers to these say that the action is a change a step ("delta") or a "velocity"; or None.

    Raises:
        DatasetError: one says a change, another a speed.
    """
    said: dict[str, str] = {}
    for question in questions:
        value = given.get(question)
        word = str(value.get("mode") if isinstance(value, Mapping) else value)
        if word.endswith("/s") or word == "velocity":
            said[question] = "velocity"
        elif word.endswith("/step") or word == "delta":
            said[question] = "delta"
    if len(set(said.values())) > 1:
        words = ", ".join(f"{question} {given[question]!r} ({mode})" for question, mode in said.items())
        raise DatasetError(f"Answers that contradict each other: {words}. Leave the wrong one out.")
    return next(iter(said.values()), None)


def replaced(answers: Mapping[str, Answer], given: Mapping[str, Any]) -> dict[str, Answer]:
    """The answers with those given in their places. What a given place leaves out (the axes of a position) is
    taken from what was found at the same place."""
    out = dict(answers)
    for question, value in given.items():
        found = answers[question].value if question in answers else None
        whole = value
        if isinstance(value, Mapping) and isinstance(found, Mapping) and _same_place(value, found):
            whole = {**found, **value}
        out[question] = Answer(question=question, value=whole, confidence=1.0, evidence="given")
    return out


def _same_place(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    keys: Collection[str] = ("column", "start")
    return all(key in one and key in other and one[key] == other[key] for key in keys)
