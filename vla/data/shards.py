"""The layout of growing zarr v3 arrays that any zarr library can read and that are read here without one.

Each array grows along its first axis. Its elements lie uncompressed, in order, in *shards*
(``sharding_indexed`` codec, index at the start), so a shard file is flat::

    byte 0     index: 255 x (offset, length) uint64, then its crc32c    (the zarr shard index)
    byte 4096  chunk 0, chunk 1, ... chunk 254                          (whole, little endian, C order)

The index fits in one page and is replaced by one ``pwrite``, so a killed writer leaves the old index
or the new one. Rows past the last committed one are never read. Every ``zarr.json`` has a checksum of its
own among its attributes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from vla.errors import StoreError
from vla.files import as_json, write_text
from vla.text import counted, sentence

if TYPE_CHECKING:
    from vla.data.remote import RemotePath

HEADER_BYTES = 4096
CHUNKS_PER_SHARD = 255  # 255 * 16 + 4 bytes of index: the most that fit in one page
INDEX_BYTES = CHUNKS_PER_SHARD * 16 + 4
MISSING = 2**64 - 1  # offset and length of a chunk that a shard does not hold
_CHECKSUM = "vla_crc32c"

#: CRC-32C (Castagnoli) of bytes, the checksum zarr uses.
crc32c: Callable[[bytes], int] = google_crc32c.value


def write_document(path: Path, document: Mapping[str, Any], *, durable: bool = False) -> None:
    """Create or replace a ``zarr.json`` and note its checksum in it, last among its attributes."""
    blank = {**document, "attributes": {**document["attributes"], _CHECKSUM: "0" * 8}}
    before, mark, after = as_json(blank).rpartition(f'"{_CHECKSUM}": "')
    checksum = crc32c((before + mark + after).encode())
    write_text(path, f"{before}{mark}{checksum:08x}{after[8:]}", durable=durable)


def read_document(path: Path | RemotePath) -> tuple[dict[str, Any], bool | None]:
    """A ``zarr.json`` without its checksum, and whether every byte is as it was written.

    None where it has no checksum, as in stores of format version 1 and 2. One that is missing or no metadata
    of zarr v3 raises :class:`StoreError`.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise StoreError(f"{path} is missing.") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {sentence(error)}") from error
    try:
        document = json.loads(raw)
        checksum = document["attributes"].pop(_CHECKSUM, None)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(f"{path} is damaged ({error!r}).") from error
    if checksum is None:
        return document, None
    before, mark, after = raw.rpartition(b'"%s": "' % _CHECKSUM.encode())
    found = crc32c(before + mark + b"0" * 8 + after[8:])
    return document, after[:9] == b'%08x"' % found


def group_document(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a group's ``zarr.json``."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def write_group(directory: Path, attributes: Mapping[str, Any], *, durable: bool = False) -> None:
    """Create or replace a zarr group's metadata."""
    directory.mkdir(parents=True, exist_ok=True)
    write_document(directory / "zarr.json", group_document(attributes), durable=durable)


@dataclass(frozen=True, kw_only=True)
class ArrayLayout:
    """Element type and chunking of a growing array; ``width`` is None for a 1-D array."""

    dtype: str
    width: int | None
    chunk_rows: int

    def __str__(self) -> str:
        wide = "one number" if self.width is None else counted(self.width, "number")
        return f"{wide} of {self.dtype} a row, {self.chunk_rows} rows a chunk"

    @property
    def row_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * (1 if self.width is None else self.width)

    @property
    def chunk_bytes(self) -> int:
        return self.chunk_rows * self.row_bytes

    @property
    def shard_bytes(self) -> int:
        return self.chunk_bytes * CHUNKS_PER_SHARD

    def shape(self, rows: int) -> list[int]:
        return [rows] if self.width is None else [rows, self.width]

    def file(self, shard: int) -> str:
        """The shard's name below the array's directory."""
        return f"c/{shard}" if self.width is None else f"c/{shard}/0"

    def metadata(self, rows: int, names: list[str]) -> dict[str, Any]:
        """Content of the array's ``zarr.json``."""
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        sharding = {
            "chunk_shape": self.shape(self.chunk_rows),
            "codecs": [{"name": "bytes"} if self.dtype == "uint8" else little],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "start",
        }
        shard_shape = self.shape(self.chunk_rows * CHUNKS_PER_SHARD)
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": self.shape(rows),
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard_shape}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": {},
            "dimension_names": names,
        }

    @classmethod
    def load(cls, directory: Path | RemotePath) -> tuple[ArrayLayout, int]:
        """Layout and number of rows of a stored array; raises :class:`StoreError` if it is not ours."""
        data, _ = read_document(directory / "zarr.json")
        try:
            chunk, shape = data["codecs"][0]["configuration"]["chunk_shape"], data["shape"]
            layout = cls(
                dtype=data["data_type"], width=shape[1] if len(shape) == 2 else None, chunk_rows=chunk[0]
            )
            expected = layout.metadata(shape[0], data["dimension_names"])
            if layout.shard_bytes < 1 or not all(isinstance(n, int) for n in (*shape, *chunk)):
                raise ValueError(f"shape {shape} in chunks of {chunk}")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise StoreError(f"The metadata of array {directory} are damaged ({error!r}).") from error
        if {**data, "attributes": {}} != expected:
            raise StoreError(
                f"Array {directory} has another zarr layout than this package writes (rewritten by another "
                "tool?). Read it with a zarr library and append its episodes to a new store."
            )
        return layout, shape[0]


def read_index(fd: int, path: str) -> np.ndarray:
    """bool [255]: which chunks a shard holds; checks length, checksum and that the shard is flat."""
    for _ in range(2):  # a live writer may replace the page while it is read
        page = os.pread(fd, INDEX_BYTES, 0)
        if _is_whole(page):
            break
        time.sleep(0.01)
    return parse_index(os.pread(fd, INDEX_BYTES, 0), path)


def parse_index(page: bytes, path: str) -> np.ndarray:
    """The same of the first ``INDEX_BYTES`` of a shard, for its ``path`` in errors."""
    if not _is_whole(page):
        raise StoreError(f"The index of shard {path} is truncated or damaged.")
    entries = np.frombuffer(page[:-4], "<u8").reshape(-1, 2)
    present = entries[:, 0] != MISSING
    chunk_bytes = int(entries[present, 1].max(initial=0))
    expected = HEADER_BYTES + np.arange(CHUNKS_PER_SHARD, dtype=np.uint64) * chunk_bytes
    if (entries[present, 0] != expected[present]).any():
        raise StoreError(
            f"Shard {path} is not laid out as this package writes it (rewritten by another tool?)."
        )
    return present


def _is_whole(page: bytes) -> bool:
    return len(page) == INDEX_BYTES and crc32c(page[:-4]) == int.from_bytes(page[-4:], "little")
