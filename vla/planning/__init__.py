"""Long instructions: what a person says becomes sentences that a policy can follow, one after the other.

::

    "open the drawer, then press the button" ─► Planner ─► sentences ─► Follower (an operator of the loop)
                                                                            ▲
                                             success, as the robot or a judge (``planning.judge``) sees it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vla.errors import ConfigError, UnknownNameError, VlaError

#: Kinds of planners, and what stands behind the colon.
PLANNERS = {"rules": "", "openai": "MODEL@URL", "local": "FOLDER"}


class PlanError(VlaError, ValueError):
    """An instruction that cannot be taken apart, or an answer that is no plan."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a planner may know of the table.

    Args:
        things: what is there, by the names a person gives it; empty where nobody can tell.
        sentences: one for each thing that can be asked of it now; empty where nobody can tell.
    """

    things: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()


class Planner(Protocol):
    """Takes an instruction apart."""

    def plan(self, text: str, scene: Scene) -> tuple[str, ...]:
        """Sentences to be followed in this order, at least one.

        Raises:
            PlanError: there is nothing to follow in it.
        """
        ...


def make_planner(spec: str) -> Planner:
    """``rules``, ``openai:MODEL@URL`` (any endpoint that takes OpenAI's chat completions) or ``local:FOLDER``
    (a transformers language model).

    Raises:
        ConfigError, UnknownNameError: no such planner, or it is not said which model.
    """
    kind, _, rest = spec.partition(":")
    if kind not in PLANNERS:
        raise UnknownNameError("planner", kind, PLANNERS)
    if bool(rest) != bool(PLANNERS[kind]):
        raise ConfigError(f"Planner {spec!r}: expected {':'.join(filter(None, (kind, PLANNERS[kind])))}.")
    if kind == "rules":
        from vla.planning.rules import RulePlanner

        return RulePlanner()
    from vla.planning.language import LanguagePlanner, make_chat

    return LanguagePlanner(make_chat(spec))
