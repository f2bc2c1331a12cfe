"""``vla data fix``: repair what can be repaired, into a new store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vla.cli.data.flags import Demonstrations
from vla.cli.flags import parse

_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Fix(Demonstrations):
    """Write repaired demonstrations into a new store; PATH is only read.

    Args:
        out: the new store, a directory that does not exist.
        trim_idle: leave idle stretches at start and end out.
        drop: leave episodes with these kinds of findings out: kinds as 'vla data check' prints them, or
            damaged, frames, duplicates; separated by commas.
        cut: cut episodes to their longest stretch without these kinds (frames: all faults of pictures).
        retime: bring all episodes to this rate, Hz.
        restamp: give episodes whose time stamps do not rise even ones, at the control rate.
        frames: look for faults in a few pictures of each camera and episode, or in all.
    """

    out: Path
    trim_idle: bool = False
    drop: str = ""
    cut: str = ""
    retime: float | None = None
    restamp: bool = False
    frames: Literal["sampled", "all"] = "all"


def run_fix(argv: Sequence[str]) -> int:
    flags = parse(Fix, "data fix", argv)
    from vla.data.check import CheckConfig
    from vla.data.fix import FixConfig, fix

    config = FixConfig(
        trim_idle=flags.trim_idle,
        drop=_names(flags.drop),
        cut=_names(flags.cut),
        retime_hz=flags.retime,
        restamp=flags.restamp,
        check=CheckConfig(frames=flags.frames),
    )
    source = flags.open(tolerate_damage=True)
    count, steps = len(source), sum(info.length for info in source.episodes)
    fixed = fix(source, flags.out, config, progress=sys.stderr.isatty())
    source.close()
    for change in fixed.changes[:_SHOWN]:
        print(change)
    if len(fixed.changes) > _SHOWN:
        print(f"... and {len(fixed.changes) - _SHOWN} more; the provenance of {flags.out} lists all")
    print(f"{flags.path}: {count} episodes, {steps} steps; {len(fixed.changes)} episodes changed or left out")
    print(f"{flags.out}: {fixed.num_episodes} episodes, {fixed.num_steps} steps")
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
