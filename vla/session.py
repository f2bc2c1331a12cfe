"""Speaking to an arm: one sentence, or a conversation in which the instruction changes mid-motion."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

from vla import registry
from vla.control.chunks import ChunkExecutor
from vla.control.loop import Command, Hook, LoopResult, Tick, run_loop
from vla.control.policies import EXECUTION_HORIZON, PolicySpec, check_contract, contract_of
from vla.control.safety import SafetyConfig, SafetyEnvelope
from vla.data.recorder import StoreRecorder, ensure_store
from vla.data.store import EpisodeStore
from vla.errors import ConfigError, UnknownNameError, VlaError
from vla.interfaces import Policy
from vla.report.video import LiveVideo, VideoWriter
from vla.robots import Reading
from vla.robots.sim import SimRobot, sim_robot

HELP = """Say what to do, e.g. "put the red cube in the blue bowl"; say something else at any time.
  stop   hold still until the next sentence
  reset  a new scene in which the last sentence can be followed
  quit   leave"""
ROBOT_KINDS = ("sim",)


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """A session.

    Args:
        robot: ``sim:ARM``.
        policy: ``expert``, ``learned:PATH`` ... (see ``PolicySpec``).
        suite: registered suite that the simulated arm lives in.
        seed: where the search for a scene starts.
        execution_horizon: steps of each chunk to run before replanning; None takes the policy's own.
        max_steps: of one attempt without an operator; 0 leaves it to the env's own limit.
        detailed: the suite's detailed looks of the arm (the suite must have them).
        video: mp4 to write (a conversation: one file for all of it, at most ``MAX_FILM_S`` long); None for
            none.
        viewer: open MuJoCo's viewer, where there is a display.
        realtime: keep the control rate; None does so for a viewer or a conversation.
        safety: limits of the envelope.
        record: episode store that every sentence followed, with success or not, is added to (made if
            missing); None for none.
    """

    robot: str = "sim:panda"
    policy: str = "expert"
    suite: str = "tabletop"
    seed: int = 0
    execution_horizon: int | None = None
    max_steps: int = 0
    detailed: bool = False
    video: Path | None = None
    viewer: bool = False
    realtime: bool | None = None
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    record: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SessionResult:
    """How a session ended; ``safety`` counts the changes of each stage of the envelope."""

    instruction: str
    seed: int
    loop: LoopResult
    safety: Mapping[str, int]
    video: Path | None

    def __str__(self) -> str:
        outcome = "success" if self.loop.success else "no success"
        clamps = ", ".join(f"{name} {count}" for name, count in self.safety.items() if count) or "none"
        lines = [
            f'"{self.instruction}": {outcome} after {self.loop.steps} steps',
            f"safety envelope: {clamps}",
        ]
        if self.loop.overruns:
            lines.append(f"late turns: {self.loop.overruns}")
        return "\n".join([*lines, *([f"video: {self.video}"] if self.video else [])])


class Prompt:
    """An operator who types: lines are read in a thread, so the loop never waits for them.

    Args:
        stream: where lines come from; its end means the person has left.
        say: prints to the person.
    """

    def __init__(self, stream: TextIO | None = None, say: Callable[[str], None] = print) -> None:
        self._stream, self._say = stream or sys.stdin, say
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.sentence = ""
        threading.Thread(target=self._listen, daemon=True, name="prompt").start()

    def poll(self) -> Command | None:
        with contextlib.suppress(queue.Empty):
            return self._command(self._lines.get_nowait())
        return None

    def wait(self) -> Command:
        """The next command, however long it takes."""
        while True:
            command = self._command(self._lines.get())
            if command is not None:
                return command

    def tell(self, message: str) -> None:
        self._say(message)

    def _listen(self) -> None:
        for line in self._stream:
            self._lines.put(line.strip())
        self._lines.put(None)

    def _command(self, line: str | None) -> Command | None:
        if line is None:
            return Command(kind="leave")
        if line in ("stop", "reset", "quit"):
            return Command(kind=line)
        if line in ("", "help", "?"):
            self.tell(HELP)
            return None
        self.sentence = line
        return Command(kind="instruct", text=line)


def run_session(
    config: SessionConfig,
    instruction: str | None = None,
    *,
    prompt: Prompt | None = None,
    say: Callable[[str], None] = print,
) -> SessionResult:
    """Follow one sentence, or, with a prompt, whatever is said until ``quit``.

    Args:
        config: robot, policy and how to run.
        instruction: what to do first; without one, the prompt is asked.
        prompt: the operator; None follows the one instruction and returns.
        say: prints progress.

    Raises:
        VlaError: an unknown robot, arm, policy or suite; a policy not made for the arm; a sentence that
            names nothing the suite can put on a table.
    """
    kind, _, arm = config.robot.partition(":")
    if kind not in ROBOT_KINDS:
        raise UnknownNameError("kind of robot", kind, ROBOT_KINDS)
    suite, spec = registry.suite(config.suite), PolicySpec.parse(config.policy)
    policy: Policy | None = None if spec.is_bound else spec.build()
    contract = None if policy is None else contract_of(policy)
    make_kwargs: dict[str, Any] = {} if contract is None else {"image_size": contract.image_size}
    if config.detailed:
        make_kwargs["detailed"] = True
    if config.execution_horizon is None:
        horizon = EXECUTION_HORIZON if contract is None else contract.execution_horizon
        config = replace(config, execution_horizon=horizon)
    said, seed, result = instruction or _first_sentence(prompt), config.seed, None
    with contextlib.ExitStack() as stack:
        writer: VideoWriter | None = None
        while result is None or (prompt is not None and result.loop.ending == "reset"):
            try:
                robot = sim_robot(suite, arm, said, seed=seed, **make_kwargs)
            except UnknownNameError:
                raise
            except VlaError as error:
                if prompt is None:
                    raise
                prompt.tell(str(error))
                said = result.instruction if result is not None else _first_sentence(prompt)
                continue
            with contextlib.closing(robot):
                if policy is not None:
                    check_contract(policy, robot.embodiment)
                if config.video is not None and writer is None:
                    fps = robot.embodiment.control_hz
                    writer = stack.enter_context(VideoWriter(config.video, fps=fps))
                say(f'{robot.embodiment.name}, scene {robot.seed}: "{said}"')
                driver = policy or spec.build(suite=suite, env=robot.env)
                result = _attempt(config, robot, driver, prompt, writer, say)
            seed, said = result.seed + 1, (prompt.sentence if prompt else "") or said
    return result


def _attempt(
    config: SessionConfig,
    robot: SimRobot,
    policy: Policy,
    prompt: Prompt | None,
    writer: VideoWriter | None,
    say: Callable[[str], None],
) -> SessionResult:
    """One scene, until it ends or the person wants another."""
    envelope = SafetyEnvelope(robot.embodiment, config.safety)
    last = _LastInstruction()
    hooks: list[Hook] = [last, _UnknownWords(say)]
    if writer is not None:
        hooks.append(LiveVideo(robot.env, writer, say=say))
    live = config.viewer or prompt is not None
    with _recorder(config, robot) as recorder, _viewer(robot, wanted=config.viewer) as watching:
        loop = run_loop(
            robot,
            ChunkExecutor(policy, config.execution_horizon or EXECUTION_HORIZON),
            envelope,
            max_steps=config.max_steps or sys.maxsize,
            hooks=[*hooks, *recorder, *watching],
            operator=prompt,
            realtime=live if config.realtime is None else config.realtime,
        )
    return SessionResult(
        instruction=last.text, seed=robot.seed, loop=loop, safety=dict(envelope.counts), video=config.video
    )


def _first_sentence(prompt: Prompt | None) -> str:
    if prompt is None:
        raise ConfigError('Say what to do, e.g. "put the red cube in the blue bowl", or ask for a prompt.')
    prompt.tell(HELP)
    while True:
        command = prompt.wait()
        if command.kind == "instruct":
            return command.text
        if command.kind in ("quit", "leave"):
            raise KeyboardInterrupt
        prompt.tell("Nothing is running yet: say what to do first.")


class _LastInstruction:
    """Hook that remembers the sentence in force."""

    text = ""

    def started(self, reading: Reading) -> None:
        self.text = reading.observation.instruction

    def ticked(self, tick: Tick) -> None:
        self.text = tick.observation.instruction


class _UnknownWords:
    """Hook that tells the person, once a sentence, which of its words the policy does not know."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._told = say, ""

    def started(self, reading: Reading) -> None:
        """Nothing has been understood yet."""

    def ticked(self, tick: Tick) -> None:
        sentence = tick.observation.instruction
        if tick.chunk is None or sentence == self._told:
            return
        self._told = sentence
        if words := tick.chunk.info.get("unknown_words"):
            self._say(f"The policy does not know {', '.join(map(repr, words))} and acts on the other words.")


@runtime_checkable
class _Mujoco(Protocol):
    """An env whose simulation MuJoCo's viewer can show."""

    model: Any
    data: Any


@contextlib.contextmanager
def _recorder(config: SessionConfig, robot: SimRobot) -> Iterator[list[Hook]]:
    """The hook that records into the store the configuration names; none where it names none."""
    if config.record is None:
        yield []
        return
    ensure_store(config.record, "vla.run")
    facts = {"robot": config.robot, "suite": config.suite, "seed": robot.seed, "source": config.policy}
    with (
        EpisodeStore.open(config.record) as store,
        StoreRecorder(store, robot.embodiment, {**facts, "recorded_by": "vla.run"}) as recorder,
    ):
        yield [recorder]


@contextlib.contextmanager
def _viewer(robot: SimRobot, *, wanted: bool) -> Iterator[list[Hook]]:
    """MuJoCo's own window on the simulation as a hook; none where it is not wanted."""
    if not wanted:
        yield []
        return
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ConfigError("There is no display to open a viewer on: leave the viewer out and write a video.")
    if not isinstance(robot.env, _Mujoco):
        raise ConfigError("This suite's simulation has no MuJoCo model for the viewer to show.")
    import mujoco.viewer

    with mujoco.viewer.launch_passive(robot.env.model, robot.env.data) as window:
        yield [_Window(window)]


class _Window:
    """Hook that shows each state."""

    def __init__(self, window: Any) -> None:
        self._window = window

    def started(self, reading: Reading) -> None:
        self._window.sync()

    def ticked(self, tick: Tick) -> None:
        self._window.sync()
