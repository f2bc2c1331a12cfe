"""What a session is set up with, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vla.control.chunks import Execution
from vla.control.loop import LoopResult
from vla.control.safety import SafetyConfig
from vla.errors import ConfigError
from vla.robots.named import ArmSettings

#: Share of the policy's own speed at which a real arm moves, unless another is asked for.
DEFAULT_SPEED = 0.25


@dataclass(frozen=True, kw_only=True)
class HardwareConfig:
    """What a session needs to know of a real arm.

    Args:
        arm: where it is, its cameras, its speed.
        embodiment: which of the policy's arms it is driven as; empty: that of its kind's name, or the only
            one.
        dry_run: connect, look, think, and send nothing.
        confirmed: nobody is asked before the first motion; the checks that refuse it still do.
        seconds: that one sentence may take where nobody is there to say stop.
    """

    arm: ArmSettings = field(default_factory=lambda: ArmSettings(speed=DEFAULT_SPEED))
    embodiment: str = ""
    dry_run: bool = False
    confirmed: bool = False
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.seconds < np.inf:
            raise ConfigError(f"seconds is {self.seconds}; expected more than 0.")


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """A session.

    Args:
        robot: ``sim:ARM``, or a kind of real arm (``vla.robots.named``).
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
        judge: ``openai:MODEL@URL``, a model that sees the picture and says when a sentence is done; empty:
            the robot itself says so, or nobody does.
        teleop: what a person moves the arm with, in turn with the policy, or alone where the policy is
            ``off`` (``vla.teleop.named``); empty: nothing.
        leader_calibration: of a leader arm.
        hardware: of a real arm; its defaults where it is not given.
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
    judge: str = ""
    teleop: str = ""
    leader_calibration: str = ""
    hardware: HardwareConfig | None = None


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
        judged: somebody knows whether it was done: a simulator, or a model that looks.
    """

    instruction: str
    seed: int
    loop: LoopResult
    safety: Mapping[str, int]
    video: Path | None
    spoken: str = ""
    safety_off: str = ""
    judged: bool = True

    def __str__(self) -> str:
        if not self.instruction:
            return "Nothing was said, nothing moved."
        outcome = ("success" if self.loop.success else "no success") if self.judged else "ended"
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
