"""``vla data archive``: demonstrations as a store whose frames are video, a fraction of the size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vla.cli.data.flags import Demonstrations
from vla.cli.flags import parse
from vla.errors import StoreError
from vla.text import counted, sentence


@dataclass(frozen=True, kw_only=True)
class Archive(Demonstrations):
    """Write demonstrations as an archive: a store of ours with AV1 video for frames.

    Every command reads it as it reads any store; drawing windows from it is slower. Numbers stay exact,
    pictures lose a little more than in JPEG.

    Args:
        out: store to make; one that exists is never replaced.
        crf: quality of the video, 1..63; lower is better and larger.
        gop: frames from one that can be decoded alone to the next; more is smaller and slower to draw from.
        preset: effort of the encoder, 0..13; lower is slower and smaller.
    """

    out: Path
    crf: int = 33
    gop: int = 2
    preset: int = 8


def run_archive(argv: Sequence[str]) -> int:
    flags = parse(Archive, "data archive", argv)

    from vla.data.archive import VideoCodec, write_archive
    from vla.data.damage import damage_lines
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
        first = damage_lines((fault.episode, f"{fault.column}: {fault.reason}") for fault in faults)[0]
        raise StoreError(f"{flags.out} does not read back: {sentence(first)} Is the disk sound?")
    print(f"{flags.out}: {counted(count, 'episode')}, {store_bytes(flags.out) / 1e6:.1f} MB")
    return 0
