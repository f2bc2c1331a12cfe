"""A conversation with an arm: what a person says, and what they are told: what is there, what can be said,
how it goes.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from vla.control.loop import Command, Tick
from vla.data.recorder import VERDICTS, Verdict
from vla.errors import ConfigError, UnknownNameError, VlaError
from vla.robots import Reading, Robot
from vla.robots.sim import Describing, SimRobot
from vla.robots.wrapper import RobotWrapper
from vla.text import wrapped

HELP = """Say what to do, e.g. "put the red cube in the blue bowl"; say something else at any time.
  stop         hold still until the next sentence
  halt         stop the robot; it stays stopped until reset
  reset        a new scene in which the last sentence can be followed
  reset TASK   a new scene of this task
  help         this, and what can be said here
  quit         leave"""
HARDWARE_HELP = """Say what to do, e.g. "put the red cube in the blue bowl"; say something else at any time.
  stop         hold still until the next sentence
  halt         stop the arm; it stays stopped until reset
  reset        connect again, stand still, and wait for a sentence
  help         this
  quit         leave"""
HELP_RECORDING = """  success, failure, discard
               what becomes of the episode recorded last; said while the arm moves, it holds still"""
#: Sentences that are listed at most.
MAX_EXAMPLES = 12
#: A motion that takes longer is remarked upon.
PATIENCE_S = 15.0


def scene_text(robot: SimRobot) -> str:
    """What is there and what can be said, two indented paragraphs; empty where the env cannot tell."""
    if not isinstance(robot.env, Describing):
        return ""
    said = robot.env.sentences()
    lines = [f"  there:  {', '.join(robot.env.things())}"]
    lines += [
        f"  {'say:' if i == 0 else '':<6}  {sentence}" for i, sentence in enumerate(said[:MAX_EXAMPLES])
    ]
    if len(said) > MAX_EXAMPLES:
        lines.append(f"{'':<10}... and {len(said) - MAX_EXAMPLES} more")
    return "\n".join(lines)


def ready_text(robot: SimRobot, policy: str, tasks: Sequence[str]) -> str:
    """The lines that tell a person that the arm listens now."""
    sort = f"{robot.env.scene()} scene" if isinstance(robot.env, Describing) else "scene"
    parts = [
        f"READY: {robot.embodiment.name} before {sort} {robot.seed}, policy {policy}. "
        "It holds still until you say something.",
        scene_text(robot),
        f"  tasks:  {', '.join(tasks)}",
        "  or:     stop, reset, reset TASK, help, quit",
    ]
    return "\n".join(part for part in parts if part)


class LineStream(Protocol):
    """Where lines come from: a text stream, or anything that gives them one by one."""

    def __iter__(self) -> Iterator[str]: ...

    def isatty(self) -> bool: ...


class Prompt:
    """An operator who types: lines are read in a thread, so the loop never waits for them.

    Args:
        stream: where lines come from; its end means the person has left.
        say: prints to the person; what is said at a terminal stands before the sign that one can type.

    Attributes:
        sentence: the last that was said.
        task: of the scene that was asked for with the last ``reset``; empty where none was named.
        tasks: those that may be named.
        help: what ``help`` says, and ``scene``, what it says besides.
        judge: takes a verdict on what was recorded, and says whether the arm shall hold still; None where
            nothing is recorded.
    """

    def __init__(self, stream: LineStream | None = None, say: Callable[[str], None] = print) -> None:
        self._stream, self._say = stream or sys.stdin, say
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.sentence = self.task = self.scene = ""
        self.help = HELP
        self.tasks: tuple[str, ...] = ()
        self._left = False
        self.judge: Callable[[Verdict], bool] | None = None
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
        if self._stream.isatty():
            print("\r\033[K", end="")
        self._say(message)
        if self._stream.isatty() and not self._left:
            print("> ", end="", flush=True)

    def _listen(self) -> None:
        for line in self._stream:
            self._lines.put(line.strip())
        self._lines.put(None)

    def _command(self, line: str | None) -> Command | None:
        self._left = line in (None, "quit")
        if line is None:
            return Command(kind="leave")
        word, _, rest = line.partition(" ")
        if word == "reset":
            if rest and rest not in self.tasks:
                self.tell(str(UnknownNameError("task", rest, self.tasks)))
                return None
            self.task = rest
            return Command(kind="reset")
        if line in ("stop", "halt", "quit"):
            return Command(kind=line)
        if line in VERDICTS:
            if self.judge is None:
                self.tell("nothing is recorded: vla run --record STORE does.")
            return Command(kind="stop") if self.judge is not None and self.judge(line) else None
        if line in ("", "help", "?"):
            verdicts = HELP_RECORDING if self.judge is not None else ""
            self.tell("\n".join(part for part in (self.help, verdicts, self.scene) if part))
            return None
        self.sentence = line
        return Command(kind="instruct", text=line)


class AdvisingRobot(RobotWrapper):
    """A simulated arm that answers a sentence it cannot follow with those that it can.

    Args:
        robot: wrapped; whoever made it closes it.
        tasks: scenes that can be had instead.
    """

    def __init__(self, robot: SimRobot, tasks: Sequence[str], inner: Robot | None = None) -> None:
        super().__init__(inner or robot)
        self._env, self._tasks = robot.env, tuple(tasks)
        self._scene = partial(scene_text, robot)

    def sentences(self) -> list[str]:
        """What can be said in the scene as it is; empty where the env cannot tell."""
        return self._env.sentences() if isinstance(self._env, Describing) else []

    def set_instruction(self, text: str) -> Reading:
        """As the robot does; what it refuses is raised as ConfigError with the way out."""
        try:
            return self._robot.set_instruction(text)
        except VlaError as error:
            raise ConfigError(f"{error}\n{self._way_out(str(error))}") from error

    def _way_out(self, told: str) -> str:
        """What can be said here, unless that was ``told`` already, and how to get to another scene."""
        env = self._env
        listed = isinstance(env, Describing) and all(sentence in told for sentence in env.sentences())
        other = wrapped(
            "Say 'reset' for a scene in which it can be done, or 'reset TASK' for one of: "
            f"{', '.join(self._tasks)}."
        )
        return other if listed else "\n".join(part for part in (self._scene(), other) if part)


@dataclass(kw_only=True)
class Spoken:
    """One sentence and what came of it: ``done``, ``changed`` (for another), ``stopped`` or ``not done``."""

    sentence: str
    steps: int = 0
    outcome: str = "not done"

    def text(self, control_hz: float) -> str:
        """One line for a person."""
        return f'"{self.sentence}": {self.outcome} after {self.steps} steps ({self.steps / control_hz:.1f} s)'


class Narrator:
    """Hook that says when the arm begins to move for a sentence, and remembers how each one ended.

    Args:
        say: prints to the person.
        control_hz: of the arm.
    """

    def __init__(self, say: Callable[[str], None], control_hz: float) -> None:
        self._say, self._control_hz = say, control_hz
        self._moving = False
        self.spoken: list[Spoken] = []

    def started(self, reading: Reading) -> None:
        """A new scene: whatever was going on before is over."""
        self._moving = False

    def ticked(self, tick: Tick) -> None:
        if tick.chunk is None:
            if self._moving:
                self._end("stopped")
            return
        sentence = tick.observation.instruction
        if self._moving and self.spoken[-1].sentence != sentence:
            self._end("changed")
        if not self._moving:
            self.spoken.append(Spoken(sentence=sentence))
            self._moving = True
            self._say(f'moving: "{sentence}"')
        now = self.spoken[-1]
        now.steps += 1
        if tick.reading.info.get("success", False):
            self._end("done")
        elif now.steps == round(PATIENCE_S * self._control_hz):
            self._say(f"still trying after {PATIENCE_S:g} s; say something else, stop, reset or quit.")

    def summary(self) -> str:
        """Every sentence, one line each."""
        return "\n".join(f"  {item.text(self._control_hz)}" for item in self.spoken)

    def _end(self, outcome: str) -> None:
        self.spoken[-1].outcome, self._moving = outcome, False
