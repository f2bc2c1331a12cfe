"""Writes one part of an episode store: arrays of one process, and the log that commits episodes.

An episode exists once its line is whole in ``commits.jsonl``; what the arrays hold past the last
committed row is left over from a killed writer and is overwritten by the next one. Each line carries
its own checksum and those of every column, so damage is found and named.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vla.data.array_writer import ArrayWriter
from vla.data.codec import Codec
from vla.data.commits import EPISODE_COLUMNS, LOG, Commit, read_log
from vla.data.damage import spans
from vla.data.episode_columns import lay_out
from vla.data.frames import Encoded
from vla.data.shards import ArrayLayout, crc32c, write_group
from vla.embodiment import Embodiment
from vla.errors import StoreError
from vla.text import sentence
from vla.types import Episode

CHUNK_ROWS = 256  # rows of a low-dimensional chunk
CHUNK_BYTES = 1 << 16  # bytes of a frame chunk: shards of 16.7 MB
# A killed process loses nothing committed: its writes are the kernel's. Against a power cut the disk is
# synced this often and at close; what such a cut damaged is found by the checksums.
SYNC_SECONDS = 5.0


class PartWriter:
    """Appends episodes to a part that no other process is writing."""

    def __init__(self, root: Path, codec: Codec, embodiments: list[str]) -> None:
        self._codec, self.embodiments = codec, embodiments
        self._synced_at = time.monotonic()
        self.directory, self._log = _claim(root)
        self.pid = os.getpid()
        log = read_log(self.directory / LOG)
        if log.damaged_lines:
            raise StoreError(
                f"{self.directory / LOG}: damaged at line {spans(log.damaged_lines)}: nothing is "
                "appended to it. 'vla data fix' writes what is whole into a new store."
            )
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

    def append(
        self, episode: Episode, embodiment: Embodiment, encoded: Mapping[str, Encoded] | None = None
    ) -> Commit:
        """Write the columns, then commit; nothing is committed if anything is wrong."""
        columns, frames = lay_out(episode, embodiment, encoded or {})
        pictures = {camera: self._codec.encode_episode(images) for camera, images in frames.items()}
        columns["time_s"] = columns["time_s"].astype(self._time_dtype(embodiment.name))
        start, checksums, ends = self._rows.get(embodiment.name, 0), {}, {}
        for camera, (stored, extra) in {**pictures, **(encoded or {})}.items():
            position = self._bytes.get((embodiment.name, camera), 0)
            sizes = np.array([len(data) for data in stored])
            begins = position + np.cumsum(sizes) - sizes
            columns[f"cameras/{camera}/index"] = np.stack(
                [begins, sizes, [crc32c(data) for data in stored], *extra], axis=1
            ).astype(np.int64)
            layout = ArrayLayout(dtype="uint8", width=None, chunk_rows=CHUNK_BYTES)
            self._array(f"steps/{embodiment.name}/cameras/{camera}/frames", layout, ["byte"]).write(
                position, b"".join(stored)
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
        self.release()

    def release(self) -> None:
        """Release the part, also of a store that nobody closed: as if its process had ended."""
        log, self._log = getattr(self, "_log", -1), -1
        if log >= 0:
            os.close(log)

    __del__ = release

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
            raise StoreError(f"The provenance of an episode must be JSON: {sentence(error)}") from error
        self._episodes().write(self._count, np.array([commit.row(self.embodiments)], np.int64))
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
        layout = ArrayLayout(dtype="int64", width=len(EPISODE_COLUMNS), chunk_rows=CHUNK_ROWS)
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
        facts = {"episodes": count, "encoder": self._codec.encoder, "columns": list(EPISODE_COLUMNS)}
        write_group(self.directory, {"vla": {**facts, "frame_columns": list(self._codec.frame_columns)}})


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
