"""Executing a part of every chunk before thinking again: a policy that wraps a policy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vla.control.policies import Contract, check_contract, contract_of
from vla.embodiment import Embodiment
from vla.errors import ActionError, ConfigError
from vla.interfaces import Policy
from vla.types import ActionChunk, Observation


@dataclass
class _Plan:
    """A chunk under way: what it answered, and how many of its actions were handed out."""

    chunk: ActionChunk
    instruction: str
    embodiment: str
    used: int


class ChunkExecutor:
    """Hands out one action a step; asks the wrapped policy again after ``execution_horizon`` of them.

    A changed instruction (or arm) discards the rest of the chunk at once: what the person says now
    counts, not what was planned for the sentence before. Observations at the same place of the
    sequence belong to the same env, so that several envs run off one policy; only those that need a
    new chunk are passed on, in one batch.

    Every returned chunk has horizon 1. ``info`` gains ``replanned`` (bool) and, where replanned,
    ``latency_s`` (measured here unless the policy says so itself).

    Args:
        policy: any policy; one whose chunks are shorter is asked again when its chunk is used up.
        execution_horizon: steps to run before replanning, at least 1.
    """

    def __init__(self, policy: Policy, execution_horizon: int) -> None:
        if execution_horizon < 1:
            raise ConfigError(f"execution_horizon is {execution_horizon}; expected at least 1.")
        self.policy = policy
        self.execution_horizon = execution_horizon
        self._plans: dict[int, _Plan] = {}

    @property
    def contract(self) -> Contract | None:
        """That of the wrapped policy."""
        return contract_of(self.policy)

    def check(self, embodiment: Embodiment) -> None:
        """Refuse what the wrapped policy refuses."""
        check_contract(self.policy, embodiment)

    def reset(self) -> None:
        self._plans.clear()
        self.policy.reset()

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        stale = [i for i, observation in enumerate(observations) if self._is_stale(i, observation)]
        if stale:
            self._replan(stale, observations)
        return [self._next(i, replanned=i in stale) for i in range(len(observations))]

    def _is_stale(self, index: int, observation: Observation) -> bool:
        plan = self._plans.get(index)
        if plan is None or plan.used >= min(self.execution_horizon, plan.chunk.horizon):
            return True
        return plan.instruction != observation.instruction or plan.embodiment != observation.embodiment

    def _replan(self, stale: list[int], observations: Sequence[Observation]) -> None:
        started = time.perf_counter()
        asked = [observations[i] for i in stale]
        if len(observations) > 1:  # tell them apart: which of them are stale changes
            asked = [replace(observations[i], episode=i) for i in stale]
        chunks = self.policy.act(asked)
        latency_s = time.perf_counter() - started
        if len(chunks) != len(stale):
            raise ActionError(f"The policy answered {len(stale)} observations with {len(chunks)} chunks.")
        for i, chunk in zip(stale, chunks, strict=True):
            if chunk.horizon < 1:
                raise ActionError(f"The policy answered with an empty chunk: shape {chunk.actions.shape}.")
            info = {"latency_s": latency_s, **chunk.info}
            timed = ActionChunk(actions=chunk.actions, control_hz=chunk.control_hz, info=info)
            self._plans[i] = _Plan(timed, observations[i].instruction, observations[i].embodiment, used=0)

    def _next(self, index: int, *, replanned: bool) -> ActionChunk:
        plan = self._plans[index]
        action = np.asarray(plan.chunk.actions[plan.used : plan.used + 1])
        plan.used += 1
        info = dict(plan.chunk.info)
        if not replanned:
            info.pop("latency_s", None)
        return ActionChunk(
            actions=action, control_hz=plan.chunk.control_hz, info={**info, "replanned": replanned}
        )
