"""``vla data export``: any demonstrations -> LeRobotDataset v3.0."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from vla.cli.data.flags import Demonstrations
from vla.cli.flags import explained, parse
from vla.text import counted


@dataclass(frozen=True, kw_only=True)
class Export(Demonstrations):
    """Write demonstrations as a LeRobotDataset v3.0, which lerobot loads and trains on.

    Args:
        out: folder to make; one that exists is never replaced.
        embodiment: whose episodes; must be given where there are several embodiments (one data set each).
        images: store pictures as video (AV1, lossy, small) or as images (PNG, exact).
        fps: rate that the data set states.
    """

    out: Path
    embodiment: Annotated[str | None, explained("the only one")] = None
    images: Literal["video", "image"] = "video"
    fps: Annotated[float | None, explained("the embodiment's control rate")] = None


def run_export(argv: Sequence[str]) -> int:
    from vla.data.exporting import check_fps, export_lerobot

    flags = parse(Export, "data export", argv)
    check_fps(flags.fps)
    source = flags.open()
    try:
        done = export_lerobot(
            source,
            flags.out,
            embodiment=flags.embodiment,
            image_storage=flags.images,
            fps=flags.fps,
            progress=sys.stderr.isatty(),
        )
    finally:
        source.close()
    note = " (this FFmpeg has no AV1 encoder)" if done.pictures == "h264" else ""
    print(
        f"{done.path}: LeRobotDataset v3.0 of {done.embodiment}, {counted(done.num_episodes, 'episode')}, "
        f"{counted(done.num_steps, 'step')}, pictures as {done.pictures}{note}"
    )
    return 0
