"""Speaking to an arm: one sentence, or a conversation in which the instruction changes mid-motion."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from vla import registry
from vla.control.chunks import ChunkExecutor, holding
from vla.control.latency import Background
from vla.control.loop import Hook, LoopResult, run_loop
from vla.control.policies import EXECUTION_HORIZON, PolicySpec, check_contract, contract_of
from vla.control.safety import SafetyEnvelope
from vla.conversation import AdvisingRobot, Narrator, Prompt, ready_text, scene_text
from vla.errors import ConfigError, UnknownNameError, VlaError
from vla.interfaces import Policy, Suite
from vla.planning import make_planner
from vla.planning.follow import Follower
from vla.planning.judge import judged
from vla.report.video import LiveVideo, VideoWriter
from vla.robots import Robot
from vla.robots.sim import SimRobot
from vla.session.config import HardwareConfig, SessionConfig, SessionResult
from vla.session.driving import OFF, device_of, driven, operator_of
from vla.session.hardware import at_the_terminal, run_arm
from vla.session.scenes import lay, parts_of, scene_of
from vla.session.watching import Attachments, LastInstruction, UnknownWords, recording, window
from vla.teleop import Teleoperator

__all__ = ["HardwareConfig", "SessionConfig", "SessionResult", "run_session"]

SIMULATED = "sim:"


def run_session(  # noqa: PLR0915
    config: SessionConfig,
    instruction: str | None = None,
    *,
    prompt: Prompt | None = None,
    say: Callable[[str], None] = print,
    attached: Attachments = Attachments(),  # noqa: B008  # frozen
    confirm: Callable[[str], bool] = at_the_terminal,
) -> SessionResult:
    """Follow one sentence, or, with a prompt, whatever is said until ``quit``.

    Args:
        config: robot, policy and how to run.
        instruction: what to do first; without one, the prompt is asked.
        prompt: the operator; None follows the one instruction and returns.
        say: prints progress.
        attached: what else watches, or stands around the arm.
        confirm: asks whoever stands beside a real arm whether it may move, where there is no prompt to ask.

    Raises:
        VlaError: an unknown robot, arm, policy or suite; a policy not made for the arm; a sentence that
            names nothing the suite can put on a table.
    """
    if prompt is None and not instruction:
        raise ConfigError('Say what to do, e.g. "put the red cube in the blue bowl", or ask for a prompt.')
    if not config.robot.startswith(SIMULATED):
        return run_arm(config, instruction, prompt=prompt, say=say, attached=attached, confirm=confirm)
    if config.hardware is not None:
        raise ConfigError(
            f"{config.robot!r} is a simulation: host, port, cameras, speed ... are a real arm's."
        )
    arm = config.robot.removeprefix(SIMULATED)
    suite, spec = (
        registry.suite(config.suite),
        PolicySpec.parse("zero" if config.policy == OFF else config.policy),
    )
    device = device_of(config, attached, prompt=prompt is not None)
    if config.realtime is None:
        config = replace(config, realtime=config.viewer or prompt is not None or device is not None)
    _check_execution(config, spec)
    if prompt is not None:
        say, prompt.tasks = prompt.tell, suite.tasks
        say(f"getting ready: {config.robot}, policy {config.policy} ...")
    policy: Policy | None = None if spec.is_bound else spec.build()
    contract = None if policy is None else contract_of(policy)
    make_kwargs = {
        **({} if contract is None else {"image_size": contract.image_size}),
        **({"detailed": True} if config.detailed else {}),
    }
    own_horizon = EXECUTION_HORIZON if contract is None else contract.execution_horizon
    config = replace(config, execution_horizon=config.execution_horizon or own_horizon)
    said, task, seed, result = instruction or "", config.task or suite.tasks[0], config.seed, None
    narrator: Narrator | None = None
    with contextlib.ExitStack() as stack:
        writer: VideoWriter | None = None
        while result is None or (prompt is not None and result.loop.ending == "reset"):
            try:
                robot = lay(suite, arm, said, task, seed, make_kwargs, plans=bool(config.planner))
            except UnknownNameError:
                raise
            except VlaError as error:
                if prompt is None or not said:
                    raise
                prompt.tell(str(error))
                said = ""  # wait for another one, before a scene of the task
                continue
            with contextlib.closing(robot):
                if policy is not None:
                    check_contract(policy, robot.embodiment)
                if config.video is not None and writer is None:
                    fps = robot.embodiment.control_hz
                    writer = stack.enter_context(VideoWriter(config.video, fps=fps))
                if said:
                    say(f'{robot.embodiment.name}, scene {robot.seed}: "{said}"')
                several = bool(config.planner) and len(parts_of(said)) != 1
                if (prompt is not None or several) and narrator is None:
                    narrator = Narrator(say, robot.embodiment.control_hz)
                driver = policy or spec.build(suite=suite, env=robot.env)
                film = None if writer is None else LiveVideo(robot.env, writer, say=say)
                watchers = [hook for hook in (film, narrator) if hook is not None]
                attempt = _attempt(
                    config, suite, robot, said, driver, prompt, watchers, attached, device, say
                )
            if result is not None and not attempt.instruction:  # left or reset without a word
                loop = replace(result.loop, ending=attempt.loop.ending)
                attempt = replace(result, seed=attempt.seed, loop=loop)
            result, seed = attempt, attempt.seed + 1
            if prompt is not None:
                said = "" if prompt.task else prompt.sentence or said
                task, prompt.task = prompt.task or task, ""
    return result if narrator is None else replace(result, spoken=narrator.summary())


def _check_execution(config: SessionConfig, spec: PolicySpec) -> None:
    """Refuse to think beside a simulation that waits for nobody, or with a policy that reads it."""
    if config.execution == "sync":
        return
    if not config.realtime:
        raise ConfigError(
            f"execution {config.execution!r} lets the arm move while the policy thinks: run in real time "
            "(with a viewer, or in a conversation). On a simulator's own clock that is 'vla eval latency'."
        )
    if spec.is_bound:
        raise ConfigError(
            f"Policy {config.policy!r} reads the simulation that moves on while it thinks: use 'sync'."
        )


def _attempt(
    config: SessionConfig,
    suite: Suite,
    robot: SimRobot,
    said: str,
    policy: Policy,
    prompt: Prompt | None,
    watchers: Sequence[Hook],
    attached: Attachments,
    device: Teleoperator | None,
    say: Callable[[str], None],
) -> SessionResult:
    """One scene, until it ends or the person wants another; asked first where nothing is ``said`` yet."""
    envelope = SafetyEnvelope.of(robot, config.safety)
    if off := config.safety.warning():
        say(off)
    last = LastInstruction()
    hooks: list[Hook] = [last, UnknownWords(say), *attached.hooks, *watchers]
    narrated = any(isinstance(hook, Narrator) for hook in watchers)
    with (
        recording(config, robot.embodiment, prompt, suite=config.suite, seed=robot.seed) as recorder,
        window(robot, wanted=config.viewer) as windows,
        contextlib.ExitStack() as stack,
    ):
        if prompt is not None:
            if not said and (ending := _first_sentence(prompt, robot, config, attached)) is not None:
                loop = LoopResult(ending=ending, steps=0, success=False, wrong=False, overruns=0)
                return SessionResult(
                    instruction="", seed=robot.seed, loop=loop, safety={}, video=config.video
                )
            said = said or prompt.sentence
        follower = _follower(config, robot, prompt, say) if narrated else None
        if follower is not None:
            robot.connect()  # for a look at the scene
            said = follower.begin(said)
            hooks.append(follower)
        if narrated:
            robot = SimRobot(robot.env, seed=robot.seed, instruction=said)
        thinking = (
            None if config.execution == "sync" else stack.enter_context(contextlib.closing(Background()))
        )
        executor = (
            None
            if config.policy == OFF
            else ChunkExecutor(
                policy,
                config.execution_horizon or EXECUTION_HORIZON,
                execution=config.execution,
                thinking=thinking,
                hold=holding(envelope),
            )
        )
        loop = run_loop(
            attached.robot(_around(robot, config, suite, advised=prompt is not None)),
            stack.enter_context(driven(device, executor, envelope, say)),
            envelope,
            max_steps=config.max_steps or sys.maxsize,
            hooks=[*hooks, *map(attached.recorder, recorder), *windows],
            operator=operator_of(device, follower or prompt),
            realtime=bool(config.realtime),
        )
    if follower is not None and follower.left:
        loop = replace(loop, success=False)
    return SessionResult(
        instruction=last.text,
        seed=robot.seed,
        loop=loop,
        safety=dict(envelope.counts),
        video=config.video,
        safety_off=config.safety.warning(),
    )


def _around(robot: SimRobot, config: SessionConfig, suite: Suite, *, advised: bool) -> Robot:
    inner: Robot = judged(robot, config.judge) if config.judge else robot
    return AdvisingRobot(robot, suite.tasks, inner) if advised else inner


def _follower(
    config: SessionConfig, robot: SimRobot, prompt: Prompt | None, say: Callable[[str], None]
) -> Follower | None:
    """Who takes apart what is said and sees to it that one part follows the other."""
    if not config.planner:
        return None
    planner = make_planner(config.planner)
    hz = robot.embodiment.control_hz
    return Follower(planner, lambda: scene_of(robot), hz, tell=say, person=prompt)


def _first_sentence(
    prompt: Prompt, robot: SimRobot, config: SessionConfig, attached: Attachments
) -> Literal["quit", "reset"] | None:
    """Show the scene and wait; None once ``prompt.sentence`` is something that can be done in it."""
    reading = robot.connect()
    for hook in attached.hooks:
        hook.started(reading)
    prompt.scene = scene_text(robot)
    prompt.tell(ready_text(robot, config.policy, prompt.tasks))
    while True:
        command = prompt.wait()
        if command.kind in ("quit", "leave"):
            return "quit"
        if command.kind == "reset":
            return "reset"
        if command.kind in ("stop", "halt"):
            prompt.tell("nothing moves yet: say what to do.")
            continue
        try:
            parts = parts_of(command.text) if config.planner else (command.text,)
            if parts:
                robot.set_instruction(parts[0])
        except VlaError:
            prompt.tell("this scene cannot do that; looking for one that can ...")
            return "reset"
        return None
