"""Speaking to an arm: one sentence, or a conversation in which the instruction changes mid-motion."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from vla import registry
from vla.control.chunks import ChunkExecutor, Execution, holding
from vla.control.latency import Background
from vla.control.loop import Hook, LoopResult, run_loop
from vla.control.policies import EXECUTION_HORIZON, PolicySpec, check_contract, contract_of
from vla.control.safety import SafetyConfig, SafetyEnvelope
from vla.conversation import AdvisingRobot, Narrator, Prompt, ready_text, scene_text
from vla.errors import ConfigError, UnknownNameError, VlaError
from vla.interfaces import Policy, Suite
from vla.planning import make_planner
from vla.planning.follow import Follower
from vla.report.video import LiveVideo, VideoWriter
from vla.robots.sim import SimRobot
from vla.session.scenes import lay, parts_of, scene_of
from vla.session.watching import Attachments, LastInstruction, UnknownWords, recording, window

ROBOT_KINDS = ("sim",)


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """A session.

    Args:
        robot: ``sim:ARM``.
        policy: ``expert``, ``learned:PATH`` ... (see ``PolicySpec``).
        suite: registered suite that the simulated arm lives in.
        seed: where the search for a scene starts.
        task: scene that a conversation opens with; empty for the suite's first.
        execution_horizon: steps of each chunk to run before replanning; None takes the policy's own.
        execution: what the arm does while the policy thinks (``vla.control.chunks.EXECUTIONS``); all but
            ``sync`` think in a thread and need real time.
        max_steps: of one attempt without an operator; 0 leaves it to the env's own limit.
        detailed: the suite's detailed looks of the arm (the suite must have them).
        video: mp4 to write (a conversation: one file for all of it, at most ``MAX_FILM_S`` long); None for
            none.
        viewer: open MuJoCo's viewer, where there is a display.
        realtime: keep the control rate; None does so for a viewer or a conversation.
        safety: limits of the envelope.
        planner: takes apart what is said (``vla.planning.make_planner``); empty: one sentence, as it is.
        record: episode store that every sentence followed, with success or not, is added to (made if
            missing); None for none. In a conversation ``success``, ``failure`` or
            ``discard`` judges the last.
    """

    robot: str = "sim:panda"
    policy: str = "expert"
    suite: str = "tabletop"
    seed: int = 0
    task: str = ""
    execution_horizon: int | None = None
    execution: Execution = "sync"
    max_steps: int = 0
    detailed: bool = False
    video: Path | None = None
    viewer: bool = False
    realtime: bool | None = None
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    planner: str = "rules"
    record: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SessionResult:
    """How a session ended.

    Args:
        instruction: the last one, empty where nothing was said.
        seed: of the last scene.
        loop: of the last scene.
        safety: changes of each check of the envelope, in the last scene.
        safety_off: which checks were turned off; empty where none was.
        video: where there is one.
        spoken: of a conversation: what was said and what came of it, one line a sentence.
    """

    instruction: str
    seed: int
    loop: LoopResult
    safety: Mapping[str, int]
    video: Path | None
    spoken: str = ""
    safety_off: str = ""

    def __str__(self) -> str:
        if not self.instruction:
            return "Nothing was said, nothing moved."
        outcome = "success" if self.loop.success else "no success"
        clamps = ", ".join(f"{name} {count}" for name, count in self.safety.items() if count) or "none"
        off = f"; {self.safety_off}" if self.safety_off else ""
        lines = [
            f"what was said:\n{self.spoken}"
            if self.spoken
            else f'"{self.instruction}": {outcome} after {self.loop.steps} steps',
            f"safety envelope: {clamps}{off}",
        ]
        if self.loop.fault:
            lines.append(f"STOPPED: {self.loop.fault}")
        if self.loop.cadence is not None:
            lines.append(f"cadence: {self.loop.cadence.text()}")
        return "\n".join([*lines, *([f"video: {self.video}"] if self.video else [])])


def run_session(  # noqa: PLR0915
    config: SessionConfig,
    instruction: str | None = None,
    *,
    prompt: Prompt | None = None,
    say: Callable[[str], None] = print,
    attached: Attachments = Attachments(),  # noqa: B008  # frozen
) -> SessionResult:
    """Follow one sentence, or, with a prompt, whatever is said until ``quit``.

    Args:
        config: robot, policy and how to run.
        instruction: what to do first; without one, the prompt is asked.
        prompt: the operator; None follows the one instruction and returns.
        say: prints progress.
        attached: what else watches, or stands around the arm.

    Raises:
        VlaError: an unknown robot, arm, policy or suite; a policy not made for the arm; a sentence that
            names nothing the suite can put on a table.
    """
    if prompt is None and not instruction:
        raise ConfigError('Say what to do, e.g. "put the red cube in the blue bowl", or ask for a prompt.')
    arm = _arm(config.robot)
    suite, spec = registry.suite(config.suite), PolicySpec.parse(config.policy)
    _check_execution(config, spec, live=config.viewer or prompt is not None)
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
                attempt = _attempt(config, suite, robot, said, driver, prompt, watchers, attached, say)
            if result is not None and not attempt.instruction:  # left or reset without a word
                loop = replace(result.loop, ending=attempt.loop.ending)
                attempt = replace(result, seed=attempt.seed, loop=loop)
            result, seed = attempt, attempt.seed + 1
            if prompt is not None:
                said = "" if prompt.task else prompt.sentence or said
                task, prompt.task = prompt.task or task, ""
    return result if narrator is None else replace(result, spoken=narrator.summary())


def _arm(robot: str) -> str:
    kind, _, arm = robot.partition(":")
    if kind not in ROBOT_KINDS:
        raise UnknownNameError("kind of robot", kind, ROBOT_KINDS)
    return arm


def _check_execution(config: SessionConfig, spec: PolicySpec, *, live: bool) -> None:
    """Refuse to think beside a simulation that waits for nobody, or with a policy that reads it."""
    if config.execution == "sync":
        return
    if not (live if config.realtime is None else config.realtime):
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
    say: Callable[[str], None],
) -> SessionResult:
    """One scene, until it ends or the person wants another; asked first where nothing is ``said`` yet."""
    envelope = SafetyEnvelope.of(robot, config.safety)
    if off := config.safety.warning():
        say(off)
    last = LastInstruction()
    hooks: list[Hook] = [last, UnknownWords(say), *attached.hooks, *watchers]
    narrated = any(isinstance(hook, Narrator) for hook in watchers)
    live = config.viewer or prompt is not None
    with (
        recording(config, robot, prompt) as recorder,
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
        loop = run_loop(
            attached.robot(robot if prompt is None else AdvisingRobot(robot, suite.tasks)),
            ChunkExecutor(
                policy,
                config.execution_horizon or EXECUTION_HORIZON,
                execution=config.execution,
                thinking=thinking,
                hold=holding(envelope),
            ),
            envelope,
            max_steps=config.max_steps or sys.maxsize,
            hooks=[*hooks, *map(attached.recorder, recorder), *windows],
            operator=follower or prompt,
            realtime=live if config.realtime is None else config.realtime,
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
