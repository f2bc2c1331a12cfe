"""Stores that are read over the network: ranges of objects through fsspec, fetched many at a time.

Small objects (metadata, low-dimensional shards) are fetched whole and kept, up to a limit; frames are
fetched by the batch, in one concurrent call. Nothing is ever written to an object store. Other formats are
fetched whole (``vla.data.remote_copy``).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vla.data.shards import INDEX_BYTES, parse_index
from vla.errors import MissingExtraError, StoreError, VlaError
from vla.text import sentence

#: A file's path, a byte offset in it, and how many bytes from there on.
Span = tuple[str, int, int]
_KEPT_BYTES = 256 << 20


def is_url(path: object) -> bool:
    """Whether a path names a place that is not in this machine's file system (``s3://...``)."""
    return isinstance(path, str) and "://" in path


class RemotePath:
    """A place in an object store; has those methods of ``pathlib.Path`` with which a store is read."""

    def __init__(self, files: RemoteFiles, path: str) -> None:
        self.files, self._path = files, path

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(self.files, f"{self._path.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self._path

    @property
    def name(self) -> str:
        return self._path.rstrip("/").rsplit("/", 1)[-1]

    def read_bytes(self) -> bytes:
        return self.files.read_file(self._path)

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def exists(self) -> bool:
        return bool(self.files.fetch([self._path]))


class RemoteFiles:
    """Reads objects below a URL; each process has its own connection.

    Args:
        url: such as ``s3://bucket/demos.zarr``; its protocol must be one that fsspec knows.

    Raises:
        MissingExtraError: fsspec is not installed.
        StoreError: fsspec does not know the protocol, or lacks the package for it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._reset()
        self._connect()

    def __getstate__(self) -> str:
        return self.url

    def __setstate__(self, url: str) -> None:
        self.url = url
        self._reset()

    @property
    def root(self) -> RemotePath:
        return RemotePath(self, self._connect()[1])

    def read(self, path: str, offset: int, size: int) -> bytes:
        """A range; one that was prefetched is handed out once."""
        raw = self._ranges.pop((path, offset, size), None)
        return self._get([(path, offset, size)])[0] if raw is None else raw

    def read_small(self, path: str, offset: int, size: int) -> bytes:
        """A range of a shard that is fetched whole and kept."""
        try:
            raw = self.read_file(path)
        except FileNotFoundError:
            raise StoreError(f"The shard {path} is missing.") from None
        self._check_index(path, raw[:INDEX_BYTES])
        return raw[offset : offset + size]

    def read_file(self, path: str) -> bytes:
        """A whole object, kept; ``FileNotFoundError`` where there is none."""
        if path not in self._kept and path not in self.fetch([path]):
            raise FileNotFoundError(path)
        self._kept.move_to_end(path)
        return self._kept[path]

    def fetch(self, paths: Sequence[str]) -> set[str]:
        """Get whole objects in one concurrent call and keep them; which of them there are."""
        missing = [path for path in dict.fromkeys(paths) if path not in self._kept]
        with speaking_of(self.url):
            found = self._connect()[0].cat(missing, on_error="return") if missing else {}
        for path, data in found.items():
            if isinstance(data, (FileNotFoundError, KeyError, IsADirectoryError)):
                continue
            if isinstance(data, BaseException):
                raise StoreError(f"{path} cannot be read: {data!r}.") from data
            self._kept[path] = bytes(data)
            self._size += len(data)
        there = {path for path in paths if path in self._kept}
        while self._size > _KEPT_BYTES and len(self._kept) > len(there):
            self._size -= len(self._kept.popitem(last=False)[1])
        return there

    def prefetch(self, spans: Iterable[Span]) -> None:
        """Get ranges in one concurrent call, for :meth:`read` to hand out; forgets those before."""
        wanted = list(dict.fromkeys(spans))
        self._ranges = dict(zip(wanted, self._get(wanted), strict=True))

    def total_bytes(self) -> int | None:
        """Of all objects below the URL; None where the server does not list them."""
        system, root = self._connect()
        try:
            with speaking_of(self.url):
                return int(system.du(root))
        except (StoreError, NotImplementedError, FileNotFoundError):
            return None

    def close(self) -> None:
        self._reset()

    def _get(self, spans: list[Span]) -> list[bytes]:
        if not spans:
            return []
        system = self._connect()[0]
        new = [
            (path, 0, INDEX_BYTES)
            for path in dict.fromkeys(span[0] for span in spans)
            if path not in self._checked
        ]
        paths, starts, sizes = zip(*new, *spans, strict=True)
        ends = [start + size for start, size in zip(starts, sizes, strict=True)]
        with speaking_of(self.url):
            got = system.cat_ranges(list(paths), list(starts), ends, on_error="return")
        for path, size, data in zip(paths, sizes, got, strict=True):
            if isinstance(data, FileNotFoundError):
                raise StoreError(f"The shard {path} is missing.") from data
            if isinstance(data, BaseException):
                raise StoreError(f"{path} cannot be read: {data!r}.") from data
            if len(data) > size:
                raise StoreError(
                    f"{path}: asked for {size} bytes, the server sent {len(data)}. It does not serve ranges: "
                    "use one that does (S3, nginx, ...), or fetch the store and read it from there."
                )
        for (path, _, _), data in zip(new, got, strict=False):
            self._check_index(path, bytes(data))
        return [bytes(data) for data in got[len(new) :]]

    def _check_index(self, path: str, page: bytes) -> None:
        if path not in self._checked:
            parse_index(page, path)
            self._checked.add(path)

    def _connect(self) -> tuple[Any, str]:
        """The file system and the root's path in it, of this process."""
        if self._system is None or self._pid != os.getpid():
            forked = self._system is not None
            self._reset()
            self._system = file_system(self.url, fresh=forked)
        return self._system

    def _reset(self) -> None:
        self._system: tuple[Any, str] | None = None
        self._pid, self._size = os.getpid(), 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._ranges: dict[Span, bytes] = {}
        self._checked: set[str] = set()  # shards whose index is sound


@contextmanager
def speaking_of(url: str) -> Iterator[None]:
    """Whatever goes wrong inside is a :class:`StoreError` that names the URL.

    Drivers raise what their libraries do (botocore without credentials, aiohttp on a broken answer), of
    which OSError is only one: the one place where everything is caught.
    """
    try:
        yield
    except VlaError:
        raise
    except Exception as error:
        raise StoreError(f"{url} cannot be read: {type(error).__name__}: {error}") from error


def file_system(url: str, *, fresh: bool = False) -> tuple[Any, str]:
    """The file system of fsspec that a URL names, and the path in it.

    Args:
        url: such as ``s3://bucket/demos``.
        fresh: make one that no other part of this process uses (after a fork).

    Raises:
        MissingExtraError: fsspec is not installed.
        StoreError: fsspec does not know the protocol, or lacks the package for it.
    """
    try:
        import fsspec
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingExtraError("fsspec", "remote", f"Reading {url}") from None
    protocol = url.partition("://")[0]
    try:
        return url_to_fs(url, skip_instance_cache=fresh)
    except ImportError as error:  # the package of this protocol, as fsspec names it
        raise StoreError(f"Reading {url} needs another package: {sentence(error)}") from error
    except ValueError as error:
        known = ", ".join(sorted(fsspec.available_protocols()))
        raise StoreError(f"{url}: the protocol {protocol!r} is not known. Known: {known}.") from error
