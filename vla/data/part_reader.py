"""Reads one part of an episode store: its committed rows, each checked, and what is wrong with its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.arrays import ArrayReader, FileHandles
from vla.data.commits import EPISODE_COLUMNS, LOG, Commit, read_log
from vla.data.damage import spans
from vla.data.remote import RemoteFiles, RemotePath
from vla.data.shards import crc32c, group_document, read_document
from vla.errors import StoreError


class PartReader:
    """The committed episodes of one part.

    Args:
        directory: the part's.
        files: read its shards.
        embodiments: names, in the order of the store's header.
        checksummed: whether all metadata must have a checksum (stores of format version 3).
    """

    def __init__(
        self,
        directory: Path | RemotePath,
        files: FileHandles | RemoteFiles,
        embodiments: Sequence[str],
        *,
        checksummed: bool,
    ) -> None:
        self.directory, self._files = directory, files
        self._arrays: dict[str, ArrayReader] = {}
        self.log = read_log(directory / LOG)
        #: What is wrong with files that reading needs ...
        self.faults: list[str] = []
        #: ... and with those that are there for zarr libraries alone.
        self.blemishes: list[str] = []
        groups, arrays = self._documents()
        if isinstance(files, RemoteFiles):
            wanted = [self.directory / name / "zarr.json" for name in (*groups, *arrays)]
            files.fetch([str(path) for path in (*wanted, self._table_file())])
        self._check_metadata(groups, arrays, checksummed)
        self._check_log()
        if not self.log.damaged_lines:
            self._check_table(embodiments, checksummed)
        self._check_sizes()

    def array(self, embodiment: str, name: str) -> ArrayReader:
        key = f"{embodiment}/{name}"
        if key not in self._arrays:
            self._arrays[key] = ArrayReader(self.directory / "steps" / key, self._files)
        return self._arrays[key]

    def frames(self, embodiment: str, camera: str) -> ArrayReader:
        return self.array(embodiment, f"cameras/{camera}/frames")

    def column(self, commit: Commit, name: str) -> np.ndarray:
        """A column of an episode, read-only; a damaged one raises :class:`StoreError`."""
        array = self.array(commit.embodiment, name)
        raw = array.read_bytes(commit.start, commit.length)
        if crc32c(raw) != commit.crc32c[name]:
            raise StoreError(f"it is damaged in {self.directory} (checksum)")
        return array.as_array(raw)

    def run(self, commits: Sequence[Commit], name: str) -> np.ndarray | None:
        """A column of episodes whose rows are neighbours, in one read; None where one of them is damaged."""
        array, num_rows = self.array(commits[0].embodiment, name), sum(commit.length for commit in commits)
        try:
            raw = array.read_bytes(commits[0].start, num_rows)
        except StoreError:
            return None
        begin, row_bytes = 0, len(raw) // num_rows
        for commit in commits:
            end = begin + commit.length * row_bytes
            if crc32c(raw[begin:end]) != commit.crc32c[name]:
                return None
            begin = end
        return array.as_array(raw)

    def lost_commits(self) -> str:
        """Why it seems that committed episodes are missing from the end of the log, or an empty string.

        The row of an episode in the ``episodes`` array is written before its line. A killed writer leaves one
        row without a line; two tell of lines that were lost.
        """
        known = len(self.log.commits) + len(self.log.damaged_lines)
        try:
            if not self._table(known + 1, 1).any():
                return ""
        except StoreError:
            return ""  # no such row, or no such array: said by what checks that
        now = read_log(self.directory / LOG)
        if len(now.commits) + len(now.damaged_lines) > known:
            return ""  # a writer is at work
        return f"{LOG} lacks episodes that the array 'episodes' has from number {known} on"

    def _documents(self) -> tuple[list[str], list[str]]:
        """Directories of the groups and of the arrays that the committed episodes need."""
        names = [f"{c.embodiment}/{name}" for c in self.log.commits for name in c.crc32c]
        names += [f"{c.embodiment}/cameras/{name}/frames" for c in self.log.commits for name in c.frame_bytes]
        arrays = [f"steps/{name}" for name in sorted(set(names))]
        groups = {name[:i] for name in arrays for i, letter in enumerate(name) if letter == "/"}
        return sorted(groups), [*arrays, *(["episodes"] if self.log.commits else [])]

    def _check_metadata(self, groups: Sequence[str], arrays: Sequence[str], checksummed: bool) -> None:
        self._part = self._document(self.directory / "zarr.json", self.faults, checksummed)
        for name in groups:
            path = self.directory / name / "zarr.json"
            found = self._document(path, self.blemishes, checksummed)
            if not checksummed and found is not None and found != group_document({}):
                _blame(self.blemishes, f"{path} is damaged: {found}, expected the metadata of a group")
        for name in arrays:
            path = self.directory / name / "zarr.json"
            self._document(path, self.blemishes if name == "episodes" else self.faults, checksummed)

    def _check_log(self) -> None:
        log, sealed = self.log, 0
        try:
            sealed = int(self._part["attributes"]["vla"]["episodes"]) if self._part else 0
        except (KeyError, TypeError, ValueError) as error:
            _blame(self.faults, f"{self.directory / 'zarr.json'} is damaged ({error!r})")
        if log.damaged_lines:
            self.faults.append(f"commits.jsonl: {_damaged('line', log.damaged_lines)}")
        if len(log.commits) + len(log.damaged_lines) < sealed:
            self.faults.append(f"commits.jsonl is truncated: {len(log.commits)} of {sealed} episodes")

    def _document(
        self, path: Path | RemotePath, faults: list[str], checksummed: bool
    ) -> dict[str, Any] | None:
        """Metadata; what is wrong with them is added to ``faults``."""
        if not self.log.commits and not self.log.damaged_lines and not path.exists():
            return None  # a part that has only just been claimed
        try:
            document, whole = read_document(path)
        except StoreError as error:
            _blame(faults, str(error))
            return None
        if whole is False or (whole is None and checksummed):
            faults.append(f"{path} is damaged (checksum)")
        return document

    def _check_table(self, embodiments: Sequence[str], checksummed: bool) -> None:
        """Whether the ``episodes`` array says of every committed episode what the log says."""
        commits = [c for c in self.log.commits if c.embodiment in embodiments]
        if not commits or len(commits) < len(self.log.commits):
            return  # an embodiment that the header lacks is a fault by itself
        known = np.array([commit.row(embodiments) for commit in commits])
        try:
            there = self._table(0, len(commits))
        except StoreError as error:
            _blame(self.blemishes, str(error))
            return
        columns = len(EPISODE_COLUMNS) if checksummed else 3  # what is unknown was written otherwise before
        wrong = np.flatnonzero((there[:, :columns] != known[:, :columns]).any(axis=1))
        if len(wrong):
            self.blemishes.append(f"{self._table_file()}: {_damaged('row', wrong.tolist())}")

    def _table(self, start: int, count: int) -> np.ndarray:
        """Rows of the ``episodes`` array; fewer where its file ends."""
        array = ArrayReader(self.directory / "episodes", self._files)
        if array.layout.width != len(EPISODE_COLUMNS) or array.layout.dtype != "int64":
            raise StoreError(f"The metadata of array {array.directory} are damaged: {array.layout}")
        return array.as_array(array.read_bytes(start, count))

    def _table_file(self) -> Path | RemotePath:
        return self.directory / "episodes" / "c" / "0" / "0"

    def _check_sizes(self) -> None:
        """Find shards too short for what is committed, by file sizes alone; not asked of object stores."""
        if isinstance(self._files, RemoteFiles):
            return
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
        for key, rows in spans.items():
            try:
                reason = self.array(*key).missing_bytes(rows)
            except StoreError as error:
                reason = str(error)
            if reason:
                _blame(self.faults, reason)


def _damaged(noun: str, numbers: Sequence[int]) -> str:
    """``line 3 is damaged``, ``rows 0-2, 7 are damaged``."""
    return f"{noun} {numbers[0]} is damaged" if len(numbers) == 1 else f"{noun}s {spans(numbers)} are damaged"


def _blame(faults: list[str], reason: str) -> None:
    """Add a fault that is not there yet."""
    reason = reason.rstrip(".")
    if reason not in faults:
        faults.append(reason)
