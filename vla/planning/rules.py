"""The planner without a model: it splits where a person says "then", and clears a table thing by thing."""

from __future__ import annotations

import re

from vla.planning import PlanError, Scene

#: What stands between one thing to do and the next.
_NEXT = re.compile(
    r"\s*(?:;|[.!]\s|,?\s*\b(?:and\s+)?(?:then|afterwards|after\s+that|next|finally|lastly)\b,?)\s*", re.I
)
#: What a person begins a list with.
_OPENING = re.compile(r"^(?:first(?:ly)?|to\s+begin\s+with|start\s+by|now)\b,?\s*", re.I)
#: ``A before B`` is A, B; ``before B, A`` and ``after A, B`` stand the other way round or as they are.
_BEFORE = re.compile(r"^(?P<first>.+?),?\s+before\s+(?:you\s+)?(?P<second>.+)$", re.I)
_BEFORE_FIRST = re.compile(r"^before\s+(?:you\s+)?(?P<second>[^,]+),\s*(?P<first>.+)$", re.I)
_AFTER_FIRST = re.compile(r"^(?:after|once)\s+(?:you\s+)?(?P<first>[^,]+),\s*(?P<second>.+)$", re.I)
#: "... and push the green cube ...": another thing is done. "take the cube and put it there" is one.
_VERBS = "close|drop|grab|insert|knock|lift|move|open|pick|place|press|push|put|rotate|set|slide|stack"
_VERBS += "|take|turn|unstack"
_AND = re.compile(rf"\s*,?\s+and\s+(?=(?:{_VERBS})\b(?:\s+(?:up|down|over|on))?\s+(?:the|a|an)\b)", re.I)
#: What stands behind the name of a thing.
_BEHIND = "in|into|on|onto|to|at|off|from|over|up|down|left|right|behind|beside|next|and|with|clockwise"
_THING = re.compile(rf"\bthe\s+((?:[\w-]+\s+){{0,3}}?[\w-]+?)(?=\s+(?:{_BEHIND})\b|[,.;!]|$)", re.I)
_PRONOUN = re.compile(r"\b(it|that one|this one)\b", re.I)
_CLEAR = re.compile(r"^(?:please\s+)?(?:clear|tidy|clean)(?:\s+up)?\s+(?:the\s+table|everything|up)$", re.I)
_PUT_AWAY = re.compile(r"^put the .+ in(?:to)? the ", re.I)


class RulePlanner:
    """Splits at ``then``, ``;``, full stops, ``before``, ``after``, and ``and`` where another thing is done.

    "it" at the start of a part's object means the thing that the part before it acted on. "Clear the table"
    puts away whatever the scene says can be put into something.
    """

    def plan(self, text: str, scene: Scene) -> tuple[str, ...]:
        parts = [part for clause in _split(_NEXT, text.strip().rstrip(".!")) for part in _ordered(clause)]
        steps: list[str] = []
        last = ""
        for raw in (piece for part in parts for piece in _split(_AND, part)):
            part = _OPENING.sub("", raw).strip(" ,")
            if _CLEAR.match(part):
                steps += _put_away(part, scene)
                continue
            part = _named(part, last) if steps else part
            last = _acted_on(part) or last
            steps.append(part)
        if not steps:
            raise PlanError(f"There is nothing to do in {text!r}.")
        return tuple(steps)


def _split(pattern: re.Pattern[str], text: str) -> list[str]:
    return [part for part in (piece.strip(" ,") for piece in pattern.split(text)) if part]


def _ordered(clause: str) -> list[str]:
    """Two things said with ``before`` or ``after``, in the order in which they are to be done."""
    for pattern in (_BEFORE_FIRST, _AFTER_FIRST, _BEFORE):
        if found := pattern.match(clause):
            return [*_ordered(found["first"]), *_ordered(found["second"])]
    return [clause]


def _acted_on(part: str) -> str:
    """The first thing that is named, e.g. ``red cube``."""
    found = _THING.search(part)
    return found[1] if found else ""


def _named(part: str, thing: str) -> str:
    """With the pronoun replaced by the thing it stands for, where the part names none before it."""
    found, other = _PRONOUN.search(part), _THING.search(part)
    if not thing or found is None or (other is not None and other.start() < found.start()):
        return part
    return f"{part[: found.start()]}the {thing}{part[found.end() :]}"


def _put_away(part: str, scene: Scene) -> list[str]:
    """For each thing the first sentence that puts it into something."""
    away: dict[str, str] = {}
    for sentence in scene.sentences:
        if _PUT_AWAY.match(sentence):
            away.setdefault(_acted_on(sentence), sentence)
    if not away:
        raise PlanError(
            f"{part!r}: nothing here can be put into anything. "
            f"Things: {', '.join(scene.things) or 'unknown'}."
        )
    return list(away.values())
