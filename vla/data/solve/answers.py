"""What was asked, what was found, how sure it is, and what it was found from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vla.text import listed, prose_table

if TYPE_CHECKING:
    from vla.data.description import DatasetDescription
    from vla.data.source import RawDataset

ACCEPT = 0.5  # an answer of less confidence is refused
ABSENT = "absent"  # the answer where a person says that the data have no such thing
#: All that is asked of numbers; ``camera.<column>`` besides, of pictures.
QUESTIONS = (
    "joints", "joint_unit", "position", "position_unit", "rotation", "rotation_unit", "rotation_sign_flips",
    "action_position", "action_mode", "action_frame", "action_lag", "action_unit", "action_rotation",
    "action_rotation_unit", "joint_action", "joint_action_unit", "gripper_action", "gripper_state",
    "control_hz",
)  # fmt: skip
_FULL_SUPPORT = 25.0  # informative steps that bring confidence to 63 % of what the margin allows


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to one question.

    Args:
        question: e.g. ``rotation``, ``action_mode``, ``camera.front``.
        value: JSON-able; None where the answer was refused or there is nothing to ask about.
        confidence: 0..1; of a refusal, that there is such a thing all the same.
        evidence: one line with numbers.
        refused: why there is no value; empty where there is one.
    """

    question: str
    value: Any
    confidence: float
    evidence: str
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Every answer about one data set, in order of asking."""

    raw: RawDataset
    answers: Mapping[str, Answer]

    def value(self, question: str) -> Any:
        """The value of an answer; None where it was refused or never asked."""
        answer = self.answers.get(question)
        return None if answer is None else answer.value

    @property
    def refused(self) -> tuple[str, ...]:
        """Questions without an answer."""
        return tuple(name for name, answer in self.answers.items() if answer.refused)

    def table(self) -> str:
        """For people: what was found."""
        rows = [
            [a.question, short(a.value), f"{a.confidence:.2f}", a.evidence]
            for a in self.answers.values()
            if not a.refused
        ]
        return prose_table(["found", "answer", "sure", "evidence"], rows) if rows else "Nothing was found."

    def refusals(self, questions: Iterable[str]) -> str:
        """For people: what has no answer and why; questions refused for one reason stand together."""
        by_reason: dict[str, list[str]] = {}
        for question in questions:
            by_reason.setdefault(_why(self.answers.get(question)), []).append(question)
        return "\n".join(listed(", ".join(names), why) for why, names in by_reason.items())

    def description(self) -> DatasetDescription:
        """The embodiment file.

        Raises:
            DatasetError: answers that it needs were refused; the message lists them with the reasons.
        """
        from vla.data.solve.describe import describe

        return describe(self)


def accept(question: str, value: Any, confidence: float, evidence: str, doubt: str = "") -> Answer:
    """An answer, or its refusal where the confidence is below :data:`ACCEPT`."""
    confidence = float(np.clip(confidence, 0.0, 1.0))
    if confidence >= ACCEPT:
        return Answer(question=question, value=value, confidence=confidence, evidence=evidence)
    return refuse(question, doubt or "the evidence is thin", evidence, confidence)


def refuse(question: str, why: str, evidence: str = "", confidence: float = 0.0) -> Answer:
    return Answer(question=question, value=None, confidence=confidence, evidence=evidence, refused=why)


def confidence_of(score: float, second: float, informative: int) -> float:
    """From the explained shares (1: all) of the best and second best hypothesis and the number of steps.

    The remaining error of the best is compared with that of the second: a third of it is convincing.
    """
    left, left_second = max(1.0 - score, 1e-9), max(1.0 - max(second, 0.0), 1e-9)
    margin = np.clip(np.log(left_second / left) / np.log(3.0), 0.0, 1.0)
    support = 1.0 - np.exp(-informative / _FULL_SUPPORT)
    return float(margin * support * np.clip(score / 0.5, 0.0, 1.0))


def short(value: Any) -> str:
    """A value for a table."""
    if isinstance(value, Mapping) and {"column", "start"} <= set(value):
        rest = {key: item for key, item in value.items() if key not in ("column", "start")}
        return f"{value['column']}[{value['start']}]" + (f", {short(rest)}" if rest else "")
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {short(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "[" + " ".join(short(item) for item in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _why(answer: Answer | None) -> str:
    if answer is None:
        return "not asked: it is told apart only where the action does not move the tool"
    return f"{answer.refused} ({answer.evidence})" if answer.evidence else answer.refused
