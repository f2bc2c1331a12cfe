"""``vla data archive``: demonstrations as a store whose frames are video, a fraction of the size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vla.cli.data.flags import Demonstrations
from vla.cli.flags import parse
from vla.errors import StoreError


@dataclass(frozen=True, kw_only=True)
class Archive(Demonstrations):
    """Write demonstrations as an archive: the same store with AV1 video for frames.

    Every command reads it as it reads any store; drawing windows from it is slower. Numbers stay exact,
    pictures lose a little more than in JPEG.

    Args:
        out: store to make.
        crf: quality of the video, 1..63; lower is better and larger.
        gop: frames from one that stands alone to the next; more is smaller and slower to draw from.
        preset: effort of the encoder, 0..13; lower is slower and smaller.
    """

    out: Path
    crf: int = 33
    gop: int = 2
    preset: int = 8


def run_archive(argv: Sequence[str]) -> int:
    flags = parse(Archive, "data archive", argv)

    from vla.data.archive import VideoCodec, write_archive
    from vla.data.store import EpisodeStore
    from vla.data.summary import store_bytes

    codec = VideoCodec(crf=flags.crf, gop=flags.gop, preset=flags.preset)
    source = flags.open()
    try:
        if not len(source):
            raise StoreError(f"{flags.path} has no episodes: nothing to archive.")
        write_archive(source, flags.out, codec)
        count = len(source)
    finally:
        source.close()
    with EpisodeStore.open(flags.out) as store:
        faults = store.verify()
    if faults:
        raise StoreError(f"{flags.out} does not read back: {faults[0]}. Is the disk sound?")
    print(f"{flags.out}: {count} episodes, {store_bytes(flags.out) / 1e6:.1f} MB")
    return 0
