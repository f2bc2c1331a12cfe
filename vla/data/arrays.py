"""Random access to the rows of zarr arrays that lie in flat shards, on this machine or in an object store.

Reading is ``pread`` at a computed place; zarr-python would spend 2-4 ms on each access.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vla.data.shards import HEADER_BYTES, ArrayLayout, read_index
from vla.errors import StoreError
from vla.text import sentence

if TYPE_CHECKING:
    from vla.data.remote import RemoteFiles, RemotePath, Span

_MAX_OPEN_FILES = 256  # below the usual limit of 1024 a process


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

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Bytes of a shard; fewer where it ends early."""
        try:
            return os.pread(self.get(path), size, offset)
        except OSError as error:  # a bad sector
            raise StoreError(f"The shard {path} cannot be read: {sentence(error)}") from error

    read_small = read  # a remote store fetches and keeps what is small

    def __getstate__(self) -> tuple[()]:
        """Nothing that is open goes to another process."""
        return ()

    def __setstate__(self, _: tuple[()]) -> None:
        self._fds, self._pid = OrderedDict(), os.getpid()

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])

    __del__ = close  # of a store that nobody closed

    def _open(self, path: str) -> int:
        try:
            fd = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(f"The shard {path} is missing.") from None
        try:
            read_index(fd, path)
        except StoreError:
            os.close(fd)
            raise
        return fd


class ArrayReader:
    """Random access to the committed rows of one array.

    Args:
        directory: the array's.
        files: read its shards.
    """

    def __init__(self, directory: Path | RemotePath, files: FileHandles | RemoteFiles) -> None:
        self.directory, self.files = directory, files
        self.layout, self.rows = ArrayLayout.load(directory)
        self._read = files.read if self.layout.dtype == "uint8" else files.read_small  # frames are large
        self._shard_bytes = self.layout.shard_bytes
        self._row_bytes = self.layout.row_bytes
        self._paths: list[str] = []

    def path(self, shard: int) -> str:
        while len(self._paths) <= shard:
            self._paths.append(str(self.directory / self.layout.file(len(self._paths))))
        return self._paths[shard]

    def read_bytes(self, start: int, count: int) -> bytes:
        """``count`` rows from row ``start``, raw."""
        shard, offset = divmod(start * self._row_bytes, self._shard_bytes)
        size = count * self._row_bytes
        if offset + size <= self._shard_bytes:
            path = self._paths[shard] if shard < len(self._paths) else self.path(shard)
            raw = self._read(path, HEADER_BYTES + offset, size)
        else:
            raw = b"".join([self._read(*span) for span in self.spans(start, count)])
        if len(raw) != size:
            raise StoreError(f"The shard {self.path(shard)} is truncated: {len(raw)} of {size} bytes.")
        return raw

    def spans(self, start: int, count: int) -> list[Span]:
        """What of which shards ``count`` rows from row ``start`` take."""
        position, remaining = start * self._row_bytes, count * self._row_bytes
        shard, offset = divmod(position, self._shard_bytes)
        found = []
        while remaining:
            size = min(remaining, self._shard_bytes - offset)
            found.append((self.path(shard), HEADER_BYTES + offset, size))
            remaining, shard, offset = remaining - size, shard + 1, 0
        return found

    def as_array(self, raw: bytes | memoryview) -> np.ndarray:
        """Raw rows -> array [n] or [n width] in native byte order (read-only view)."""
        array = np.frombuffer(raw, np.dtype(self.layout.dtype).newbyteorder("<"))
        return array if self.layout.width is None else array.reshape(-1, self.layout.width)

    def missing_bytes(self, spans: Iterable[tuple[int, int]]) -> str:
        """Why the shards cannot hold the chunks of rows ``start..stop``, or ""; looks at file sizes only."""
        for start, stop in spans:
            begin, end = start * self._row_bytes, stop * self._row_bytes
            for shard in range(begin // self._shard_bytes, -(-end // self._shard_bytes)):
                used = min(end - shard * self._shard_bytes, self._shard_bytes)
                needed = HEADER_BYTES + -(-used // self.layout.chunk_bytes) * self.layout.chunk_bytes
                try:
                    size = os.stat(self.path(shard)).st_size
                except OSError:
                    return f"{self.path(shard)} is missing"
                if size < needed:
                    return f"{self.path(shard)} has {size} bytes, expected at least {needed}"
        return ""
