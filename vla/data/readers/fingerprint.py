"""What tells that files have changed since a run began, at a bounded cost and whoever copied them.

Names, sizes and content count; times, owners and the folder's place do not. Data sets of up to
``BUDGET_BYTES`` are covered to the last byte. Of a larger one each file gets an equal share of that, at least
``SHARE_BYTES``: files that fit into theirs are read whole; of the others evenly spread blocks, both ends
among them, and the whole footer of a parquet file (sizes and value ranges of all its column chunks). A change
between those blocks that moves nothing else is NOT noticed; checksums in the files themselves are there for
that.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vla.data.shards import crc32c

BUDGET_BYTES = 256 << 20
SHARE_BYTES = 128 << 10
_BLOCK_BYTES = 16 << 10
_PARQUET = b"PAR1"


def fingerprint(files: Iterable[Path], root: Path) -> list[list[str | int]]:
    """Name below ``root``, size and CRC-32C of what was read of each file, in the order of their names."""
    paths = sorted(set(files))
    sizes = [path.stat().st_size for path in paths]
    share = sum(sizes) if sum(sizes) <= BUDGET_BYTES else max(SHARE_BYTES, BUDGET_BYTES // len(paths))
    return [
        [path.relative_to(root).as_posix(), size, _checksum(path, size, share)]
        for path, size in zip(paths, sizes, strict=True)
    ]


def _checksum(path: Path, size: int, share: int) -> int:
    with path.open("rb") as file:
        if size <= share:
            return _extended(file, [(0, size)])
        starts = np.linspace(0, size - _BLOCK_BYTES, share // _BLOCK_BYTES).astype(np.int64).tolist()
        return _extended(file, [*((start, _BLOCK_BYTES) for start in starts), _footer(file, size)])


def _extended(file: BinaryIO, spans: Iterable[tuple[int, int]]) -> int:
    value = 0
    for start, length in spans:
        file.seek(start)
        value = crc32c(value.to_bytes(4, "little") + file.read(length))
    return value


def _footer(file: BinaryIO, size: int) -> tuple[int, int]:
    """Start and length of a parquet file's metadata; nothing where it is no such file."""
    file.seek(size - 8)
    tail = file.read(8)
    length = struct.unpack("<I", tail[:4])[0] if tail[4:] == _PARQUET else 0
    return (size - 8 - length, length) if length <= size - 8 else (0, 0)
