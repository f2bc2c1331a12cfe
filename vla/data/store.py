"""The episode store: a directory of zarr v3 arrays to which whole episodes are appended atomically.

::

    demos.zarr/                                  attributes "vla": version, embodiments, provenance, codec
      part-00000/                                one writer's part; several make one store
        episodes/                  int64 [E 4]   embodiment number, start row, length, success
        episodes/commits.jsonl                   the truth: an episode exists once its line is whole
        steps/panda/state          f32 [N S]     likewise action, executed [N A], time_s [N], aux/<key> [N k]
        steps/panda/cameras/front/frames  u8 [bytes]   JPEG frames, one after the other
        steps/panda/cameras/front/index   i64 [N 3]    start, length, crc32c of each frame

A writer killed at any moment loses nothing committed. Every read is checked against a checksum. While a
part is being written its arrays' lengths are whole shards (unwritten rows are 0); closing makes them exact.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from vla.data.codec import JpegCodec
from vla.data.frames import FrameReader
from vla.data.parts import Commit, PartReader, PartWriter, check_name
from vla.data.shards import FileHandles, crc32c, write_group
from vla.embodiment import Embodiment
from vla.errors import IncompatibleError, StoreError, UnknownNameError
from vla.types import Episode

FORMAT_VERSION = 1
_PART = re.compile(r"part-\d{5}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EpisodeInfo:
    """What is known of an episode without reading its columns; ``length`` counts steps."""

    index: int
    length: int
    instruction: str
    embodiment: str
    success: bool
    provenance: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One fault found by :meth:`EpisodeStore.verify`; ``episode`` is None if a whole part is concerned."""

    episode: int | None
    column: str
    reason: str


class EpisodeStore:
    """Episodes on disk; build with :meth:`create` or :meth:`open`, use as a context manager.

    Opening reads what is committed at that moment, also of a store still being written. Episode
    numbers follow the parts' order; episodes appended through this handle come last until it is reopened.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], *, tolerate_damage: bool) -> None:
        self.path = path
        self.provenance: Mapping[str, Any] = header["provenance"]
        self.embodiments = {e["name"]: Embodiment.from_json(e) for e in header["embodiments"]}
        self.codec = JpegCodec(quality=header["codec"]["quality"])
        self.notices: list[str] = []
        self._damaged: list[Damage] = []
        self._tolerant = tolerate_damage
        self._handles = FileHandles()
        self._decode = self.codec.decoder()
        self._parts: dict[Path, PartReader] = {}
        self._commits: list[tuple[PartReader, Commit]] = []
        self._writer: PartWriter | None = None
        self.episodes: list[EpisodeInfo] = []
        for directory in sorted(p for p in path.iterdir() if _PART.fullmatch(p.name)):
            self._load_part(directory)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        embodiments: Iterable[Embodiment] = (),
        provenance: Mapping[str, Any] | None = None,
        jpeg_quality: int = 95,
    ) -> Self:
        """A new, empty store; an existing one is never replaced.

        Args:
            path: directory to make, customarily ``<name>.zarr``.
            embodiments: who will be in it; more can be added later.
            provenance: JSON-able facts about the whole store.
            jpeg_quality: 1..100.
        """
        path = Path(path)
        if path.exists() and any(path.iterdir()):
            raise StoreError(f"{path} exists and is not empty: open it to append, or give another path.")
        header = {
            "format_version": FORMAT_VERSION,
            "embodiments": [_storable(e).to_json() for e in embodiments],
            "provenance": dict(provenance or {}),
            "codec": {
                "name": "jpeg",
                "quality": JpegCodec(quality=jpeg_quality).quality,
                "subsampling": "4:4:4",
            },
        }
        write_group(path, {"vla": header}, durable=True)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path, *, tolerate_damage: bool = False) -> Self:
        """Open a store; damage or another version raises :class:`StoreError`.

        Args:
            path: its directory.
            tolerate_damage: open what can be read (for :meth:`verify`); such a handle cannot append.
        """
        path = Path(path)
        return cls(path, _read_header(path), tolerate_damage=tolerate_damage)

    def __len__(self) -> int:
        return len(self.episodes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_embodiment(self, embodiment: Embodiment) -> None:
        """Register an embodiment; one of that name that differs raises :class:`IncompatibleError`."""
        lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several workers may add theirs at once
            header = _read_header(self.path)
            known = {e["name"]: Embodiment.from_json(e) for e in header["embodiments"]}
            if embodiment.name not in known:
                header["embodiments"].append(_storable(embodiment).to_json())
                write_group(self.path, {"vla": header}, durable=True)
                known[embodiment.name] = embodiment
        finally:
            os.close(lock)
        if known[embodiment.name] != embodiment:
            raise IncompatibleError(
                f"embodiment {embodiment.name!r}",
                f"the one in {self.path}",
                [*_differences(embodiment, known[embodiment.name]), "use another store or the same settings"],
            )
        self.embodiments = known
        if self._writer is not None:
            self._writer.embodiments = list(known)

    def append(self, episode: Episode) -> int:
        """Commit an episode and return its index; if anything is wrong nothing is stored."""
        if self._tolerant:
            raise StoreError(f"{self.path} was opened with tolerate_damage: it can only be read.")
        embodiment = self._embodiment(episode.embodiment)
        if self._writer is None or self._writer.pid != os.getpid():
            self._writer = PartWriter(self.path, self.codec, list(self.embodiments))
            if self._writer.recovered_bytes:
                self._notice(f"{self._writer.directory}: removed a half-written commit.")
        commit = self._writer.append(episode, embodiment)
        directory = self._writer.directory
        if directory not in self._parts:
            self._parts[directory] = PartReader(directory, self._handles)
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
        return FrameReader(
            origin=f"Episode {index} of {self.path}, camera {camera!r}",
            shape=(known[camera].height, known[camera].width),
            index=self.column(index, f"cameras/{camera}/index"),
            read_bytes=part.frames(commit.embodiment, camera).read_bytes,
            decode=self._decode,
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
                for t in range(info.length):
                    try:
                        frames.jpeg(t)
                    except StoreError as error:
                        damaged.append(Damage(episode=info.index, column=name, reason=str(error)))
        return damaged

    def close(self) -> None:
        """Seal the part this handle has written and close all files; committed episodes never need it."""
        if self._writer is not None and self._writer.pid == os.getpid():
            self._writer.close()
        self._writer = None
        self._handles.close()

    def _entry(self, index: int) -> tuple[PartReader, Commit]:
        if not 0 <= index < len(self._commits):
            raise StoreError(f"Episode {index} of {self.path}, which has {len(self._commits)} episodes.")
        return self._commits[index]

    def _embodiment(self, name: str) -> Embodiment:
        if name not in self.embodiments:
            raise UnknownNameError(f"embodiment of {self.path}", name, self.embodiments)
        return self.embodiments[name]

    def _load_part(self, directory: Path) -> None:
        part = self._parts[directory] = PartReader(directory, self._handles)
        log, reasons = part.log, []
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


def _storable(embodiment: Embodiment) -> Embodiment:
    check_name("embodiment name", embodiment.name)
    for camera in embodiment.cameras:
        check_name("camera name", camera.name)
    return embodiment


def _differences(a: Embodiment, b: Embodiment) -> list[str]:
    left, right = a.to_json(), b.to_json()
    return [f"{key} differ: {left[key]} and {right[key]}" for key in left if left[key] != right[key]]


def _read_header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads((path / "zarr.json").read_text())["attributes"]["vla"]
        version = header["format_version"]
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{path} is not an episode store: {path / 'zarr.json'} is missing.") from None
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path / 'zarr.json'} is damaged or not an episode store ({error!r}).") from error
    if version != FORMAT_VERSION:
        raise StoreError(f"{path} has format version {version}, this package reads {FORMAT_VERSION}.")
    return header
