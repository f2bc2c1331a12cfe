"""``vla run``: say to an arm what it shall do, once or in a conversation."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from vla.cli.flags import parse, policy_spec


@dataclass(frozen=True)
class Run:
    """Speak to an arm. Without a sentence it asks, and the instruction can change while the arm moves.

    Args:
        sentence: what to do, e.g. "put the red cube in the blue bowl".
        robot: kind and arm, e.g. sim:panda.
        policy: default (shipped), a directory that vla train wrote, expert, random, zero, or NAME:PATH.
        head: which of the policy's action heads decides; its default if not given.
        suite: registered suite that a simulated arm lives in.
        seed: where the search for a scene that fits the sentence starts.
        task: scene that a conversation opens with; the suite's first if not given.
        out: video; outputs/run/<sentence>.mp4 if not given.
        detailed: wear the detailed menagerie model of the arm, where it is on this machine.
        headless: open no window on the simulation (one opens where there is a display).
        execution_horizon: steps of each chunk to run before thinking again; the policy's own if not given.
        execution: what the arm does while the policy thinks, in real time: hold still (sync), execute the
            last chunk on (async), average all chunks (ensemble), have it continued by the next (rtc).
        planner: takes apart what is said: rules (at "then", "before", full stops ...), openai:MODEL@URL,
            local:FOLDER, or off.
        record: episode store that what is done is added to (made if missing); without a sentence, say
            success, failure or discard after each motion.
    """

    sentence: tyro.conf.Positional[str | None] = None
    robot: str = "sim:panda"
    policy: str = "default"
    head: str | None = None
    suite: str = "tabletop"
    seed: int = 0
    task: str = ""
    out: Path | None = None
    detailed: bool = False
    headless: bool = False
    execution_horizon: int | None = None
    execution: Literal["sync", "async", "ensemble", "rtc"] = "sync"
    planner: str = "rules"
    record: Path | None = None


def run(argv: Sequence[str]) -> int:
    flags = parse(Run, "run", argv)
    from vla.conversation import Prompt
    from vla.session import SessionConfig, run_session

    config = SessionConfig(
        robot=flags.robot,
        policy=policy_spec(flags.policy, flags.head),
        suite=flags.suite,
        seed=flags.seed,
        task=flags.task,
        execution_horizon=flags.execution_horizon,
        execution=flags.execution,
        detailed=flags.detailed,
        video=flags.out or Path("outputs/run") / f"{slug(flags.sentence or 'conversation')}.mp4",
        viewer=has_display() and not flags.headless,
        planner="" if flags.planner == "off" else flags.planner,
        record=flags.record,
    )
    prompt = Prompt() if flags.sentence is None else None
    result = run_session(config, flags.sentence, prompt=prompt)
    say = print if prompt is None else prompt.tell
    say(str(result))
    return 0 if prompt is not None or result.loop.success else 1


def has_display() -> bool:
    """Whether a window can open here."""
    return sys.platform == "linux" and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def slug(sentence: str) -> str:
    """A file name from a sentence."""
    return re.sub(r"[^a-z0-9]+", "-", sentence.lower()).strip("-")[:60] or "run"
