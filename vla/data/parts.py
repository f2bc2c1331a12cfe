"""One part of an episode store: arrays written by one process, and the log that commits episodes.

An episode exists once its line is whole in ``commits.jsonl``; what the arrays hold past the last
committed row is left over from a killed writer and is overwritten by the next one. Each line carries
its own checksum and those of every column, so damage is found and named.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.arrays import ArrayReader, FileHandles
from vla.data.codec import Codec
from vla.data.remote import RemoteFiles, RemotePath
from vla.data.shards import ArrayLayout, ArrayWriter, crc32c, write_group
from vla.embodiment import Embodiment
from vla.errors import StoreError
from vla.types import Episode

CHUNK_ROWS = 256  # rows of a low-dimensional chunk
CHUNK_BYTES = 1 << 16  # bytes of a frame chunk: shards of 16.7 MB
# A killed process loses nothing committed: its writes are the kernel's. Against a power cut the disk is
# synced this often and at close; what such a cut damaged is found by the checksums.
SYNC_SECONDS = 5.0
LOG = "episodes/commits.jsonl"  # inside an array's directory, where zarr libraries do not look
_EPISODE_COLUMNS = ("embodiment", "start", "length", "success")
_UNKNOWN = -1  # success in the array, for other libraries; null in the log
_PREFIX = b'{"crc32c":"00000000","commit":'
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One committed episode: where it lies in its part and what its bytes must sum to.

    ``start`` and ``length`` count rows of the embodiment's arrays; ``crc32c`` has one checksum per
    column, in writing order, and so says which columns the episode has. ``success`` is None where unknown.
    """

    embodiment: str
    instruction: str
    success: bool | None
    start: int
    length: int
    frame_bytes: Mapping[str, int]  # camera -> end of its frames in the byte array
    crc32c: Mapping[str, int]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> bytes:
        payload = json.dumps(asdict(self), separators=(",", ":")).encode()
        return _PREFIX.replace(b"00000000", b"%08x" % crc32c(payload)) + payload + b"}\n"

    @classmethod
    def parse(cls, line: bytes) -> Commit | None:
        """None where the line is damaged."""
        payload = line[len(_PREFIX) : -2]
        if line != _PREFIX.replace(b"00000000", b"%08x" % crc32c(payload)) + payload + b"}\n":
            return None
        data = json.loads(payload)
        if set(data) != {f.name for f in fields(cls)}:
            raise StoreError(f"A commit has the keys {sorted(data)}: written by another version?")
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class CommitLog:
    """What a log holds: commits, where the last whole one ends, and what is wrong with the rest."""

    commits: tuple[Commit, ...]
    valid_bytes: int
    torn_bytes: int
    damaged_lines: tuple[int, ...]


def read_log(path: Path | RemotePath) -> CommitLog:
    """Read a commit log; a half-written last line is not damage but an episode never committed."""
    raw = path.read_bytes() if path.exists() else b""
    lines = raw.splitlines(keepends=True)
    torn = len(lines.pop()) if lines and not lines[-1].endswith(b"\n") else 0
    commits = [Commit.parse(line) for line in lines]
    return CommitLog(
        commits=tuple(c for c in commits if c is not None),
        valid_bytes=len(raw) - torn,
        torn_bytes=torn,
        damaged_lines=tuple(number for number, c in enumerate(commits, 1) if c is None),
    )


def check_name(kind: str, name: str) -> str:
    """A name that becomes a directory of the store."""
    if not _NAME.fullmatch(name):
        raise StoreError(f"The {kind} {name!r} cannot be stored: use letters, digits, '_', '.' and '-'.")
    return name


class PartWriter:
    """Appends episodes to a part that no other process is writing."""

    def __init__(self, root: Path, codec: Codec, embodiments: list[str]) -> None:
        self._codec, self.embodiments = codec, embodiments
        self._synced_at = time.monotonic()
        self.directory, self._log = _claim(root)
        self.pid = os.getpid()
        log = read_log(self.directory / LOG)
        if log.damaged_lines:
            raise StoreError(f"{self.directory / LOG}: lines {log.damaged_lines} are damaged; not appending.")
        os.ftruncate(self._log, log.valid_bytes)  # drop a half-written commit
        self.recovered_bytes = log.torn_bytes
        self._count = len(log.commits)
        self._rows: dict[str, int] = {}
        self._bytes: dict[tuple[str, str], int] = {}
        self._columns: dict[str, dict[str, None]] = {}
        for commit in log.commits:
            self._advance(commit)
        self._arrays: dict[str, ArrayWriter] = {}
        self._time_dtypes: dict[str, str] = {}
        if not (self.directory / "zarr.json").exists():
            self._seal(0)
        self._episodes()

    def append(self, episode: Episode, embodiment: Embodiment) -> Commit:
        """Write the columns, then commit; nothing is committed if anything is wrong."""
        columns, frames = _columns(episode, embodiment)
        columns["time_s"] = columns["time_s"].astype(self._time_dtype(embodiment.name))
        start, checksums, ends = self._rows.get(embodiment.name, 0), {}, {}
        for camera, images in frames.items():
            position = self._bytes.get((embodiment.name, camera), 0)
            encoded, extra = self._codec.encode_episode(images)
            sizes = np.array([len(data) for data in encoded])
            begins = position + np.cumsum(sizes) - sizes
            columns[f"cameras/{camera}/index"] = np.stack(
                [begins, sizes, [crc32c(data) for data in encoded], *extra], axis=1
            ).astype(np.int64)
            layout = ArrayLayout(dtype="uint8", width=None, chunk_rows=CHUNK_BYTES)
            self._array(f"steps/{embodiment.name}/cameras/{camera}/frames", layout, ["byte"]).write(
                position, b"".join(encoded)
            )
            ends[camera] = int(position + sizes.sum())
        for name, values in columns.items():
            width = values.shape[1] if values.ndim == 2 else None
            layout = ArrayLayout(dtype=values.dtype.name, width=width, chunk_rows=CHUNK_ROWS)
            names = ["step"] if width is None else ["step", name]
            self._array(f"steps/{embodiment.name}/{name}", layout, names).write(start, values)
            checksums[name] = crc32c(values.tobytes())
        commit = Commit(
            embodiment=embodiment.name,
            instruction=episode.instruction,
            success=None if episode.success is None else bool(episode.success),
            start=start,
            length=len(episode),
            frame_bytes=ends,
            crc32c=checksums,
            provenance=dict(episode.provenance),
        )
        self._commit(commit)
        return commit

    def close(self) -> None:
        """Trim the arrays' lengths to what is committed, seal the part and release it."""
        for embodiment, columns in self._columns.items():
            for name in columns:
                path = self.directory / "steps" / embodiment / name
                layout, _ = ArrayLayout.load(path)
                names = ["step"] if layout.width is None else ["step", name]
                self._array(f"steps/{embodiment}/{name}", layout, names).set_rows(self._rows[embodiment])
        for (embodiment, camera), end in self._bytes.items():
            layout = ArrayLayout(dtype="uint8", width=None, chunk_rows=CHUNK_BYTES)
            self._array(f"steps/{embodiment}/cameras/{camera}/frames", layout, ["byte"]).set_rows(end)
        if self._count:
            self._episodes().set_rows(self._count)
        for array in self._arrays.values():
            array.close()
        self._seal(self._count)
        os.close(self._log)

    def _time_dtype(self, embodiment: str) -> str:
        """float64; float32 where a part of format version 1 is continued."""
        if embodiment not in self._time_dtypes:
            path = self.directory / "steps" / embodiment / "time_s"
            known = (path / "zarr.json").exists()
            self._time_dtypes[embodiment] = ArrayLayout.load(path)[0].dtype if known else "float64"
        return self._time_dtypes[embodiment]

    def _commit(self, commit: Commit) -> None:
        try:
            line = commit.line()
        except TypeError as error:
            raise StoreError(f"The provenance of an episode must be JSON: {error}.") from error
        success = _UNKNOWN if commit.success is None else int(commit.success)
        row = [self.embodiments.index(commit.embodiment), commit.start, commit.length, success]
        self._episodes().write(self._count, np.array([row], np.int64))
        due = time.monotonic() - self._synced_at > SYNC_SECONDS
        if due:
            for array in self._arrays.values():
                array.sync()
        size = os.fstat(self._log).st_size
        try:
            written = os.write(self._log, line)
            if written != len(line):
                raise StoreError(f"Only {written} of {len(line)} bytes of a commit were written: disk full?")
            if due:
                os.fdatasync(self._log)
                self._synced_at = time.monotonic()
        except (OSError, StoreError):  # what its caller takes for not stored must not be there
            os.ftruncate(self._log, size)
            raise
        self._count += 1
        self._advance(commit)

    def _advance(self, commit: Commit) -> None:
        self._rows[commit.embodiment] = commit.start + commit.length
        self._columns.setdefault(commit.embodiment, {}).update(dict.fromkeys(commit.crc32c))
        for camera, end in commit.frame_bytes.items():
            self._bytes[commit.embodiment, camera] = end

    def _episodes(self) -> ArrayWriter:
        layout = ArrayLayout(dtype="int64", width=len(_EPISODE_COLUMNS), chunk_rows=CHUNK_ROWS)
        return self._array("episodes", layout, ["episode", "column"])

    def _array(self, name: str, layout: ArrayLayout, names: list[str]) -> ArrayWriter:
        if name not in self._arrays:
            path = self.directory
            for piece in name.split("/")[:-1]:  # every directory is a zarr group
                path = path / piece
                if not (path / "zarr.json").exists():
                    write_group(path, {})
            self._arrays[name] = ArrayWriter(self.directory / name, layout, names)
        array = self._arrays[name]
        if array.layout != layout:
            raise StoreError(
                f"Column {name} holds {array.layout}, given {layout}: widths must stay the same."
            )
        return array

    def _seal(self, count: int) -> None:
        """Note how many episodes are certain, so that a log cut short is noticed."""
        facts = {"episodes": count, "encoder": self._codec.encoder, "columns": list(_EPISODE_COLUMNS)}
        write_group(self.directory, {"vla": {**facts, "frame_columns": list(self._codec.frame_columns)}})


class PartReader:
    """Reads the committed rows of one part."""

    def __init__(self, directory: Path | RemotePath, files: FileHandles | RemoteFiles) -> None:
        self.directory, self._files = directory, files
        self._arrays: dict[str, ArrayReader] = {}
        self.log = read_log(directory / LOG)
        self.faults: tuple[str, ...] = ()
        self.sealed = 0
        if isinstance(files, RemoteFiles):
            files.fetch([str(directory / "steps" / key / "zarr.json") for key in self._array_names()])
        try:
            attributes = json.loads((directory / "zarr.json").read_text())["attributes"]
            self.sealed = int(attributes["vla"]["episodes"])
        except FileNotFoundError:  # a part that has only just been claimed
            pass
        except (KeyError, TypeError, ValueError) as error:
            self.faults = (f"{directory / 'zarr.json'} is damaged ({error!r})",)

    def array(self, embodiment: str, name: str) -> ArrayReader:
        key = f"{embodiment}/{name}"
        if key not in self._arrays:
            self._arrays[key] = ArrayReader(self.directory / "steps" / key, self._files)
        return self._arrays[key]

    def frames(self, embodiment: str, camera: str) -> ArrayReader:
        return self.array(embodiment, f"cameras/{camera}/frames")

    def _array_names(self) -> list[str]:
        columns = {f"{c.embodiment}/{name}" for c in self.log.commits for name in c.crc32c}
        frames = {f"{c.embodiment}/cameras/{name}/frames" for c in self.log.commits for name in c.frame_bytes}
        return sorted(columns | frames)

    def missing_bytes(self) -> list[str]:
        """Shards that are too short for what is committed (file sizes only; not asked of object stores)."""
        if isinstance(self._files, RemoteFiles):
            return []
        spans: dict[tuple[str, str], list[tuple[int, int]]] = {}

        def need(embodiment: str, name: str, start: int, stop: int) -> None:
            rows = spans.setdefault((embodiment, name), [])
            if rows and rows[-1][1] == start:  # a column need not be in every episode
                start = rows.pop()[0]
            rows.append((start, stop))

        ends: dict[tuple[str, str], int] = {}
        for commit in self.log.commits:
            for name in commit.crc32c:
                need(commit.embodiment, name, commit.start, commit.start + commit.length)
            for camera, end in commit.frame_bytes.items():
                begin = ends.get((commit.embodiment, camera), 0)
                need(commit.embodiment, f"cameras/{camera}/frames", begin, end)
                ends[commit.embodiment, camera] = end
        reasons = (self.array(*key).missing_bytes(rows) for key, rows in spans.items())
        return [reason for reason in reasons if reason]


def _claim(root: Path) -> tuple[Path, int]:
    """Lock a part that nobody is writing, or a new one; the lock dies with the process."""
    number = 0
    while True:
        log = root / f"part-{number:05d}" / LOG
        log.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return log.parent.parent, fd
        except BlockingIOError:
            os.close(fd)
            number += 1


def _columns(
    episode: Episode, embodiment: Embodiment
) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray]]]:
    """Check an episode and lay it out: columns to write, and the images of each camera."""
    if not episode.steps:
        raise StoreError("An episode without steps cannot be stored.")
    observations = [step.observation for step in episode.steps]
    for t, seen in enumerate(observations):
        if seen.embodiment != episode.embodiment or seen.instruction != episode.instruction:
            raise StoreError(
                f"Step {t} is of {seen.embodiment!r} told {seen.instruction!r}, the episode of "
                f"{episode.embodiment!r} told {episode.instruction!r}: split it where they change."
            )
    columns = {
        "time_s": np.array([seen.time_s for seen in observations], np.float64),
        "action": np.stack([embodiment.check_action(step.action) for step in episode.steps]),
        "executed": np.stack([embodiment.check_action(step.executed) for step in episode.steps]),
    }
    if embodiment.state_dim:
        columns["state"] = np.stack([embodiment.pack_state(seen.state) for seen in observations])
    if any(set(seen.aux) != set(observations[0].aux) for seen in observations):
        raise StoreError("Aux keys differ between steps: use NaN where a quantity does not exist.")
    for key in observations[0].aux:
        values = [np.atleast_1d(np.asarray(seen.aux[key], np.float32)) for seen in observations]
        if len({value.shape for value in values}) != 1 or values[0].ndim != 1:
            raise StoreError(f"Aux {key!r} must be one vector of a fixed size at each step.")
        columns[f"aux/{check_name('aux key', key)}"] = np.stack(values)
    frames: dict[str, list[np.ndarray]] = {camera.name: [] for camera in embodiment.cameras}
    for t, seen in enumerate(observations):
        if set(seen.images) != set(frames):
            raise StoreError(
                f"Step {t} has images of {sorted(seen.images)}, {embodiment.name!r} has {sorted(frames)}."
            )
        for camera in embodiment.cameras:
            image = np.asarray(seen.images[camera.name])
            if image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
                raise StoreError(
                    f"Step {t}, camera {camera.name!r}: {image.dtype} {image.shape}, expected uint8 "
                    f"({camera.height}, {camera.width}, 3) as {embodiment.name!r} says."
                )
            frames[camera.name].append(image)
    return columns, frames
