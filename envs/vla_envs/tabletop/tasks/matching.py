"""From a sentence to the one goal of a scene that it asks for."""

from __future__ import annotations

from collections.abc import Sequence

from vla_envs.tabletop.instructions import TEMPLATES, ParseError, parse_relation, parse_things, parse_verb
from vla_envs.tabletop.tasks.base import Goal


def match_goal(text: str, goals: Sequence[Goal]) -> Goal:
    """The one goal a sentence asks for; raises with what could be said when there is none."""
    verb, things, relation = parse_verb(text), parse_things(text), parse_relation(text)
    for goal in goals:
        if goal.verb not in (verb, "push" if verb == "place" else verb):
            continue
        if goal.relation is not None:
            if relation == goal.relation and set(things) <= set(goal.also_called):
                return goal
            continue
        wanted = [tuple(goal.target_words.split())]
        if goal.destination_words is not None:
            wanted.append(tuple(goal.destination_words.split()))
        if things == wanted:
            return goal
    feasible = "".join(f"\n  {plain_sentence(goal)}" for goal in goals)
    raise ParseError(f"{text!r} names nothing this scene can do. It can:{feasible}")


def plain_sentence(goal: Goal) -> str:
    """The first of the training phrasings of a goal, e.g. "put the red cube in the blue bowl"."""
    template = TEMPLATES[goal.verb]["train"][0]
    return template.format(target=goal.target_words, goal=goal.destination_words, prep=goal.prep)
