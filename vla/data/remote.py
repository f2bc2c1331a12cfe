"""Stores that are read over the network: ranges of objects through fsspec, fetched many at a time.

Small objects (metadata, low-dimensional shards) are fetched whole and kept, up to a limit; frames are
fetched by the batch, in one concurrent call. Nothing is ever written to an object store.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vla.data.shards import INDEX_BYTES, crc32c, parse_index
from vla.errors import MissingExtraError, StoreError
from vla.files import read_json, write_json

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
        got = system.cat_ranges(list(paths), list(starts), ends, on_error="return")
        for path, data in zip(paths, got, strict=True):
            if isinstance(data, FileNotFoundError):
                raise StoreError(f"The shard {path} is missing.") from data
            if isinstance(data, BaseException):
                raise StoreError(f"{path} cannot be read: {data!r}.") from data
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
            self._system = _file_system(self.url, fresh=forked)
        return self._system

    def _reset(self) -> None:
        self._system: tuple[Any, str] | None = None
        self._pid, self._size = os.getpid(), 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._ranges: dict[Span, bytes] = {}
        self._checked: set[str] = set()  # shards whose index is sound


def local_copy(url: str) -> Path:
    """What lies at a URL, fetched into ``~/.cache/vla/remote`` (``VLA_CACHE``) unless it is there already.

    A file counts as there if its size and what else the object store says of its content are as they were
    when it was fetched: entity tag, checksum, version, or else the time of its last change. What has gone
    from the URL since it was fetched is removed; files of other origin (a description written beside the
    data) stay. A server that states nothing but sizes hides changes that keep the size.

    Raises:
        StoreError: there is nothing, or it cannot be fetched.
    """
    system, root = _file_system(url, fresh=False)
    system.invalidate_cache()  # listings that another call has left
    try:
        listed = {name: _state(facts) for name, facts in system.find(root, detail=True).items()}
    except OSError as error:
        raise StoreError(f"{url} cannot be listed: {error!r}.") from error
    if not listed:
        raise StoreError(f"There is nothing at {url}.")
    cache = Path(os.environ.get("VLA_CACHE", "~/.cache/vla")).expanduser() / "remote"
    name = url.rstrip("/").rsplit("/", 1)[-1]
    target = cache / f"{crc32c(url.encode()):08x}" / name  # keeps the name: formats are told by suffixes
    notes = target.with_name(f"{name}.fetched.json")
    fetched = _read_notes(notes)
    wanted = {"." if path == root else os.path.relpath(path, root): path for path in listed}
    _remove(target, [inside for inside in fetched if inside not in wanted])
    there = {inside: state for inside, state in fetched.items() if inside in wanted}
    try:
        for inside, path in wanted.items():
            if there.get(inside) != listed[path] or not (target / inside).is_file():
                there.pop(inside, None)
                _fetch(system, path, target / inside)
                there[inside] = listed[path]
    finally:
        if there != fetched:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_json(notes, there)
    return target


def _state(facts: Mapping[str, Any]) -> list[str]:
    """What an object store says of a file, as far as it tells one content from another."""
    named = {re.sub("[_-]", "", key).lower(): str(value) for key, value in facts.items() if value}
    said = [key for key in _CONTENT if key in named] or [key for key in _TIMES if key in named]
    return [str(facts.get("size")), *(f"{key}={named[key]}" for key in said)]


#: What file systems of fsspec call them, without case, ``_`` and ``-``.
_CONTENT = (
    "etag", "md5", "md5hash", "contentmd5", "sha256", "crc32c", "checksum", "generation", "versionid",
    "blobid", "oid",
)  # fmt: skip
_TIMES = ("lastmodified", "updated", "modified", "mtime", "lastcommit", "created")


def _fetch(system: Any, path: str, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        system.get_file(path, str(part))
        part.replace(file)
    except OSError as error:
        raise StoreError(f"{path} cannot be fetched: {error!r}.") from error
    finally:
        part.unlink(missing_ok=True)


def _remove(target: Path, gone: Iterable[str]) -> None:
    """Files that were fetched and are no longer at the URL, and the folders that they leave empty."""
    for inside in gone:
        file = target / inside
        file.unlink(missing_ok=True)
        for folder in file.parents:
            if folder == target.parent or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def _read_notes(path: Path) -> dict[str, Any]:
    """What was fetched: file -> its state; none where the notes are missing or damaged."""
    try:
        return read_json(path, StoreError, "") if path.exists() else {}
    except StoreError:
        return {}


def _file_system(url: str, *, fresh: bool) -> tuple[Any, str]:
    try:
        import fsspec
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingExtraError("fsspec", "remote", f"Reading {url}") from None
    protocol = url.partition("://")[0]
    try:
        return url_to_fs(url, skip_instance_cache=fresh)
    except ImportError as error:  # the package of this protocol, as fsspec names it
        raise StoreError(f"Reading {url} needs another package: {error}.") from error
    except ValueError as error:
        known = ", ".join(sorted(fsspec.available_protocols()))
        raise StoreError(f"{url}: the protocol {protocol!r} is not known. Known: {known}.") from error
