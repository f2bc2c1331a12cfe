"""The episode store: zarr v3 arrays to which whole episodes are appended atomically.

::

    demos.zarr/                                  attributes "vla": version, embodiments, provenance, codec
      part-00000/                                one writer's part; several make one store
        episodes/                  int64 [E 4]   embodiment number, start row, length, success (-1: unknown)
        episodes/commits.jsonl                   the truth: an episode exists once its line is whole
        steps/panda/state          f32 [N S]     likewise action, executed [N A], aux/<key> [N k];
                                                   f64 time_s [N], s
        steps/panda/cameras/front/frames  u8 [bytes]   JPEG frames (an archive: AV1), one after the other
        steps/panda/cameras/front/index   i64 [N 3]    start, length, crc32c of each frame

A writer killed at any moment loses nothing committed. Every read is checked against a checksum. While a
part is being written its arrays' lengths are whole shards (unwritten rows are 0); closing makes them exact.
A store at a URL (``s3://...``) is read through fsspec; it cannot be appended to.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from vla.data.arrays import FileHandles
from vla.data.codec import Codec, JpegCodec, codec_from_json
from vla.data.damage import damage_lines
from vla.data.frames import FrameReader, prefetch
from vla.data.parts import Commit, PartReader, PartWriter
from vla.data.remote import RemoteFiles, RemotePath, is_url
from vla.data.shards import crc32c, write_group
from vla.data.source import EpisodeInfo
from vla.data.store_header import FORMAT_VERSION, differences, part_directories, read_header, storable
from vla.embodiment import Embodiment
from vla.errors import IncompatibleError, StoreError, UnknownNameError
from vla.types import Episode

_BEGUN = ".zarr.json."  # left by one that was killed while it made this store
_READ_ONLY = "write to a local directory and upload that, it needs no conversion."
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One fault found by :meth:`EpisodeStore.verify`; ``episode`` is None if a whole part is concerned.

    A store that leaves damaged episodes out numbers them as they were before.
    """

    episode: int | None
    column: str
    reason: str


class EpisodeStore:
    """Episodes on disk; build with :meth:`create` or :meth:`open`, use as a context manager.

    Opening reads what is committed at that moment, also of a store still being written. Episode
    numbers follow the parts' order; episodes appended through this handle come last until it is reopened.
    """

    def __init__(self, root: Path | RemotePath, header: Mapping[str, Any], *, tolerate_damage: bool) -> None:
        self._root = root
        self.path: Path | str = root if isinstance(root, Path) else root.files.url
        self.provenance: Mapping[str, Any] = header["provenance"]
        self.embodiments = {e["name"]: Embodiment.from_json(e) for e in header["embodiments"]}
        self.codec = codec_from_json(header["codec"])
        self.notices: list[str] = []
        self.skipped: tuple[Damage, ...] = ()
        self._damaged: list[Damage] = []
        self._tolerant = tolerate_damage
        self._files = FileHandles() if isinstance(root, Path) else root.files
        self._parts: dict[Path | RemotePath, PartReader] = {}
        self._commits: list[tuple[PartReader, Commit]] = []
        self._writer: PartWriter | None = None
        self.episodes: list[EpisodeInfo] = []
        for directory in part_directories(root):
            self._load_part(directory)

    def __getstate__(self) -> dict[str, Any]:
        """For another process: the same episodes, without what this one is writing."""
        return {**self.__dict__, "_writer": None}

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        embodiments: Iterable[Embodiment] = (),
        provenance: Mapping[str, Any] | None = None,
        codec: Codec | None = None,
    ) -> Self:
        """A new, empty store; an existing one is never replaced.

        Args:
            path: directory to make, customarily ``<name>.zarr``.
            embodiments: who will be in it; more can be added later.
            provenance: JSON-able facts about the whole store.
            codec: how frames are stored (default: JPEG; ``VideoCodec`` of ``vla.data.archive``: AV1).
        """
        if is_url(path):
            raise StoreError(f"{path} is not on this machine: {_READ_ONLY}")
        path = Path(path)
        if path.exists() and any(not file.name.startswith(_BEGUN) for file in path.iterdir()):
            raise StoreError(f"{path} exists and is not empty: open it to append, or give another path.")
        header = {
            "format_version": FORMAT_VERSION,
            "embodiments": [storable(e).to_json() for e in embodiments],
            "provenance": dict(provenance or {}),
            "codec": (codec or JpegCodec()).to_json(),
        }
        write_group(path, {"vla": header}, durable=True)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path, *, tolerate_damage: bool = False, skip_damaged: bool = False) -> Self:
        """Open a store; damage or another version raises :class:`StoreError`.

        Args:
            path: its directory, or a URL that fsspec knows (read-only).
            tolerate_damage: open what can be read (for :meth:`verify`); such a handle cannot append.
            skip_damaged: read every byte first (about 1 s for a gigabyte), leave the damaged episodes out
                and list why in ``skipped``; such a handle cannot append.
        """
        root = RemoteFiles(path).root if isinstance(path, str) and is_url(path) else Path(path)
        store = cls(root, read_header(root), tolerate_damage=tolerate_damage or skip_damaged)
        if skip_damaged:
            store._leave_out(store.verify())
        return store

    def __len__(self) -> int:
        return len(self.episodes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_embodiment(self, embodiment: Embodiment) -> None:
        """Register an embodiment; one of that name that differs raises :class:`IncompatibleError`."""
        path = self._writable()
        lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several workers may add theirs at once
            header = read_header(path)
            known = {e["name"]: Embodiment.from_json(e) for e in header["embodiments"]}
            if embodiment.name not in known:
                header["embodiments"].append(storable(embodiment).to_json())
                write_group(path, {"vla": header}, durable=True)
                known[embodiment.name] = embodiment
        finally:
            os.close(lock)
        if known[embodiment.name] != embodiment:
            raise IncompatibleError(
                f"embodiment {embodiment.name!r}",
                f"the one in {self.path}",
                [*differences(embodiment, known[embodiment.name]), "use another store or the same settings"],
            )
        self.embodiments = known
        if self._writer is not None:
            self._writer.embodiments = list(known)

    def append(self, episode: Episode) -> int:
        """Commit an episode and return its index; if anything is wrong nothing is stored."""
        path = self._writable()
        embodiment = self._embodiment(episode.embodiment)
        if self._writer is None or self._writer.pid != os.getpid():
            self._writer = PartWriter(path, self.codec, list(self.embodiments))
            if self._writer.recovered_bytes:
                self._notice(f"{self._writer.directory}: removed a half-written commit.")
        commit = self._writer.append(episode, embodiment)
        directory = self._writer.directory
        if directory not in self._parts:
            self._parts[directory] = PartReader(directory, self._files)
        return self._add(self._parts[directory], commit)

    def column(self, index: int, name: str) -> np.ndarray:
        """A low-dimensional column of an episode, read-only.

        Args:
            index: episode number.
            name: ``state`` [T S], ``action`` [T A], ``executed`` [T A], ``time_s`` [T], ``aux/<key>`` [T k].
        """
        part, commit = self._entry(index)
        if name not in commit.crc32c:
            if name == "state" and not self.embodiments[commit.embodiment].state_dim:
                return np.zeros((commit.length, 0), np.float32)
            raise UnknownNameError(f"column of episode {index}", name, self.columns(index))
        array = part.array(commit.embodiment, name)
        try:
            raw = array.read_bytes(commit.start, commit.length)
        except StoreError as error:
            raise StoreError(f"Episode {index}, column {name!r}: {error}") from error
        if crc32c(raw) != commit.crc32c[name]:
            raise StoreError(f"Episode {index}, column {name!r} of {part.directory} is damaged (checksum).")
        return array.as_array(raw)

    def stacked_column(self, indices: Sequence[int], name: str) -> np.ndarray:
        """A column of several episodes, one after the other: one read for those that lie together."""
        runs: list[list[int]] = []
        for index in indices:
            part, commit = self._entry(index)
            if runs:
                before, last = self._entry(runs[-1][-1])
                together = part is before and commit.embodiment == last.embodiment
                if together and commit.start == last.start + last.length and name in commit.crc32c:
                    runs[-1].append(index)
                    continue
            runs.append([index])
        return np.concatenate([self._run(run, name) for run in runs])

    def _run(self, indices: list[int], name: str) -> np.ndarray:
        """A column of episodes whose rows are neighbours."""
        part, first = self._entry(indices[0])
        commits = [self._entry(index)[1] for index in indices]
        if len(indices) == 1 or name not in first.crc32c:
            return np.concatenate([self.column(index, name) for index in indices])
        array = part.array(first.embodiment, name)
        num_rows = sum(commit.length for commit in commits)
        try:
            raw = array.read_bytes(first.start, num_rows)
        except StoreError:
            return np.concatenate([self.column(index, name) for index in indices])  # says which episode
        begin, row_bytes = 0, len(raw) // num_rows
        for index, commit in zip(indices, commits, strict=True):
            end = begin + commit.length * row_bytes
            if crc32c(raw[begin:end]) != commit.crc32c[name]:
                self.column(index, name)  # raises, and names it
            begin = end
        return array.as_array(raw)

    def columns(self, index: int) -> list[str]:
        """Names of the low-dimensional columns of an episode."""
        return [name for name in self._entry(index)[1].crc32c if not name.startswith("cameras/")]

    def cameras(self, index: int) -> list[str]:
        """Names of the cameras of an episode."""
        return list(self._entry(index)[1].frame_bytes)

    def frames(self, index: int, camera: str, ts: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images of a camera at steps ``ts``: uint8 [n h w 3]."""
        reader = self.frame_reader(index, camera)
        ts = np.asarray(ts, int)
        if ts.size and (ts.min() < 0 or ts.max() >= len(reader.index)):
            raise StoreError(
                f"Steps {ts.min()}..{ts.max()} of episode {index}, which has 0..{len(reader.index) - 1}."
            )
        out = np.empty((len(ts), *reader.shape, 3), np.uint8)
        for t, image in zip(ts.tolist(), out, strict=True):
            reader.read(t, image)
        return out

    def frame_reader(self, index: int, camera: str) -> FrameReader:
        """Random access to the frames of a camera, for reading many."""
        part, commit = self._entry(index)
        known = {
            c.name: c for c in self.embodiments[commit.embodiment].cameras if c.name in commit.frame_bytes
        }
        if camera not in known:
            raise UnknownNameError(f"camera of episode {index}", camera, known)
        return self.codec.frame_reader(
            origin=f"Episode {index} of {self.path}, camera {camera!r}",
            shape=(known[camera].height, known[camera].width),
            index=self.column(index, f"cameras/{camera}/index"),
            array=part.frames(commit.embodiment, camera),
        )

    def index_checksum(self) -> int:
        """CRC-32C over what all episodes are, in order, and the checksums of all their columns."""
        facts = [
            [c.embodiment, c.instruction, c.success, c.start, c.length, *c.crc32c.items()]
            for _, c in self._commits
        ]
        return crc32c(json.dumps(facts).encode())

    def verify(self) -> list[Damage]:
        """Check every byte of every episode against its checksum; an empty list means all is sound."""
        damaged = list(self._damaged)
        for info in self.episodes:
            for name in self._commits[info.index][1].crc32c:
                camera = name.split("/")[1] if name.startswith("cameras/") else None
                try:
                    if camera is None:
                        self.column(info.index, name)
                        continue
                    frames = self.frame_reader(info.index, camera)
                except StoreError as error:
                    damaged.append(Damage(episode=info.index, column=name, reason=str(error)))
                    continue
                prefetch((frames, t) for t in range(info.length))
                for t in range(info.length):
                    try:
                        frames.fetch(t)
                    except StoreError as error:
                        damaged.append(Damage(episode=info.index, column=name, reason=str(error)))
        return damaged

    def close(self) -> None:
        """Seal the part this handle has written and close all files; committed episodes never need it."""
        if self._writer is not None and self._writer.pid == os.getpid():
            self._writer.close()
        self._writer = None
        self._files.close()

    def _entry(self, index: int) -> tuple[PartReader, Commit]:
        if not 0 <= index < len(self._commits):
            raise StoreError(f"Episode {index} of {self.path}, which has {len(self._commits)} episodes.")
        return self._commits[index]

    def _embodiment(self, name: str) -> Embodiment:
        if name not in self.embodiments:
            raise UnknownNameError(f"embodiment of {self.path}", name, self.embodiments)
        return self.embodiments[name]

    def _writable(self) -> Path:
        if not isinstance(self._root, Path):
            raise StoreError(f"{self.path} is not on this machine: {_READ_ONLY}")
        if self._tolerant:
            raise StoreError(f"{self.path} was opened in spite of damage: it can only be read.")
        return self._root

    def _load_part(self, directory: Path | RemotePath) -> None:
        part = self._parts[directory] = PartReader(directory, self._files)
        log, reasons = part.log, list(part.faults)
        if log.torn_bytes:
            self._notice(f"{directory}: ignored a half-written episode (its writer was stopped).")
        if log.damaged_lines:
            reasons.append(f"commits.jsonl: lines {list(log.damaged_lines)} are damaged")
        if len(log.commits) + len(log.damaged_lines) < part.sealed:
            reasons.append(f"commits.jsonl is truncated: {len(log.commits)} of {part.sealed} episodes")
        try:
            reasons += part.missing_bytes()
        except StoreError as error:
            reasons.append(str(error))
        if reasons and not self._tolerant:
            raise StoreError(
                f"{directory} is damaged: {'; '.join(reasons)}. Open it with tolerate_damage=True and call "
                "verify() to learn which episodes are concerned."
            )
        self._damaged += [Damage(episode=None, column=directory.name, reason=reason) for reason in reasons]
        for commit in log.commits:
            self._embodiment(commit.embodiment)
            self._add(part, commit)

    def _leave_out(self, damages: list[Damage]) -> None:
        bad = {damage.episode for damage in damages}
        members = [member for number, member in enumerate(self._commits) if number not in bad]
        self._commits, self.episodes = [], []
        for member in members:
            self._add(*member)
        self.skipped = tuple(damages)
        for line in damage_lines((d.episode, f"{d.column}: {d.reason}") for d in damages):
            self._notice(f"{self.path}: {'left out ' if line.startswith('episode') else ''}{line}")

    def _add(self, part: PartReader, commit: Commit) -> int:
        self._commits.append((part, commit))
        self.episodes.append(
            EpisodeInfo(
                index=len(self.episodes),
                length=commit.length,
                instruction=commit.instruction,
                embodiment=commit.embodiment,
                success=commit.success,
                provenance=commit.provenance,
            )
        )
        return len(self.episodes) - 1

    def _notice(self, message: str) -> None:
        self.notices.append(message)
        _log.warning(message)
