"""``vla data import``: any demonstrations -> our zarr store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from vla.cli.flags import parse


@dataclass(frozen=True)
class Import:
    """Write demonstrations as an episode store; run again, it goes on where it stopped.

    Args:
        path: directory or file: LeRobotDataset, RLDS, HDF5, diffusion-policy zarr, or a store.
        out: store to make or to complete.
        description: embodiment file that says what the columns mean (default: the one beside the data).
        instruction: said of every episode that has none of its own.
        image_size: area-resize pictures to this many pixels a side.
        jpeg_quality: of the pictures, 1..100.
        skip_damaged: leave out what cannot be read, list it, exit code 1.
    """

    path: tyro.conf.Positional[Path]
    out: Path
    description: Path | None = None
    instruction: str = ""
    image_size: int | None = None
    jpeg_quality: int = 95
    skip_damaged: bool = False


def run_import(argv: Sequence[str]) -> int:
    flags = parse(Import, "data import", argv)
    from vla.data.importing import import_dataset
    from vla.data.mapped import MappedSource
    from vla.data.readers import open_source

    source = open_source(
        flags.path, flags.description, instruction=flags.instruction, skip_damaged=flags.skip_damaged
    )
    try:
        done = import_dataset(
            source,
            flags.out,
            jpeg_quality=flags.jpeg_quality,
            image_size=flags.image_size,
            skip_damaged=flags.skip_damaged,
            progress=sys.stderr.isatty(),
        )
        raw = source.raw if isinstance(source, MappedSource) else None
        skipped = (*getattr(raw, "damaged", ()), *done.skipped)
    finally:
        source.close()
    for reason in skipped:
        print(f"skipped: {reason}")
    print(f"{done.path}: {done.num_episodes} episodes, {done.num_steps} steps, {len(skipped)} skipped")
    return int(bool(skipped))
