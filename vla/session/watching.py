"""What watches a session: the sentence in force, words the policy does not know, the recorder, the window."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from vla.control.loop import Hook, Tick
from vla.conversation import Prompt
from vla.data.recorder import StoreRecorder, ensure_store
from vla.data.store import EpisodeStore
from vla.embodiment import Embodiment
from vla.errors import ConfigError
from vla.robots import Reading, Robot
from vla.robots.sim import SimRobot
from vla.teleop import Teleoperator

if TYPE_CHECKING:
    from vla.session.config import SessionConfig


@dataclass(frozen=True, kw_only=True)
class Attachments:
    """What else is attached to a session, in every scene.

    Args:
        hooks: that watch; ``started`` is also called when a scene is shown before anything was said.
        robot: puts something around the arm, e.g. a button that stops it from another thread.
        recorder: puts something around the hook that records, e.g. a switch.
        device: that a person moves the arm with, in turn with the policy.
    """

    hooks: tuple[Hook, ...] = ()
    robot: Callable[[Robot], Robot] = field(default=lambda robot: robot)
    recorder: Callable[[Hook], Hook] = field(default=lambda hook: hook)
    device: Teleoperator | None = None


class LastInstruction:
    """Hook that remembers the sentence in force."""

    text = ""

    def started(self, reading: Reading) -> None:
        self.text = reading.observation.instruction

    def ticked(self, tick: Tick) -> None:
        self.text = tick.observation.instruction


class Compared:
    """Hook that says at the end of a replayed episode how far from it the policy was."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def started(self, reading: Reading) -> None:
        """Nothing was commanded yet."""

    def ticked(self, tick: Tick) -> None:
        info = tick.reading.info
        if tick.reading.done and "mean_difference" in info:
            self._say(
                f"from what was executed then, the actions differ by {info['mean_difference']:.1%} of half "
                f"of their ranges (mean of {info['of']} steps), at most {info['largest_difference']:.1%}: "
                f"{info['largest_entry']} at step {info['largest_step']}"
            )


class UnknownWords:
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
def recording(
    config: SessionConfig, arm: Embodiment, prompt: Prompt | None, **facts: Any
) -> Iterator[list[Hook]]:
    """The hook that records into the store the configuration names; none where it names none.

    ``facts`` are stored with every episode.
    """
    if config.record is None:
        yield []
        return
    ensure_store(config.record, "vla.run")
    facts = {"robot": config.robot, "source": config.policy, **facts}
    with (
        EpisodeStore.open(config.record) as store,
        StoreRecorder(
            store,
            arm,
            {**facts, "recorded_by": "vla.run"},
            tell=None if prompt is None else prompt.tell,
        ) as recorder,
    ):
        if prompt is not None:
            prompt.judge = recorder.judge
        try:
            yield [recorder]
        finally:
            if prompt is not None:
                prompt.judge = None


@contextlib.contextmanager
def window(robot: SimRobot, *, wanted: bool) -> Iterator[list[Hook]]:
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
