"""Going on from the middle of an episode under something else: the expert, other words, one camera less.

Everything starts from states that the simulator saved while the episode was replayed, so that what differs is
what was changed and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vla.control.chunks import ChunkExecutor
from vla.control.loop import LoopResult, run_loop
from vla.control.safety import SafetyConfig, SafetyEnvelope
from vla.interfaces import Env, Policy
from vla.report.video import StateTrace
from vla.robots.sim import SimRobot

#: Guard against an env without a time limit of its own.
MAX_STEPS = 10_000
#: Steps of an episode at which the expert is tried before the gap in between is halved.
LOOKS = 6


@dataclass(frozen=True, kw_only=True)
class Branch:
    """How an episode went on from a step of another one.

    Args:
        name, meaning: what was changed.
        step: of the failed episode, from which it went on.
        instruction: what was said; success is that of this instruction.
        success, wrong, steps: how it ended, see :class:`vla.control.loop.LoopResult`.
        clip: file name of its film, empty if none was made.
    """

    name: str
    meaning: str
    step: int
    instruction: str
    success: bool
    wrong: bool
    steps: int
    clip: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def go_on(
    env: Env,
    policy: Policy,
    state: Mapping[str, Any],
    *,
    execution_horizon: int,
    safety: SafetyConfig | None = None,
    instruction: str | None = None,
) -> tuple[LoopResult, StateTrace]:
    """Run a policy from a saved state to the end of the episode's own time.

    Args:
        env: of the scene that the state is of.
        instruction: said instead of the state's own.

    Returns:
        How it ended, and what can be drawn of it.
    """
    trace = StateTrace(env, size=256)
    robot = SimRobot(env, seed=0, state=state, instruction=instruction)
    result = run_loop(
        robot,
        ChunkExecutor(policy, execution_horizon),
        SafetyEnvelope.of(robot, safety),
        max_steps=MAX_STEPS,
        hooks=(trace,),
    )
    return result, trace


def reachable_until(succeeds: Callable[[int], bool], last: int, looks: int = LOOKS) -> dict[int, bool]:
    """Answers of ``succeeds(step)`` at some steps in 0 .. last, the turning point among them.

    A few steps evenly spread, then the gap behind the last yes is halved until it is closed: where success is
    lost once and for all, the largest step with a yes is the last from which it could be had.
    """
    answers: dict[int, bool] = {}

    def ask(step: int) -> bool:
        if step not in answers:
            answers[step] = succeeds(step)
        return answers[step]

    for step in np.linspace(0, last, min(looks, last + 1)).round().astype(int):
        ask(int(step))
    possible = [step for step, yes in answers.items() if yes]
    if possible and max(possible) < last:
        low = max(possible)
        high = min(step for step in answers if step > low)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if ask(middle) else (low, middle)
    return dict(sorted(answers.items()))
