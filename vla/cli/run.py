"""``vla run``: say to an arm what it shall do, once or in a conversation."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from vla.cli.flags import parse
from vla.cli.session_flags import SessionFlags


@dataclass(frozen=True, kw_only=True)
class Run(SessionFlags):
    """Speak to an arm. Without a sentence it asks, and the instruction can change while the arm moves. What
    is recorded without a sentence is judged by saying success, failure or discard after each motion.

    Args:
        sentence: what to do, e.g. "put the red cube in the blue bowl".
        out: video of a simulated arm; outputs/run/<sentence>.mp4 if not given.
        detailed: wear the detailed menagerie model of a simulated arm, where it is on this machine.
        headless: open no window on the simulation (one opens where there is a display).
        execution_horizon: steps of each chunk to run before thinking again; the policy's own if not given.
    """

    sentence: tyro.conf.Positional[str | None] = None
    out: Path | None = None
    detailed: bool = False
    headless: bool = False
    execution_horizon: int | None = None


def run(argv: Sequence[str]) -> int:
    flags = parse(Run, "run", argv)
    from vla.conversation import Prompt
    from vla.session import run_session

    simulated = flags.robot.startswith("sim:")
    film = Path("outputs/run") / f"{slug(flags.sentence or 'conversation')}.mp4" if simulated else None
    config = flags.session(
        execution_horizon=flags.execution_horizon,
        detailed=flags.detailed,
        video=flags.out or film,
        viewer=simulated and has_display() and not flags.headless,
    )
    prompt = Prompt() if flags.sentence is None else None
    result = run_session(config, flags.sentence, prompt=prompt)
    say = print if prompt is None else prompt.tell
    say(str(result))
    unknown = not (result.judged or result.loop.fault)
    return 0 if prompt is not None or result.loop.success or unknown else 1


def has_display() -> bool:
    """Whether a window can open here."""
    return sys.platform == "linux" and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def slug(sentence: str) -> str:
    """A file name from a sentence."""
    return re.sub(r"[^a-z0-9]+", "-", sentence.lower()).strip("-")[:60] or "run"
