"""Growing zarr v3 arrays that any zarr library can read and that are read here without one.

Each array grows along its first axis. Its elements lie uncompressed, in order, in *shards*
(``sharding_indexed`` codec, index at the start), so a shard file is flat::

    byte 0     index: 255 x (offset, length) uint64, then its crc32c    (the zarr shard index)
    byte 4096  chunk 0, chunk 1, ... chunk 254                          (whole, little endian, C order)

The index fits in one page and is replaced by one ``pwrite``, so a killed writer leaves the old index
or the new one. Rows past the last committed one are never read.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from vla.errors import StoreError
from vla.files import write_json

if TYPE_CHECKING:
    from vla.data.remote import RemotePath

HEADER_BYTES = 4096
CHUNKS_PER_SHARD = 255  # 255 * 16 + 4 bytes of index: the most that fit in one page
INDEX_BYTES = CHUNKS_PER_SHARD * 16 + 4
_MISSING = 2**64 - 1

#: CRC-32C (Castagnoli) of bytes, the checksum zarr uses.
crc32c: Callable[[bytes], int] = google_crc32c.value


def write_group(directory: Path, attributes: dict[str, Any], *, durable: bool = False) -> None:
    """Create or replace a zarr group's metadata."""
    directory.mkdir(parents=True, exist_ok=True)
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    write_json(directory / "zarr.json", group, durable=durable)


@dataclass(frozen=True, kw_only=True)
class ArrayLayout:
    """Element type and chunking of a growing array; ``width`` is None for a 1-D array."""

    dtype: str
    width: int | None
    chunk_rows: int

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
        try:
            data = json.loads((directory / "zarr.json").read_text())
            configuration = data["codecs"][0]["configuration"]
            chunk, shape = configuration["chunk_shape"], data["shape"]
            layout = cls(
                dtype=data["data_type"], width=shape[1] if len(shape) == 2 else None, chunk_rows=chunk[0]
            )
            expected = layout.metadata(shape[0], data["dimension_names"])
        except FileNotFoundError:
            raise StoreError(f"The array {directory} is missing.") from None
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise StoreError(f"The metadata of array {directory} are damaged ({error!r}).") from error
        if data != expected:
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
    present = entries[:, 0] != _MISSING
    chunk_bytes = int(entries[present, 1].max(initial=0))
    expected = HEADER_BYTES + np.arange(CHUNKS_PER_SHARD, dtype=np.uint64) * chunk_bytes
    if (entries[present, 0] != expected[present]).any():
        raise StoreError(
            f"Shard {path} is not laid out as this package writes it (rewritten by another tool?)."
        )
    return present


def _is_whole(page: bytes) -> bool:
    return len(page) == INDEX_BYTES and crc32c(page[:-4]) == int.from_bytes(page[-4:], "little")


class ArrayWriter:
    """Writes rows anywhere at or past the committed end of one array; creates it when it is new."""

    def __init__(self, directory: Path, layout: ArrayLayout, names: list[str]) -> None:
        self.directory, self.layout, self.names = directory, layout, names
        self._shape = -1
        if (directory / "zarr.json").exists():
            stored, self._shape = ArrayLayout.load(directory)
            if stored != layout:
                raise StoreError(
                    f"Array {directory} holds {stored}, given {layout}: widths must stay the same."
                )
        else:
            directory.mkdir(parents=True, exist_ok=True)
            self.set_rows(0)
        self._shard, self._fd = -1, -1
        self._present = np.zeros(CHUNKS_PER_SHARD, bool)
        self._unsynced = False

    def write(self, start: int, rows: np.ndarray | bytes) -> None:
        """Put ``rows`` at row ``start``; they count once the caller has committed them elsewhere."""
        if isinstance(rows, np.ndarray):
            rows = np.asarray(rows, np.dtype(self.layout.dtype).newbyteorder("<")).tobytes()
        data = memoryview(rows)
        position = start * self.layout.row_bytes
        while data:
            shard, offset = divmod(position, self.layout.shard_bytes)
            self._select(shard)
            size = min(len(data), self.layout.shard_bytes - offset)
            written = os.pwrite(self._fd, data[:size], HEADER_BYTES + offset)
            self._mark(offset, offset + written)
            data, position = data[written:], position + written
        self._unsynced = True
        end = -(-position // self.layout.shard_bytes) * self.layout.chunk_rows * CHUNKS_PER_SHARD
        if end > self._shape:
            self.set_rows(end)

    def set_rows(self, rows: int) -> None:
        """Set the array's length in its metadata (whole shards while writing, exact when closed)."""
        if rows != self._shape:
            write_json(self.directory / "zarr.json", self.layout.metadata(rows, self.names))
            self._shape = rows

    def sync(self) -> None:
        """Wait until what was written would survive a loss of power."""
        if self._fd >= 0 and self._unsynced:
            os.fdatasync(self._fd)
        self._unsynced = False

    def close(self) -> None:
        self.sync()
        if self._fd >= 0:
            os.close(self._fd)
        self._shard, self._fd = -1, -1

    def _select(self, shard: int) -> None:
        if shard == self._shard:
            return
        self.close()
        path = self.directory / self.layout.file(shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._present = np.zeros(CHUNKS_PER_SHARD, bool)
        fresh = not path.exists()
        if fresh:
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_bytes(self._index())
            temporary.replace(path)
        self._fd, self._shard = os.open(path, os.O_RDWR), shard
        if not fresh:
            self._present = read_index(self._fd, str(path)).copy()

    def _mark(self, start: int, stop: int) -> None:
        """List the chunks that hold bytes ``start..stop`` in the index; a listed chunk is whole."""
        first, last = start // self.layout.chunk_bytes, (stop - 1) // self.layout.chunk_bytes
        if self._present[first : last + 1].all():
            return
        before = self._present.copy()
        self._present[first : last + 1] = True
        end = HEADER_BYTES + (last + 1) * self.layout.chunk_bytes
        try:
            if os.fstat(self._fd).st_size < end:
                os.ftruncate(self._fd, end)
            os.pwrite(self._fd, self._index(), 0)
        except OSError:  # the file does not list them: the next write must
            self._present = before
            raise

    def _index(self) -> bytes:
        entries = np.full((CHUNKS_PER_SHARD, 2), _MISSING, "<u8")
        chunks = np.flatnonzero(self._present)
        entries[chunks, 0] = HEADER_BYTES + chunks * self.layout.chunk_bytes
        entries[chunks, 1] = self.layout.chunk_bytes
        raw = entries.tobytes()
        return raw + crc32c(raw).to_bytes(4, "little")
