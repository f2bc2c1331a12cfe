"""``vla data import``: any demonstrations -> our zarr store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vla.cli.data.flags import Demonstrations
from vla.cli.flags import explained, parse
from vla.text import counted


@dataclass(frozen=True, kw_only=True)
class Import(Demonstrations):
    """Write demonstrations as a store of ours; run again, it goes on where it stopped.

    Args:
        out: store to make or to complete.
        instruction: said of every episode that has none of its own.
        image_size: area-resize pictures to this many pixels a side, 1..4096, squeezed to a square.
        jpeg_quality: of the pictures, 1..100; colour at half resolution from 192 pixels on.
        skip_damaged: leave out what cannot be read, list it, and exit with code 1 if there was any.
    """

    out: Path
    instruction: str = ""
    image_size: Annotated[int | None, explained("as they are stored")] = None
    jpeg_quality: int = 95
    skip_damaged: bool = False


def run_import(argv: Sequence[str]) -> int:
    flags = parse(Import, "data import", argv)
    from vla.data.damage import damage_lines, damaged_episodes
    from vla.data.importing import check_settings, import_dataset
    from vla.data.mixture_notes import timing_notes
    from vla.data.summary import left_out

    check_settings(jpeg_quality=flags.jpeg_quality, image_size=flags.image_size)
    source = flags.open(instruction=flags.instruction, skip_damaged=flags.skip_damaged)
    for what, value in left_out(source).items():
        print(f"{what}: {value}")
    for note in timing_notes(source):
        print(f"note: {note}")
    try:
        done = import_dataset(
            source,
            flags.out,
            jpeg_quality=flags.jpeg_quality,
            image_size=flags.image_size,
            skip_damaged=flags.skip_damaged,
            progress=sys.stderr.isatty(),
        )
        skipped = (*damage_lines(damaged_episodes(source)), *done.skipped)
    except KeyboardInterrupt:
        print(f"\nvla: interrupted. {_standing(flags.out)}", file=sys.stderr)
        return 130
    finally:
        source.close()
    for reason in skipped:
        print(f"skipped: {reason}")
    print(
        f"{done.path}: {counted(done.num_episodes, 'episode')}, {counted(done.num_steps, 'step')}, "
        + ("skipped: what is listed above" if skipped else "0 skipped")
    )
    return int(bool(skipped))


def _standing(out: Path) -> str:
    """What an import that was interrupted has left, and how it goes on."""
    from vla.data.store import EpisodeStore

    if not (out / "zarr.json").exists():
        return "Nothing was written."
    with EpisodeStore.open(out) as store:
        return f"{out} holds {counted(len(store), 'whole episode')}; the same command goes on from there."
