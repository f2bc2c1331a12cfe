"""A session with a real arm: looked over before it moves, slow unless asked otherwise, or a dry run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace

from vla import registry
from vla.control.chunks import ChunkExecutor, holding
from vla.control.latency import Background
from vla.control.loop import Hook, LoopResult, Operator, Tick, run_loop
from vla.control.policies import EXECUTION_HORIZON, Embodied, PolicySpec, check_contract, contract_of
from vla.control.safety import SafetyEnvelope
from vla.conversation import HARDWARE_HELP, Narrator, Prompt
from vla.embodiment import Embodiment
from vla.errors import ConfigError
from vla.interfaces import Policy
from vla.planning import Scene, make_planner
from vla.planning.follow import Follower
from vla.planning.judge import judged
from vla.robots import Reading, Robot
from vla.robots.dry import DryRobot
from vla.robots.named import embodiment_of, open_arm
from vla.robots.wrapper import RobotWrapper
from vla.session.checklist import checklist, refusals
from vla.session.config import HardwareConfig, SessionConfig, SessionResult
from vla.session.driving import OFF, device_of, driven, operator_of
from vla.session.watching import Attachments, Compared, LastInstruction, UnknownWords, recording

#: What the person says before the first motion.
GO = "go"


def run_arm(
    config: SessionConfig,
    instruction: str | None,
    *,
    prompt: Prompt | None,
    say: Callable[[str], None],
    attached: Attachments,
    confirm: Callable[[str], bool],
) -> SessionResult:
    """Follow one sentence with a real arm, or, with a prompt, whatever is said until ``quit``.

    Args:
        config: of the session, ``hardware`` included.
        instruction: what to do first.
        prompt: the operator, where there is one.
        say: prints progress.
        attached: what else watches, or stands around the arm.
        confirm: asks the person beside the arm, where there is no prompt; True lets it move.

    Raises:
        ConfigError: the checklist refuses, the person does, or the session is none for a real arm.
        VlaError: the arm, its cameras or the policy, with what to do.
    """
    hardware = config.hardware or HardwareConfig()
    registry.robot_factory(config.robot)  # a typo is said before a policy is loaded
    policy = _policy(config, hardware)
    if prompt is not None:
        say, prompt.help = prompt.tell, HARDWARE_HELP
    say(f"connecting to {config.robot} ...")
    arm = replace(hardware.arm, embodiment=_known(config, hardware, policy))
    with contextlib.closing(_around(open_arm(config.robot, arm), config, hardware)) as robot:
        if policy is not None:
            check_contract(policy, robot.embodiment)
        session = _ArmSession(config, hardware, robot, policy, prompt, say, attached)
        session.look(instruction or "")
        if not (hardware.dry_run or hardware.confirmed or session.allowed(confirm)):
            raise ConfigError("Nobody said that it may move, so it did not.")
        return session.run(instruction or "")


def at_the_terminal(question: str) -> bool:
    """Ask whoever sits at the terminal.

    Raises:
        ConfigError: nobody does.
    """
    if not sys.stdin.isatty():
        raise ConfigError("Nobody is here to say that the arm may move: run it at a terminal, or with --yes.")
    return input(question).strip().lower() == GO


class Shown:
    """Hook that says of every step what would be sent, in the arm's own units.

    Args:
        arm: whose action it is.
        say: prints a line.
    """

    def __init__(self, arm: Embodiment, say: Callable[[str], None]) -> None:
        self._arm, self._say = arm, say

    def started(self, reading: Reading) -> None:
        """Nothing would be sent yet."""

    def ticked(self, tick: Tick) -> None:
        parts, at = [], 0
        for field in self._arm.action:
            values = " ".join(f"{value:+.4f}" for value in tick.safe.action[at : at + field.size])
            parts.append(f"{field.name} {values} {field.unit}")
            at += field.size
        changed = f"   [{', '.join(tick.safe.events)}]" if tick.safe.events else ""
        self._say(f"  {tick.index:4d}  {'; '.join(parts)}{changed}")


class _Told(RobotWrapper):
    """An arm that has been told what to do when it is connected."""

    def __init__(self, robot: Robot, sentence: str) -> None:
        super().__init__(robot)
        self._sentence = sentence

    def connect(self) -> Reading:
        super().connect()
        return self.set_instruction(self._sentence)


class _ArmSession:
    """One arm from the first look at it to the end."""

    def __init__(
        self,
        config: SessionConfig,
        hardware: HardwareConfig,
        robot: Robot,
        policy: Policy | None,
        prompt: Prompt | None,
        say: Callable[[str], None],
        attached: Attachments,
    ) -> None:
        self._config, self._hardware, self._robot, self._policy = config, hardware, robot, policy
        self._prompt, self._say, self._attached = prompt, say, attached
        self._envelope = SafetyEnvelope.of(robot, config.safety)
        self._speed = hardware.arm.speed

    def look(self, instruction: str) -> None:
        """Go through the checklist; nothing moves. A point that is wrong raises :class:`ConfigError`."""
        reading = self._robot.connect()
        self._robot.stop()
        reading = replace(reading, observation=replace(reading.observation, instruction=instruction))
        deadman_s = self._robot.deadman_s
        items = checklist(reading, self._policy, self._envelope, speed=self._speed, deadman_s=deadman_s)
        self._say("\n".join(["before the first motion:", *map(str, items)]))
        if wrong := refusals(items):
            raise ConfigError("The arm was not moved:\n" + "\n".join(f"  - {line}" for line in wrong))

    def allowed(self, confirm: Callable[[str], bool]) -> bool:
        """Whether the person says so."""
        if self._prompt is None:
            return confirm(f"Say {GO!r} and it moves: ")
        self._say(f"Say {GO!r} and it will move when it is told to.")
        return self._prompt.wait().text == GO

    def run(self, said: str) -> SessionResult:
        """Until the one sentence is over, or the person leaves."""
        last, narrator = LastInstruction(), Narrator(self._say, self._robot.embodiment.control_hz)
        loop = LoopResult(ending="quit", steps=0, success=False, wrong=False, overruns=0)
        if self._hardware.dry_run:
            self._say("DRY RUN: nothing is sent. What would be:")
        while said := said or self._first():
            loop = self._follow(said, [last, narrator] if self._prompt is not None else [last])
            if loop.ending != "reset":
                break
            said = ""
        return SessionResult(
            instruction=last.text,
            seed=0,
            loop=loop,
            safety=dict(self._envelope.counts),
            video=None,
            spoken=narrator.summary(),
            safety_off=self._config.safety.warning(),
            judged=bool(self._config.judge),
        )

    def _first(self) -> str:
        """The next sentence, however long it takes; empty where the person leaves, or nobody is there."""
        prompt = self._prompt
        if prompt is None:
            return ""
        prompt.tell(
            f"READY: {self._robot.embodiment.name} at {self._speed:.0%} of its speed, policy "
            f"{self._config.policy}. It holds still until you say something; or: stop, halt, reset, help, "
            "quit."
        )
        while True:
            command = prompt.wait()
            if command.kind in ("quit", "leave"):
                return ""
            if command.kind == "instruct":
                return command.text
            prompt.tell("nothing moves yet: say what to do.")

    def _follow(self, said: str, watching: list[Hook]) -> LoopResult:
        config, arm = self._config, self._robot.embodiment
        hooks: list[Hook] = [*watching, UnknownWords(self._say), Compared(self._say), *self._attached.hooks]
        if self._hardware.dry_run:
            hooks.append(Shown(arm, self._say))
        operator: Operator | None = self._prompt
        if config.planner:
            planner = make_planner(config.planner)
            follower = Follower(planner, Scene, arm.control_hz, tell=self._say, person=self._prompt)
            said, operator = follower.begin(said), follower
            hooks.append(follower)
        limit = round(self._hardware.seconds * arm.control_hz * self._speed)
        with contextlib.ExitStack() as stack:
            thinking = None
            if config.execution != "sync":
                thinking = stack.enter_context(contextlib.closing(Background()))
            recorder = stack.enter_context(recording(config, arm, self._prompt, speed=self._speed))
            executor = (
                None
                if self._policy is None
                else ChunkExecutor(
                    self._policy,
                    config.execution_horizon or _horizon(self._policy),
                    execution=config.execution,
                    thinking=thinking,
                    hold=holding(self._envelope),
                )
            )
            device = device_of(config, self._attached, prompt=self._prompt is not None)
            return run_loop(
                self._attached.robot(_Told(self._robot, said)),
                stack.enter_context(driven(device, executor, self._envelope, self._say)),
                self._envelope,
                max_steps=max(1, limit) if self._prompt is None else sys.maxsize,
                hooks=[*hooks, *map(self._attached.recorder, recorder)],
                operator=operator_of(device, operator),
                realtime=True,
                speed=self._speed,
            )


def _policy(config: SessionConfig, hardware: HardwareConfig) -> Policy | None:
    """The policy, where the session is one for a real arm; None: a person alone."""
    for given, what in (
        (config.video, "a film of the simulation: record its cameras into a store instead"),
        (config.viewer, "a window on the simulation"),
        (config.detailed, "detailed looks"),
        (config.task, "a task's scene"),
    ):
        if given:
            raise ConfigError(f"A real arm has no simulation: leave out {what}.")
    if config.planner and not config.judge:
        raise ConfigError(
            "A plan needs to know when a part of it is done, and a real arm cannot tell: name a model that "
            "sees the picture (judge openai:MODEL@URL), or plan nothing."
        )
    if hardware.dry_run and config.record is not None:
        raise ConfigError("A dry run moves nothing: there is nothing to record.")
    if config.policy == OFF:
        return None
    spec = PolicySpec.parse(config.policy)
    if spec.is_bound:
        raise ConfigError(f"Policy {config.policy!r} reads a simulation: a real arm has none.")
    return spec.build()


def _known(config: SessionConfig, hardware: HardwareConfig, policy: Policy | None) -> Embodiment | None:
    """What the policy knows the arm as; None where it does not say what it was made for."""
    contract = None if policy is None else contract_of(policy)
    if not isinstance(contract, Embodied):
        return None
    return embodiment_of(config.robot, contract.embodiments, hardware.embodiment)


def _around(robot: Robot, config: SessionConfig, hardware: HardwareConfig) -> Robot:
    robot = DryRobot(robot) if hardware.dry_run else robot
    return judged(robot, config.judge) if config.judge else robot


def _horizon(policy: Policy) -> int:
    contract = contract_of(policy)
    return EXECUTION_HORIZON if contract is None else contract.execution_horizon
