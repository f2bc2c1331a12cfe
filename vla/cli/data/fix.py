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

    Exit code 1 where something of PATH could not be opened at all: it is listed, and not in the new store.
    Pictures of our own stores are copied as they are stored; others, and video that is cut or re-timed, are
    encoded anew, and that is said.

    Args:
        out: the new store, a directory that does not exist.
        trim_idle: leave idle stretches at start and end out.
        drop: leave episodes with these kinds of findings out: kinds as 'vla data check' prints them, or
            damaged, frames, duplicates; separated by commas.
        cut: cut episodes to the best stretch without these kinds (frames: all faults of pictures): the
            longest, not counting steps that have another fault; only kinds that name steps.
        retime: bring all episodes to this rate, Hz.
        instruction: said in episodes that have none; others keep theirs.
        restamp: give episodes whose time stamps do not rise even ones, at the control rate.
        jpeg_quality: of pictures that are encoded anew, 1..100.
        frames: look for faults in a few pictures of each camera and episode, or in all.
    """

    out: Path
    trim_idle: bool = False
    drop: str = ""
    cut: str = ""
    retime: float | None = None
    restamp: bool = False
    instruction: str = ""
    jpeg_quality: int = 95
    frames: Literal["sampled", "all"] = "all"


def run_fix(argv: Sequence[str]) -> int:
    flags = parse(Fix, "data fix", argv)
    from vla.data.check import CheckConfig
    from vla.data.fix import FixConfig, fix
    from vla.text import counted

    config = FixConfig(
        trim_idle=flags.trim_idle,
        drop=_names(flags.drop),
        cut=_names(flags.cut),
        retime_hz=flags.retime,
        restamp=flags.restamp,
        instruction=flags.instruction,
        jpeg_quality=flags.jpeg_quality,
        check=CheckConfig(frames=flags.frames),
    )
    source = flags.open(tolerate_damage=True)
    try:
        fixed = fix(source, flags.out, config, progress=sys.stderr.isatty())
    finally:
        source.close()
    for line in (*map("not opened: {}".format, fixed.lost[:_SHOWN]), *map(str, fixed.changes[:_SHOWN])):
        print(line)
    more = max(len(fixed.lost) - _SHOWN, 0) + max(len(fixed.changes) - _SHOWN, 0)
    if more:
        print(f"... and {more} more; the provenance of {flags.out} lists all")
    print(
        f"{flags.path}: {counted(fixed.num_episodes_before, 'episode')}, "
        f"{counted(fixed.num_steps_before, 'step')}"
        + (f" could be opened; NOT OPENED: {len(fixed.lost)} (above)" if fixed.lost else "")
        + f"; {counted(len(fixed.changes), 'episode')} changed or left out"
    )
    if fixed.retimed:
        before = ", ".join(f"{name!r} from {hz:g}" for name, hz in fixed.retimed.items())
        print(f"all {fixed.num_episodes} kept episodes re-timed to {config.retime_hz:g} Hz: {before}")
    if fixed.num_copied:
        print(f"{fixed.num_copied} pictures copied as they were stored")
    if fixed.num_encoded:
        print(f"{fixed.num_encoded} pictures encoded anew ({fixed.codec})")
    share = f"{100 * fixed.num_steps / max(fixed.num_steps_before, 1):.0f} % of those there were"
    kept = f"{counted(fixed.num_episodes, 'episode')}, {counted(fixed.num_steps, 'step')}"
    print(f"{flags.out}: {kept}" + ("" if fixed.retimed else f" ({share})"))
    return int(bool(fixed.lost))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
