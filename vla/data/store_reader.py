"""Reads an episode store: opens it, in spite of damage on request, checks it, gives columns and pictures."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from vla.data.arrays import FileHandles
from vla.data.commits import Commit
from vla.data.damage import damage_lines
from vla.data.frames import FrameReader
from vla.data.part_reader import PartReader
from vla.data.remote import RemoteFiles, RemotePath, is_url
from vla.data.shards import crc32c
from vla.data.source import EpisodeInfo, Fault, check_episode
from vla.data.store_header import Header, part_directories, read_header
from vla.data.verification import Damage, damaged_columns
from vla.errors import StoreError, UnknownNameError

_GONE = "{} is missing, with all its episodes"
_BLEMISH = "this package reads all episodes, zarr libraries may not: copy it again, or 'vla data import' it"
_log = logging.getLogger(__name__)


class StoreReader:
    """The episodes of a store as they are committed at the moment of opening; see :class:`EpisodeStore`."""

    def __init__(self, root: Path | RemotePath, header: Header, *, tolerate_damage: bool) -> None:
        self._root = root
        self.path: Path | str = root if isinstance(root, Path) else root.files.url
        #: Whether metadata have checksums too; those of older formats have none.
        self.checksummed = header.checksummed
        self.provenance: Mapping[str, Any] = header.provenance
        self.embodiments = header.embodiments
        self.codec = header.codec
        self.notices: list[str] = []
        self.skipped: tuple[Damage, ...] = ()
        self._damaged: list[Damage] = []
        self._tolerant = tolerate_damage
        self._files = FileHandles() if isinstance(root, Path) else root.files
        self._parts: dict[Path | RemotePath, PartReader] = {}
        self._commits: list[tuple[PartReader, Commit]] = []
        self.episodes: list[EpisodeInfo] = []
        directories, missing = part_directories(root)
        self._note_faults("store", [*([header.fault] if header.fault else []), *map(_GONE.format, missing)])
        for directory in directories:
            self._load_part(directory)

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
        try:
            return part.column(commit, name)
        except StoreError as error:
            raise StoreError(f"Episode {index} of {self.path}, column {name!r}: {error}") from error

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
        together = None
        if len(indices) > 1 and name in first.crc32c:
            together = part.run([self._entry(index)[1] for index in indices], name)
        if together is None:  # alone, or damaged: one by one, it says which episode
            return np.concatenate([self.column(index, name) for index in indices])
        return together

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

    def faults(self) -> list[Fault]:
        """What was found on opening in spite of damage, or left out then; none of a store opened as it is."""
        if not self._tolerant:
            return []
        found = self.skipped or [*self._damaged, *self._lost_commits()]
        return [(d.episode, f"{d.column}: {d.reason}") for d in found]

    def verify(self) -> list[Damage]:
        """Check every byte of the episodes and metadata against its checksum; empty: all is sound.

        Metadata of format version 1 and 2 have no checksums: only what contradicts the rest is found there.
        """
        return [*self._damaged, *self._lost_commits(), *damaged_columns(self)]

    def _lost_commits(self) -> list[Damage]:
        lost = [(part.directory.name, part.lost_commits()) for part in self._parts.values()]
        return [Damage(episode=None, column=name, reason=why) for name, why in lost if why]

    def close(self) -> None:
        """Close all files."""
        self._files.close()

    def _entry(self, index: int) -> tuple[PartReader, Commit]:
        check_episode(index, len(self._commits), self.path)
        return self._commits[index]

    def _read_part(self, directory: Path | RemotePath) -> PartReader:
        return PartReader(directory, self._files, list(self.embodiments), checksummed=self.checksummed)

    def _load_part(self, directory: Path | RemotePath) -> None:
        part = self._parts[directory] = self._read_part(directory)
        if part.log.torn_bytes:
            self._notice(f"{directory}: ignored a half-written episode (its writer was stopped).")
        strange = sorted({c.embodiment for c in part.log.commits} - set(self.embodiments))
        unknown = [f"commits.jsonl has episodes of {name!r}, which {self.path} lacks" for name in strange]
        self._note_faults(directory.name, [*part.faults, *unknown])
        for reason in part.blemishes:
            mended = f"{reason.rstrip('.')}; {_BLEMISH}"
            self._damaged.append(Damage(episode=None, column=directory.name, reason=mended))
            if not self._tolerant:
                self._notice(f"{self.path}: {mended}")
        for commit in part.log.commits:
            if commit.embodiment in self.embodiments:
                self._add(part, commit)

    def _note_faults(self, where: str, reasons: Sequence[str]) -> None:
        """Refuse a store with these faults, or remember them if it is opened in spite of damage."""
        if reasons and not self._tolerant:
            raise StoreError(
                f"{self.path}, {where}: {'; '.join(reasons)}. 'vla data verify' lists all that is damaged; "
                "skip_damaged=True (import: --skip-damaged) goes on with the rest."
            )
        self._damaged += [Damage(episode=None, column=where, reason=reason) for reason in reasons]

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
