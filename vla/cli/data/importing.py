"""``vla data import``: any demonstrations -> our zarr store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vla.cli.data.flags import Demonstrations
from vla.cli.flags import parse


@dataclass(frozen=True, kw_only=True)
class Import(Demonstrations):
    """Write demonstrations as an episode store; run again, it goes on where it stopped.

    Args:
        out: store to make or to complete.
        instruction: said of every episode that has none of its own.
        image_size: area-resize pictures to this many pixels a side.
        jpeg_quality: of the pictures, 1..100.
        skip_damaged: leave out what cannot be read, list it, exit code 1.
    """

    out: Path
    instruction: str = ""
    image_size: int | None = None
    jpeg_quality: int = 95
    skip_damaged: bool = False


def run_import(argv: Sequence[str]) -> int:
    flags = parse(Import, "data import", argv)
    from vla.data.importing import import_dataset
    from vla.data.mixture import damaged_episodes

    source = flags.open(instruction=flags.instruction, skip_damaged=flags.skip_damaged)
    try:
        done = import_dataset(
            source,
            flags.out,
            jpeg_quality=flags.jpeg_quality,
            image_size=flags.image_size,
            skip_damaged=flags.skip_damaged,
            progress=sys.stderr.isatty(),
        )
        skipped = (*damaged_episodes(source), *done.skipped)
    finally:
        source.close()
    for reason in skipped:
        print(f"skipped: {reason}")
    print(f"{done.path}: {done.num_episodes} episodes, {done.num_steps} steps, {len(skipped)} skipped")
    return int(bool(skipped))
