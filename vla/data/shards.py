"""Growing zarr v3 arrays that any zarr library can read and that are read here without one.

Each array grows along its first axis. Its elements lie uncompressed, in order, in *shards*
(``sharding_indexed`` codec, index at the start), so a shard file is flat::

    byte 0     index: 255 x (offset, length) uint64, then its crc32c    (the zarr shard index)
    byte 4096  chunk 0, chunk 1, ... chunk 254                          (whole, little endian, C order)

The index fits in one page and is replaced by one ``pwrite``, so a killed writer leaves the old index
or the new one. Rows past the last committed one are never read. Reading is ``pread`` at a computed place;
zarr-python would spend 2-4 ms on each access.
"""

from __future__ import annotations

import json
import os
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from vla.errors import StoreError
from vla.files import write_json

HEADER_BYTES = 4096
CHUNKS_PER_SHARD = 255  # 255 * 16 + 4 bytes of index: the most that fit in one page
_MISSING = 2**64 - 1
_MAX_OPEN_FILES = 256  # below the usual limit of 1024 a process


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), the checksum zarr uses."""
    return google_crc32c.value(data)


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

    def file(self, directory: Path, shard: int) -> Path:
        return directory / "c" / (str(shard) if self.width is None else f"{shard}/0")

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
    def load(cls, directory: Path) -> tuple[ArrayLayout, int]:
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


class FileHandles:
    """Read-only file descriptors by path: at most 256 open, and reopened in a forked process."""

    def __init__(self) -> None:
        self._fds: OrderedDict[str, int] = OrderedDict()
        self._pid = os.getpid()

    def get(self, path: str) -> int:
        """Descriptor of a shard whose index was checked when it was opened."""
        if self._pid != os.getpid():
            self.close()
            self._pid = os.getpid()
        fd = self._fds.get(path)
        if fd is None:
            fd = self._open(path)
            self._fds[path] = fd
            if len(self._fds) > _MAX_OPEN_FILES:
                os.close(self._fds.popitem(last=False)[1])
        return fd

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def _open(self, path: str) -> int:
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise StoreError(f"The shard {path} is missing.") from None
        try:
            read_index(fd, path)
        except StoreError:
            os.close(fd)
            raise
        return fd


def read_index(fd: int, path: str) -> np.ndarray:
    """bool [255]: which chunks a shard holds; checks length, checksum and that the shard is flat."""
    size = CHUNKS_PER_SHARD * 16
    for _ in range(3):  # a live writer may replace the page while it is read
        page = os.pread(fd, size + 4, 0)
        if len(page) == size + 4 and crc32c(page[:size]) == int.from_bytes(page[size:], "little"):
            break
        time.sleep(0.01)
    else:
        raise StoreError(f"The index of shard {path} is truncated or damaged.")
    entries = np.frombuffer(page[:size], "<u8").reshape(-1, 2)
    present = entries[:, 0] != _MISSING
    chunk_bytes = int(entries[present, 1].max(initial=0))
    expected = HEADER_BYTES + np.arange(CHUNKS_PER_SHARD, dtype=np.uint64) * chunk_bytes
    if (entries[present, 0] != expected[present]).any():
        raise StoreError(
            f"Shard {path} is not laid out as this package writes it (rewritten by another tool?)."
        )
    return present


class ArrayReader:
    """Random access to the committed rows of one array."""

    def __init__(self, directory: Path, handles: FileHandles) -> None:
        self.directory = directory
        self.layout, self.rows = ArrayLayout.load(directory)
        self._handles = handles
        self._shard_bytes = self.layout.shard_bytes
        self._row_bytes = self.layout.row_bytes
        self._paths: list[str] = []

    def path(self, shard: int) -> str:
        while len(self._paths) <= shard:
            self._paths.append(str(self.layout.file(self.directory, len(self._paths))))
        return self._paths[shard]

    def read_bytes(self, start: int, count: int) -> bytes:
        """``count`` rows from row ``start``, raw."""
        position, remaining = start * self._row_bytes, count * self._row_bytes
        shard, offset = divmod(position, self._shard_bytes)
        if offset + remaining <= self._shard_bytes:
            return self._pread(shard, offset, remaining)
        parts = []
        while remaining:
            size = min(remaining, self._shard_bytes - offset)
            parts.append(self._pread(shard, offset, size))
            remaining, shard, offset = remaining - size, shard + 1, 0
        return b"".join(parts)

    def as_array(self, raw: bytes | memoryview) -> np.ndarray:
        """Raw rows -> array [n] or [n width] in native byte order (read-only view)."""
        array = np.frombuffer(raw, np.dtype(self.layout.dtype).newbyteorder("<"))
        return array if self.layout.width is None else array.reshape(-1, self.layout.width)

    def missing_bytes(self, spans: Iterable[tuple[int, int]]) -> str:
        """Why the shards cannot hold rows ``start..stop``, or an empty string; looks at file sizes only."""
        for start, stop in spans:
            begin, end = start * self._row_bytes, stop * self._row_bytes
            for shard in range(begin // self._shard_bytes, -(-end // self._shard_bytes)):
                needed = HEADER_BYTES + min(end - shard * self._shard_bytes, self._shard_bytes)
                try:
                    size = os.stat(self.path(shard)).st_size
                except FileNotFoundError:
                    return f"{self.path(shard)} is missing"
                if size < needed:
                    return f"{self.path(shard)} has {size} bytes, expected at least {needed}"
        return ""

    def _pread(self, shard: int, offset: int, size: int) -> bytes:
        path = self.path(shard)
        raw = os.pread(self._handles.get(path), size, HEADER_BYTES + offset)
        if len(raw) != size:
            raise StoreError(f"The shard {path} is truncated: {len(raw)} of {size} bytes at {offset}.")
        return raw


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
        path = self.layout.file(self.directory, shard)
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
        self._present[first : last + 1] = True
        end = HEADER_BYTES + (last + 1) * self.layout.chunk_bytes
        if os.fstat(self._fd).st_size < end:
            os.ftruncate(self._fd, end)
        os.pwrite(self._fd, self._index(), 0)

    def _index(self) -> bytes:
        entries = np.full((CHUNKS_PER_SHARD, 2), _MISSING, "<u8")
        chunks = np.flatnonzero(self._present)
        entries[chunks, 0] = HEADER_BYTES + chunks * self.layout.chunk_bytes
        entries[chunks, 1] = self.layout.chunk_bytes
        raw = entries.tobytes()
        return raw + crc32c(raw).to_bytes(4, "little")
