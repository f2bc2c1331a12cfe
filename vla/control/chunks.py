"""Executing a part of every chunk before thinking again: a policy that wraps a policy.

What happens while the policy thinks is decided here, for simulators and robots alike (``EXECUTIONS``); how
long that takes, by ``vla.control.latency``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from vla.control.latency import Answer, Replayed, Thinking
from vla.control.policies import Contract, check_continues, check_contract, contract_of
from vla.control.safety import SafetyEnvelope
from vla.embodiment import Embodiment
from vla.errors import ActionError, ConfigError, IncompatibleError, UnknownNameError
from vla.interfaces import Policy
from vla.types import ActionChunk, Observation, Promise

Execution = Literal["sync", "async", "ensemble", "rtc"]
#: execution -> what the arm does while the policy thinks.
EXECUTIONS: Mapping[str, str] = {
    "sync": "the arm holds still",
    "async": "the last chunk is executed on, then the new one from the present moment",
    "ensemble": "the weighted mean of all chunks about the present moment, and the newest one's gripper",
    "rtc": "as async, with chunks made to continue the last one (real-time chunking)",
}

#: m of the ensemble's weights exp(-m i), i = 0 the oldest chunk (Zhao et al. 2023, arXiv:2304.13705).
ENSEMBLE_RATE = 0.01
#: The one rotation besides a yaw that may be averaged: vectors of small turns add up to first order.
SMALL_TURN = ("delta", "rotvec")
#: Last delays of which real-time chunking expects the longest (Black et al. 2025, algorithm 1).
NUM_DELAYS = 10

#: An observation -> one action that keeps the arm where it is.
Hold = Callable[[Observation], ActionChunk]


def holding(envelope: SafetyEnvelope) -> Hold:
    """Keep the arm where it is as its safety envelope does."""

    def hold(observation: Observation) -> ActionChunk:
        action = np.asarray(envelope.hold(observation.state), np.float32)
        return ActionChunk(actions=action[None], control_hz=envelope.embodiment.control_hz)

    return hold


@dataclass(frozen=True)
class _Plan:
    """A chunk, and how many actions had been executed when it was asked for."""

    chunk: ActionChunk
    origin: int


@dataclass(frozen=True)
class _Question:
    """A chunk that was asked for: the answer's row, and when that was in actions, steps and seconds."""

    answer: Answer
    row: int
    origin: int
    step: int
    asked_s: float


@dataclass
class _Course:
    """What one arm is about.

    ``done`` counts executed actions: a chunk is read at ``done`` minus its origin, so that an arm that held
    still is no further in it.
    """

    instruction: str
    embodiment: str
    done: int = 0
    plans: list[_Plan] = field(default_factory=list)
    question: _Question | None = None
    fresh: bool = False

    def live(self) -> list[_Plan]:
        """Chunks with an action for now, oldest first."""
        return [plan for plan in self.plans if self.done - plan.origin < plan.chunk.horizon]


class ChunkExecutor:
    """Hands out one action a step; asks the wrapped policy again after ``execution_horizon`` of them.

    A changed instruction (or arm) discards the rest of the chunk at once, and what is being thought about:
    what the person says now counts, not what was planned for the sentence before. Observations at the same
    place of the sequence belong to the same env, so that several envs run off one policy; only those that
    need a new chunk are passed on, in one batch.

    Every returned chunk has horizon 1. ``info`` gains ``replanned`` (bool: the first action of a new chunk);
    where replanned, ``latency_s`` (measured here unless the policy says so itself) and ``asked_s`` (when its
    observation was handed over, by ``time.monotonic``); ``waiting_s`` while a question is not answered (for
    how long), and ``held`` where there was nothing to do.

    Args:
        policy: any policy; one whose chunks are shorter is asked again when its chunk is used up.
        execution_horizon: steps to run before replanning, at least 1 (``ensemble`` asks whenever the policy
            is free).
        execution: what to do while it thinks, see :data:`EXECUTIONS`.
        thinking: how long it does; by default the loop waits in place, and no step passes.
        hold: what an arm does that has nothing to do (before its first chunk, or where the last one is used
            up); needed with ``thinking``.

    Raises:
        IncompatibleError: ``rtc`` with a policy that cannot continue a chunk.
    """

    def __init__(
        self,
        policy: Policy,
        execution_horizon: int,
        *,
        execution: Execution = "sync",
        thinking: Thinking | None = None,
        hold: Hold | None = None,
    ) -> None:
        if execution_horizon < 1:
            raise ConfigError(f"execution_horizon is {execution_horizon}; expected at least 1.")
        if execution not in get_args(Execution):
            raise UnknownNameError("execution", execution, get_args(Execution))
        if thinking is not None and hold is None:
            raise ConfigError("A policy that takes time needs 'hold': what the arm does before its answer.")
        if execution == "rtc":
            check_continues(policy)
        self.policy = policy
        self.execution_horizon = execution_horizon
        self.execution: Execution = execution
        self._thinking, self._hold = thinking or Replayed(), hold
        self._newest: tuple[int, ...] = ()
        self._courses: dict[int, _Course] = {}
        self._delays: deque[int] = deque(maxlen=NUM_DELAYS)
        self._step = 0

    @property
    def contract(self) -> Contract | None:
        """That of the wrapped policy."""
        return contract_of(self.policy)

    def check(self, embodiment: Embodiment) -> None:
        """Refuse what the wrapped policy refuses, and averaging what cannot be averaged.

        Grippers are never averaged: half closed is not what two chunks that disagree mean.
        """
        if self.execution == "ensemble":
            check_additive(embodiment)
            grips = np.concatenate([np.full(f.size, f.gripper_sign != "none") for f in embodiment.action])
            self._newest = tuple(int(entry) for entry in np.flatnonzero(grips))
        check_contract(self.policy, embodiment)

    def reset(self) -> None:
        self._courses.clear()
        self._delays.clear()
        self._step = 0
        self._thinking.reset()
        self.policy.reset()

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        courses = [self._course(i, observation) for i, observation in enumerate(observations)]
        for course in courses:
            self._listen(course)
        if asking := [i for i, course in enumerate(courses) if self._wants(course)]:
            self._ask(asking, courses, observations)
            for i in asking:
                self._listen(courses[i])
        self._step += 1
        return [self._next(*pair) for pair in zip(courses, observations, strict=True)]

    def _course(self, index: int, observation: Observation) -> _Course:
        course, said = self._courses.get(index), (observation.instruction, observation.embodiment)
        if course is None or (course.instruction, course.embodiment) != said:
            course = self._courses[index] = _Course(*said)
        return course

    def _wants(self, course: _Course) -> bool:
        if course.question is not None:
            return False
        live = course.live()
        if self.execution == "ensemble" or not live:
            return True
        return course.done - live[-1].origin >= self.execution_horizon

    def _ask(self, asking: list[int], courses: list[_Course], observations: Sequence[Observation]) -> None:
        now = time.monotonic()
        asked = [replace(observations[i], promise=self._promise(courses[i])) for i in asking]
        if len(observations) > 1:  # tell them apart: which of them are stale changes
            asked = [replace(seen, episode=i) for seen, i in zip(asked, asking, strict=True)]
        answer = self._thinking.ask(lambda: self._think(asked), self._step)
        for row, i in enumerate(asking):
            courses[i].question = _Question(answer, row, courses[i].done, self._step, now)
            if self.execution == "sync":
                courses[i].plans.clear()

    def _promise(self, course: _Course) -> Promise | None:
        """The rest of the chunk under way; as much of it is frozen as the longest of the last delays."""
        live = course.live() if self.execution == "rtc" else []
        if not live:
            return None
        rest = live[-1].chunk.actions[course.done - live[-1].origin :]
        return Promise(actions=rest, frozen=min(max(self._delays, default=0), len(rest)))

    def _think(self, asked: list[Observation]) -> list[ActionChunk]:
        started = time.perf_counter()
        chunks = self.policy.act(asked)
        latency_s = time.perf_counter() - started
        if len(chunks) != len(asked):
            raise ActionError(f"The policy answered {len(asked)} observations with {len(chunks)} chunks.")
        for chunk in chunks:
            if chunk.horizon < 1:
                raise ActionError(f"The policy answered with an empty chunk: shape {chunk.actions.shape}.")
        return [replace(chunk, info={"latency_s": latency_s, **chunk.info}) for chunk in chunks]

    def _listen(self, course: _Course) -> None:
        """Take the answer to the question, if it is there."""
        question = course.question
        if question is None or not question.answer.there(self._step):
            return
        chunk = question.answer.chunks()[question.row]
        plan = _Plan(replace(chunk, info={**chunk.info, "asked_s": question.asked_s}), question.origin)
        course.plans = [*course.live(), plan] if self.execution == "ensemble" else [plan]
        course.question, course.fresh = None, True
        self._delays.append(self._step - question.step)

    def _next(self, course: _Course, observation: Observation) -> ActionChunk:
        live, waiting = course.live(), {}
        if course.question is not None:
            waiting["waiting_s"] = time.monotonic() - course.question.asked_s
        if not live:
            if self._hold is None:  # in place, an answer is always there
                raise ConfigError("There is nothing to do and no 'hold' to say how.")
            still = self._hold(observation)
            return replace(still, info={**still.info, "replanned": False, "held": True, **waiting})
        newest, info = live[-1].chunk, {**live[-1].chunk.info, **waiting}
        actions = np.stack([plan.chunk.actions[course.done - plan.origin] for plan in live])
        action = actions[-1:] if len(live) == 1 else ensembled(actions, self._newest)[None]
        info["replanned"], course.fresh = course.fresh, False
        if not info["replanned"]:
            info.pop("latency_s", None)
            info.pop("asked_s", None)
        course.done += 1
        return ActionChunk(actions=action, control_hz=newest.control_hz, info=info)


def ensembled(actions: np.ndarray, newest: Sequence[int] = ()) -> np.ndarray:
    """float32 [n action_dim], oldest first -> their mean with weights exp(-0.01 i), entry by entry.

    Entries in ``newest`` are those of the newest row.
    """
    weights = np.exp(-ENSEMBLE_RATE * np.arange(len(actions)))
    mean = (weights @ actions / weights.sum()).astype(np.float32)
    chosen = list(newest)
    mean[chosen] = actions[-1, chosen]
    return mean


def check_additive(embodiment: Embodiment) -> None:
    """Refuse an arm whose actions cannot be averaged entry by entry.

    Raises:
        IncompatibleError: names the fields: absolute rotations, and turns that are not small.
    """
    wrong = [
        f"action field {field.name!r} holds a rotation as {field.rotation_format!r}, {field.mode}: the mean "
        "of two such is no rotation between them; use 'async' or 'rtc'"
        for field in embodiment.action
        if field.rotation_format not in ("none", "yaw") and (field.mode, field.rotation_format) != SMALL_TURN
    ]
    if wrong:
        raise IncompatibleError("temporal ensembling", repr(embodiment.name), wrong)
