"""The one closed loop: observe -> policy -> envelope -> act. Evaluation, ``vla run`` and robots share it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from vla.control.cadence import Cadence, Clock
from vla.control.geometry import Shaped
from vla.control.policies import check_contract
from vla.control.safety import EVENTS, SafeAction, SafetyEnvelope
from vla.control.watchdog import Fault, Watchdog
from vla.errors import ConfigError, IncompatibleError, VlaError
from vla.interfaces import Policy
from vla.robots import Reading, Robot
from vla.types import ActionChunk, Observation

LOG = logging.getLogger(__name__)

#: Steps that are left for what was begun when the operator leaves.
LAST_STEPS = 200

Ending = Literal["success", "done", "max_steps", "quit", "reset", "stopped"]


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

    ``instruct`` carries its sentence in ``text``; ``stop`` holds still until the next one; ``halt`` stops the
    robot, and it stays stopped until ``reset``; ``leave`` says that nobody is there any more: what was begun
    is brought to its end.
    """

    kind: Literal["instruct", "stop", "halt", "reset", "quit", "leave"]
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
        cadence: rate kept, and where the time went.
        fault: why a watchdog stopped the robot; empty where none did.
    """

    ending: Ending
    steps: int
    success: bool
    wrong: bool
    overruns: int
    cadence: Cadence | None = None
    fault: str = ""


def run_loop(
    robot: Robot,
    policy: Policy,
    envelope: SafetyEnvelope,
    *,
    max_steps: int,
    hooks: Sequence[Hook] = (),
    operator: Operator | None = None,
    realtime: bool = False,
    speed: float = 1.0,
) -> LoopResult:
    """Connect, then turn the loop until success, the robot's own end, ``max_steps`` or the operator's word.

    With an operator the loop outlives success (the arm holds still and waits for the next sentence) and
    a simulator's time limit. Whatever goes wrong inside, the robot is told to stop before the error leaves.
    Watchdogs (``vla.control.watchdog``) stop a live one too, and it stays stopped: the loop ends, or, with
    an operator, waits for ``reset``.

    Args:
        robot: connected here, left stopped.
        policy: usually a :class:`~vla.control.chunks.ChunkExecutor`; the first action of each chunk counts.
            It is shown no ``Observation.aux``: hooks are.
        envelope: reset here; every action goes through it.
        max_steps: at most this many actions.
        hooks: called in order, in the loop's thread.
        operator: commands while running; None: the instruction stays.
        realtime: keep ``embodiment.control_hz`` by the monotonic clock with absolute deadlines; a
            robot with a deadman needs it.
        speed: share of real time that it is kept at: at 0.25 a control period lasts four times as long (see
            ``vla.robots.slow``).

    Raises:
        ContractError, IncompatibleError: the policy must not drive this arm, or the envelope is another's;
            nothing has moved.
        ConfigError: the envelope ignores the robot's geometry, or a live robot is to wait for nobody.
    """
    check_contract(policy, robot.embodiment)
    if max_steps < 1:
        raise ConfigError(f"max_steps is {max_steps}; expected at least 1.")
    if not 0 < speed <= 1:
        raise ConfigError(f"speed is {speed}; expected 0 < speed <= 1.")
    if robot.deadman_s is not None and not realtime:
        raise ConfigError(
            f"{robot.embodiment.name!r} stops by itself after {robot.deadman_s:g} s without a command: it "
            "moves in real time, and so must its loop (realtime=True)."
        )
    _check_envelope(robot, envelope)
    envelope.reset()
    policy.reset()
    pace_hz = robot.embodiment.control_hz * speed
    loop = _Loop(robot, policy, envelope, hooks, operator, pace_hz, realtime=realtime)
    try:
        result = loop.run(max_steps)
    except BaseException:
        try:
            robot.stop()
        except VlaError as error:  # what went wrong first is what the person must see
            LOG.error("%s could not be stopped: %s", robot.embodiment.name, error)
        raise
    robot.stop()
    return result


class _Loop:
    """One arm between connect and stop."""

    def __init__(
        self,
        robot: Robot,
        policy: Policy,
        envelope: SafetyEnvelope,
        hooks: Sequence[Hook],
        operator: Operator | None,
        pace_hz: float,
        *,
        realtime: bool,
    ) -> None:
        self._robot, self._policy, self._envelope = robot, policy, envelope
        self._hooks, self._operator = hooks, operator
        self._attended = operator is not None
        self._reading = robot.connect()
        self._clock = Clock(pace_hz if realtime else 0.0)
        live = robot.deadman_s is not None  # what stands still between commands grows no older
        self._watchdog = Watchdog(envelope.config, pace_hz) if live else None
        self._holding = False
        self._fault = ""

    def run(self, max_steps: int) -> LoopResult:
        for hook in self._hooks:
            hook.started(self._reading)
        if self._watchdog is not None:
            self._watchdog.connected(self._reading, time.monotonic())
        ending: Ending | None = None
        wrong, steps = False, 0
        while ending is None and steps < max_steps:
            command = None if self._operator is None else self._operator.poll()
            if command is not None and command.kind == "leave" and not self._holding:
                self._operator, max_steps = None, min(max_steps, steps + LAST_STEPS)
            elif command is not None and (ending := self._obey(command)) is not None:
                break
            tick = self._turn(steps)
            if isinstance(tick, Fault):
                ending = self._latched(tick)
                break
            steps += 1
            wrong = wrong or bool(self._reading.info.get("wrong", False))
            for hook in self._hooks:
                hook.ticked(tick)
            ending = self._ended()
            if ending is None:
                self._clock.wait()
        return LoopResult(
            ending=ending or "max_steps",
            steps=steps,
            success=bool(self._reading.info.get("success", False)),
            wrong=wrong,
            overruns=self._clock.overruns,
            cadence=self._clock.cadence(),
            fault=self._fault,
        )

    def _turn(self, index: int) -> Tick | Fault:
        """Observe, think, bound, command; or why the robot must stop instead."""
        robot, clock = self._robot, self._clock
        if robot.deadman_s is not None:  # time has passed since the last command: look again
            with clock.spending("observe"):
                self._reading = robot.read()
        if (fault := self._seen_fault()) is not None:
            return fault
        observation = self._reading.observation
        with clock.spending("policy"):
            chunk = None if self._holding else _ask(self._policy, observation, robot)
        if chunk is not None and self._watchdog is not None:
            if (fault := self._watchdog.answered(chunk)) is not None:
                return fault
            if (fault := self._seen_fault()) is not None:  # it grew old while the policy thought in place
                return fault
        with clock.spending("envelope"):
            wanted = self._envelope.hold(observation.state) if chunk is None else chunk.actions[0]
            safe = self._envelope(wanted, observation.state)
        with clock.spending("command"):
            self._reading = robot.command(safe.action)
        return Tick(index=index, observation=observation, chunk=chunk, safe=safe, reading=self._reading)

    def _seen_fault(self) -> Fault | None:
        if self._watchdog is None:
            return None
        return self._watchdog.observed(self._reading, time.monotonic())

    def _ended(self) -> Ending | None:
        """Whether the turn brought the loop to its end; with an operator, success is told and held."""
        succeeded = bool(self._reading.info.get("success", False))
        if self._operator is None:
            if succeeded:
                return "success"
            return "done" if self._reading.done and not self._attended else None
        if succeeded and not self._holding:
            self._operator.tell("done, holding still.")
            self._holding = True
        return None

    def _obey(self, command: Command) -> Ending | None:
        """Carry out a command; a sentence that cannot be followed leaves everything as it was."""
        assert self._operator is not None
        if command.kind in ("quit", "leave"):
            return "quit"
        if command.kind == "reset":
            return "reset"
        if command.kind == "halt":
            return self._latched(Fault("halted", "the operator stopped it; reset starts again"))
        if command.kind == "stop":
            self._operator.tell("holding still.")
            self._holding = True
            return None
        try:
            self._reading, self._holding = self._robot.set_instruction(command.text), False
        except VlaError as error:
            self._operator.tell(str(error))
        return None

    def _latched(self, fault: Fault) -> Ending:
        """Stop the robot at once; it stays stopped until the operator resets, or leaves."""
        self._robot.stop()
        if fault.event in EVENTS:
            self._envelope.count(fault.event)
        self._fault = f"{fault.event}: {fault.message}"
        LOG.error("%s stopped: %s", self._robot.embodiment.name, self._fault)
        if self._operator is None:
            return "stopped"
        self._operator.tell(f"STOPPED. {self._fault}.")
        while True:
            command = self._operator.poll()
            if command is not None and command.kind in ("quit", "leave", "reset"):
                return "reset" if command.kind == "reset" else "quit"
            if command is not None:
                self._operator.tell("stopped: say reset first.")
            time.sleep(1.0 / self._robot.embodiment.control_hz)


def _check_envelope(robot: Robot, envelope: SafetyEnvelope) -> None:
    """Refuse limits of another arm, and a geometry that nobody looks at."""
    if envelope.embodiment != robot.embodiment:
        raise IncompatibleError(
            f"the safety envelope of {envelope.embodiment.name!r}",
            repr(robot.embodiment.name),
            ["its limits are not this robot's: SafetyEnvelope.of(robot) makes one that is"],
        )
    ignored = isinstance(robot, Shaped) and robot.geometry is not None and "collision" not in envelope.checks
    if ignored and "collision" not in envelope.config.disabled:
        raise ConfigError(
            f"{robot.embodiment.name!r} gives its geometry and the safety envelope was made without it: make "
            "it with SafetyEnvelope.of(robot), or turn the check off by "
            "SafetyConfig(disabled=('collision',))."
        )


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
