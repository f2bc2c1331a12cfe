"""The one closed loop: observe -> policy -> envelope -> act. Evaluation, ``vla run`` and robots share it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from vla.control.policies import check_contract
from vla.control.safety import SafeAction, SafetyEnvelope
from vla.errors import ConfigError, IncompatibleError, VlaError
from vla.interfaces import Policy
from vla.robots import Reading, Robot
from vla.types import ActionChunk, Observation

#: Steps that are left for what was begun when the operator leaves.
LAST_STEPS = 200

Ending = Literal["success", "done", "max_steps", "quit", "reset"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tick:
    """One turn of the loop.

    Args:
        index: 0-based number of the turn.
        observation: what was seen before acting.
        chunk: what the policy answered; its first action was taken (None: the operator holds the arm).
        safe: what was executed, and what the envelope changed.
        reading: what the robot reported afterwards.
    """

    index: int
    observation: Observation
    chunk: ActionChunk | None
    safe: SafeAction
    reading: Reading


class Hook(Protocol):
    """Something that watches a loop: a recorder, a video, a progress line."""

    def started(self, reading: Reading) -> None: ...

    def ticked(self, tick: Tick) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Command:
    """What the person at the robot wants now.

    ``instruct`` carries its sentence in ``text``; ``stop`` holds still until the next one; ``leave`` says
    that nobody is there any more: what was begun is brought to its end.
    """

    kind: Literal["instruct", "stop", "reset", "quit", "leave"]
    text: str = ""


class Operator(Protocol):
    """The person at the robot."""

    def poll(self) -> Command | None:
        """The next command, without waiting; None when nothing was said."""
        ...

    def tell(self, message: str) -> None:
        """Say something to the person."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoopResult:
    """How a loop ended.

    Args:
        ending: why.
        steps: number of actions executed.
        success: the instruction in force was fulfilled at the end.
        wrong: at some step the goal of a different instruction held.
        overruns: turns that took longer than a control period (counted in real time only).
    """

    ending: Ending
    steps: int
    success: bool
    wrong: bool
    overruns: int


def run_loop(
    robot: Robot,
    policy: Policy,
    envelope: SafetyEnvelope,
    *,
    max_steps: int,
    hooks: Sequence[Hook] = (),
    operator: Operator | None = None,
    realtime: bool = False,
) -> LoopResult:
    """Connect, then turn the loop until success, the robot's own end, ``max_steps`` or the operator's word.

    With an operator the loop outlives success (the arm holds still and waits for the next sentence) and
    a simulator's time limit. Whatever goes wrong inside, the robot is told to stop before the error leaves.

    Args:
        robot: connected here, left stopped.
        policy: usually a :class:`~vla.control.chunks.ChunkExecutor`; the first action of each chunk counts.
            It is shown no ``Observation.aux``: hooks are.
        envelope: reset here; every action goes through it.
        max_steps: at most this many actions.
        hooks: called in order, in the loop's thread.
        operator: commands while running; None: the instruction stays.
        realtime: keep ``embodiment.control_hz`` by the monotonic clock with absolute deadlines.

    Raises:
        ContractError, IncompatibleError: the policy must not drive this arm; nothing has moved.
    """
    check_contract(policy, robot.embodiment)
    if max_steps < 1:
        raise ConfigError(f"max_steps is {max_steps}; expected at least 1.")
    envelope.reset()
    policy.reset()
    try:
        return _turn(
            robot,
            policy,
            envelope,
            max_steps=max_steps,
            hooks=hooks,
            operator=operator,
            clock=_Clock(1.0 / robot.embodiment.control_hz if realtime else 0.0),
        )
    finally:
        robot.stop()


def _turn(
    robot: Robot,
    policy: Policy,
    envelope: SafetyEnvelope,
    *,
    max_steps: int,
    hooks: Sequence[Hook],
    operator: Operator | None,
    clock: _Clock,
) -> LoopResult:
    reading = robot.connect()
    for hook in hooks:
        hook.started(reading)
    holding, wrong, steps, attended = False, False, 0, operator is not None
    ending: Ending = "max_steps"
    while steps < max_steps:
        if operator is not None:
            command = operator.poll()
            if command is not None and command.kind == "leave" and not holding:
                operator, max_steps = None, min(max_steps, steps + LAST_STEPS)
            elif command is not None and command.kind in ("quit", "leave", "reset"):
                ending = "reset" if command.kind == "reset" else "quit"
                break
            elif command is not None:
                reading, holding = _obey(command, robot, operator, reading, holding)
        observation = reading.observation
        chunk = None if holding else _ask(policy, observation, robot)
        wanted = envelope.hold(observation.state) if chunk is None else chunk.actions[0]
        safe = envelope(wanted, observation.state)
        reading = robot.command(safe.action)
        tick = Tick(index=steps, observation=observation, chunk=chunk, safe=safe, reading=reading)
        steps += 1
        wrong = wrong or bool(reading.info.get("wrong", False))
        for hook in hooks:
            hook.ticked(tick)
        succeeded = bool(reading.info.get("success", False))
        if operator is None and (succeeded or (reading.done and not attended)):
            ending = "success" if succeeded else "done"
            break
        if operator is not None and succeeded and not holding:
            operator.tell("done, holding still.")
            holding = True
        clock.wait()
    success = bool(reading.info.get("success", False))
    return LoopResult(ending=ending, steps=steps, success=success, wrong=wrong, overruns=clock.overruns)


def _ask(policy: Policy, observation: Observation, robot: Robot) -> ActionChunk:
    """The policy's chunk for what a camera and an encoder can see; one of another rate raises."""
    chunk = policy.act([replace(observation, aux={})])[0]
    if chunk.control_hz != robot.embodiment.control_hz:
        raise IncompatibleError(
            f"chunk of {type(policy).__name__}",
            repr(robot.embodiment.name),
            [f"actions for {chunk.control_hz} Hz, the arm runs at {robot.embodiment.control_hz} Hz"],
        )
    return chunk


def _obey(
    command: Command, robot: Robot, operator: Operator, reading: Reading, holding: bool
) -> tuple[Reading, bool]:
    """Carry out ``stop`` or ``instruct``; a sentence that cannot be followed leaves everything as it was."""
    if command.kind == "stop":
        operator.tell("holding still.")
        return reading, True
    try:
        return robot.set_instruction(command.text), False
    except VlaError as error:
        operator.tell(str(error))
        return reading, holding


class _Clock:
    """Absolute deadlines on the monotonic clock; a missed one is counted and not made up for."""

    def __init__(self, period_s: float) -> None:
        self.overruns = 0
        self._period_s = period_s
        self._deadline = time.monotonic() + period_s

    def wait(self) -> None:
        if self._period_s == 0:
            return
        now = time.monotonic()
        if now > self._deadline:
            self.overruns += 1
            self._deadline = now
        else:
            time.sleep(self._deadline - now)
        self._deadline += self._period_s
