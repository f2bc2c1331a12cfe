"""Writes growing zarr arrays in flat shards (see ``vla.data.shards``)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from vla.data.shards import (
    CHUNKS_PER_SHARD,
    HEADER_BYTES,
    MISSING,
    ArrayLayout,
    crc32c,
    read_index,
    write_document,
)
from vla.errors import StoreError


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
            write_document(self.directory / "zarr.json", self.layout.metadata(rows, self.names))
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

    def __del__(self) -> None:
        """Let go of the file of a store that nobody closed."""
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

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
        entries = np.full((CHUNKS_PER_SHARD, 2), MISSING, "<u8")
        chunks = np.flatnonzero(self._present)
        entries[chunks, 0] = HEADER_BYTES + chunks * self.layout.chunk_bytes
        entries[chunks, 1] = self.layout.chunk_bytes
        raw = entries.tobytes()
        return raw + crc32c(raw).to_bytes(4, "little")
