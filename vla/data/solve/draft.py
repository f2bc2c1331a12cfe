"""What a person still has to say: the answers file of a data set that the solver could not solve alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vla.data.solve.answers import Answer, Solution
from vla.data.solve.describe import needed, refused_besides
from vla.data.solve.forms import form_of
from vla.errors import DatasetError
from vla.files import read_json, write_json

UNANSWERED = "?"
_REFUSED = "_refused"  # keys that begin so are for people


def write_draft(solution: Solution, path: Path) -> list[str]:
    """Write ``{question: answer}`` with ``"?"`` where an answer is needed and was refused; returns these.

    How each is written and why it was refused stand beside them, and what was refused that the file can do
    without.
    Filled in, it is given as ``vla data solve --answers``.
    """
    answers = solution.answers
    missing = [q for q in needed(answers) if q not in answers or answers[q].value is None]
    content: dict[str, Any] = {q: a.value for q, a in answers.items() if a.value is not None}
    content |= dict.fromkeys(missing, UNANSWERED)
    content["_how_to_answer"] = {q: form_of(q) for q in missing}
    content[_REFUSED] = _reasons(answers, missing)
    content[f"{_REFUSED}_besides"] = _reasons(answers, refused_besides(answers))
    write_json(path, content)
    return missing


def _reasons(answers: Mapping[str, Answer], questions: Sequence[str]) -> dict[str, str]:
    return {q: answers[q].refused if q in answers else "not asked" for q in questions}


def read_given(path: Path) -> dict[str, Any]:
    """The answers of a file that a person wrote or filled in.

    Raises:
        DatasetError: no such file, no JSON object, or entries that are still to be answered.
    """
    content: Mapping[str, Any] = read_json(path, DatasetError, "It holds {question: answer}.")
    given = {q: value for q, value in content.items() if not q.startswith("_")}
    if open_ := [q for q, value in given.items() if value == UNANSWERED]:
        raise DatasetError(
            f"{path} is a draft, these are still to be answered: {', '.join(open_)}. Put the answer in the "
            'place of "?"; null says that the data set has no such thing; without the entry it is looked for.'
        )
    return given
