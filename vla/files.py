"""Files that are whole or not there: JSON and directories replaced at once, and one process at a time."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vla.errors import StoreError, VlaError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def write_json(path: Path, data: dict[str, Any], *, durable: bool = False) -> None:
    """Replace a JSON file atomically; ``durable`` waits until it would survive a loss of power."""
    write_text(path, as_json(data), durable=durable)


def as_json(data: Mapping[str, Any]) -> str:
    """The text that :func:`write_json` writes."""
    return json.dumps(data, indent=1) + "\n"


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Replace a text file (UTF-8) atomically; ``durable`` as for :func:`write_json`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path, error: type[VlaError], remedy: str) -> dict[str, Any]:
    """The JSON object in a file; ``error`` with the file's name and ``remedy`` where there is none."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise error(f"{path} is missing. {remedy}") from None
    except (OSError, ValueError) as reason:
        raise error(f"{path} is damaged: {reason}. {remedy}") from reason
    if not isinstance(data, dict):
        raise error(f"{path} is damaged: expected a JSON object. {remedy}")
    return data


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A directory beside ``out`` to write into, that takes its name at the end.

    Whatever stops the writing, a kill included, leaves nothing at ``out``; what a killed one left beside it
    is removed by the next.

    Raises:
        StoreError: ``out`` exists and is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out} exists and is not empty: give another path, or remove it.")
    begun = out.with_name(f".{out.name}.begun")
    shutil.rmtree(begun, ignore_errors=True)
    begun.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield begun
    except BaseException:
        shutil.rmtree(begun, ignore_errors=True)
        raise
    if out.exists():
        out.rmdir()
    begun.rename(out)


def replace_directory(directory: Path, new: Path) -> None:
    """Put ``new`` in the place of ``directory``, which is there at every moment if it was before.

    Two directories change places in one system call on Linux. Where the system or the file system cannot
    do that, the old one is renamed away first; one that was left so by a crash is put back here.
    """
    old = directory.with_name(directory.name + ".old")
    if old.exists() and not directory.exists():
        old.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
    if not directory.exists():
        new.rename(directory)
    elif _exchange(directory, new):
        shutil.rmtree(new)
    else:
        directory.rename(old)
        new.rename(directory)
        shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Whether two paths could change places in one system call."""
    call = getattr(ctypes.CDLL(None), "renameat2", None)  # glibc 2.28
    names = (os.fsencode(one), os.fsencode(other))
    return call is not None and call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0


@contextmanager
def exclusive(directory: Path, activity: str) -> Iterator[None]:
    """Hold ``directory`` for this process; a second one raises :class:`VlaError` at once.

    The lock is a hidden file beside the directory; it ends with the process, however that ends.
    """
    directory = directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    path = directory.with_name(f".{directory.name}.lock")
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise VlaError(
                f"Not {activity} in {directory}: another process is at work there. Wait for it, stop it, or "
                "choose another path."
            ) from None
        if _is_at(lock, path):
            break
        os.close(lock)  # removed by its last holder between our open and our lock
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
