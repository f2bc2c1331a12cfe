"""The suite's scripted expert as a policy: reads the simulator's state, so it runs in simulation only."""

from __future__ import annotations

from collections.abc import Sequence

from vla.interfaces import Env, Policy, Suite
from vla.types import ActionChunk, Observation


class ScriptedPolicy:
    """An expert bound to its env: acts on what is in that env now, whatever it is shown."""

    contract: None = None  # made for the env it reads

    def __init__(self, expert: Policy) -> None:
        self.policy = expert

    def reset(self) -> None:
        self.policy.reset()

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        return self.policy.act(observations)


def make(*, suite: Suite, env: Env) -> ScriptedPolicy:
    """The expert of ``suite`` for ``env``."""
    return ScriptedPolicy(suite.expert(env))
