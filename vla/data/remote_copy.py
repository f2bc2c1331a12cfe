"""Foreign formats at a URL: fetched whole, once, to where their readers can open files."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from vla.data.remote import file_system, speaking_of
from vla.data.shards import crc32c
from vla.errors import ConfigError, DatasetError, StoreError
from vla.files import read_json, write_json

_LIMIT_GB = 10.0
_SPARE_BYTES = 1 << 30  # left free on the disk
_log = logging.getLogger(__name__)


def local_copy(url: str) -> Path:
    """What lies at a URL, fetched into ``~/.cache/vla/remote`` (``VLA_CACHE``) unless it is there already.

    How much that is, is said before; more than 10 GB (``VLA_FETCH_GB``) or than the disk has room for is
    refused. A fetch that was interrupted goes on with the files that are missing.

    A file counts as there if its size and what else the object store says of its content are as they were
    when it was fetched: entity tag, checksum, version, or else the time of its last change. What has gone
    from the URL since it was fetched is removed; files of other origin (a description written beside the
    data) stay. A server that states nothing but sizes hides changes that keep the size.

    Raises:
        StoreError: there is nothing, it is too much, or it cannot be fetched.
        DatasetError: a listed name leads out of the folder that it would be fetched into; nothing is fetched
            or removed then.
    """
    system, root = file_system(url)
    with speaking_of(url):
        sizes, listed = _list(system, root)
    if not listed:
        raise StoreError(f"There is nothing at {url}.")
    cache = Path(os.environ.get("VLA_CACHE", "~/.cache/vla")).expanduser() / "remote"
    name = url.rstrip("/").rsplit("/", 1)[-1]
    target = cache / f"{crc32c(url.encode()):08x}" / name  # keeps the name: formats are told by suffixes
    notes = target.with_name(f"{name}.fetched.json")
    fetched = _read_notes(notes)
    wanted = {_inside(root, path, url): path for path in listed}
    for inside in (*wanted, *fetched):
        _check_stays(target, inside, url)
    _remove(target, [inside for inside in fetched if inside not in wanted])
    there = {inside: state for inside, state in fetched.items() if inside in wanted}
    missing = {
        inside: path
        for inside, path in wanted.items()
        if there.get(inside) != listed[path] or not (target / inside).is_file()
    }
    if missing:
        target.parent.mkdir(parents=True, exist_ok=True)
        _announce(url, target, [sizes[path] for path in missing.values()])
    total = sum(sizes[path] or 0 for path in missing.values())
    try:
        with tqdm(
            total=total, unit="B", unit_scale=True, desc=name, disable=not missing or not sys.stderr.isatty()
        ) as bar:
            for inside, path in missing.items():
                there.pop(inside, None)
                _fetch(system, path, target / inside, bar)
                there[inside] = listed[path]
    finally:
        if there != fetched:
            write_json(notes, there)
    return target


def _list(system: Any, root: str) -> tuple[dict[str, int | None], dict[str, list[str]]]:
    """The files below a path, or the one that it is: their sizes, where known, and their states."""
    system.invalidate_cache()  # listings that another call has left
    try:
        itself = system.info(root)
    except FileNotFoundError:
        itself = {}
    if itself.get("type") == "file" and itself.get("mimetype") != "text/html":  # an HTTP server's listing
        found = {root: itself}
    else:
        found = system.find(root, detail=True)
    for path, facts in found.items():
        if facts.get("size") is None:  # listings over HTTP have names alone
            found[path] = system.info(path)
    return {path: facts.get("size") for path, facts in found.items()}, {
        path: _state(facts) for path, facts in found.items()
    }


def _inside(root: str, path: str, url: str) -> str:
    """Where a listed file lies below the root; ``.`` for the root itself."""
    if path == root:
        return "."
    if ".." in PurePosixPath(path.removeprefix(root)).parts:  # told apart before they are taken out
        raise _leaves(path, url)
    return os.path.relpath(path, root)


def _check_stays(target: Path, inside: str, url: str) -> None:
    """Raise for a name that leads out of ``target``: by its parts, or by a link that lies there."""
    name = PurePosixPath(inside)
    if name.is_absolute() or ".." in name.parts or "\\" in inside or "\0" in inside:
        raise _leaves(inside, url)
    if inside != "." and not (target / inside).parent.resolve().is_relative_to(target.resolve()):
        raise _leaves(inside, url)


def _leaves(name: str, url: str) -> DatasetError:
    return DatasetError(
        f"{url} lists the file {name!r}, which would lie outside of the folder that it is fetched into. "
        "Nothing was fetched or removed; expected names below the URL, without '..', '\\' or links: mend the "
        "listing, or fetch the files yourself and give their folder."
    )


def _announce(url: str, target: Path, sizes: list[int | None]) -> None:
    """Say what is about to be fetched; refuse what nobody can have meant, or what has no room."""
    total, unknown = sum(size or 0 for size in sizes), sum(size is None for size in sizes)
    what = f"{_amount(total)} in {len(sizes)} files" + (f" ({unknown} of unknown size)" if unknown else "")
    limit = _limit_bytes()
    if total > limit:
        raise StoreError(
            f"{url} would have to be fetched: {what}, more than the {_amount(limit)} that are fetched "
            f"unasked. VLA_FETCH_GB={total / 1e9 + 1:.0f} fetches it all the same; or give the URL of a part "
            "of it, or run 'vla data import' beside the data and upload the store: that is read in place."
        )
    free = shutil.disk_usage(target.parent).free
    if total + _SPARE_BYTES > free:
        raise StoreError(
            f"{url} would have to be fetched: {what}, but {target.parent} has {_amount(free)} free. Make "
            "room, or set VLA_CACHE to a folder on a larger disk."
        )
    _log.warning("Fetching %s from %s to %s (once; again only what changes).", what, url, target)


def _limit_bytes() -> float:
    given = os.environ.get("VLA_FETCH_GB", "")
    try:
        limit = float(given or _LIMIT_GB)
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise ConfigError(f"VLA_FETCH_GB is {given!r}, expected a number of gigabytes, 0 or more.")
    return limit * 1e9


def _amount(num_bytes: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes:.0f} bytes"


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


def _fetch(system: Any, path: str, file: Path, bar: tqdm) -> None:
    from fsspec.callbacks import Callback

    begin, shown = bar.n, Callback(hooks={"bar": lambda _size, value: bar.update(begin + value - bar.n)})
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with speaking_of(path):
            system.get_file(path, str(part), callback=shown)
        bar.update(begin + part.stat().st_size - bar.n)  # not every driver reports
        part.replace(file)
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
