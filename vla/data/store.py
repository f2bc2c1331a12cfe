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

A writer killed at any moment loses nothing committed. Every read is checked against a checksum, and every
``zarr.json`` has one of itself; rows that belong to no episode (what a killed writer left) have none. While a
part is being written its arrays' lengths are whole shards (unwritten rows are 0); closing makes them exact.
A store at a URL (``s3://...``) is read through fsspec; it cannot be appended to.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from vla.data.codec import Codec, JpegCodec
from vla.data.frames import Encoded
from vla.data.parts import PartWriter
from vla.data.remote import is_url
from vla.data.store_header import Header, differences, read_header, storable
from vla.data.store_reader import StoreReader
from vla.embodiment import Embodiment
from vla.errors import IncompatibleError, StoreError, UnknownNameError
from vla.types import Episode

_BEGUN = ".zarr.json."  # left by one that was killed while it made this store
_READ_ONLY = "write to a local directory and upload that, it needs no conversion."


class EpisodeStore(StoreReader):
    """Episodes on disk; build with :meth:`create` or :meth:`open`, use as a context manager.

    Opening reads what is committed at that moment, also of a store still being written. Episode
    numbers follow the parts' order; episodes appended through this handle come last until it is reopened.
    """

    _writer: PartWriter | None = None

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
        Header(
            embodiments={arm.name: storable(arm) for arm in embodiments},
            provenance=dict(provenance or {}),
            codec=codec or JpegCodec(),
        ).write(path)
        return cls.open(path)

    def add_embodiment(self, embodiment: Embodiment) -> None:
        """Register an embodiment; one of that name that differs raises :class:`IncompatibleError`."""
        path = self._writable()
        lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several workers may add theirs at once
            header = read_header(path)
            if embodiment.name not in header.embodiments:
                header = header.with_embodiment(embodiment)
                header.write(path)
        finally:
            os.close(lock)
        known = header.embodiments
        if known[embodiment.name] != embodiment:
            raise IncompatibleError(
                f"embodiment {embodiment.name!r}",
                f"the one in {self.path}",
                [*differences(embodiment, known[embodiment.name]), "use another store or the same settings"],
            )
        self.embodiments = known
        if self._writer is not None:
            self._writer.embodiments = list(known)

    def append(self, episode: Episode, encoded: Mapping[str, Encoded] | None = None) -> int:
        """Commit an episode and return its index; if anything is wrong nothing is stored.

        Args:
            episode: its steps have the images of those cameras that are not in ``encoded``.
            encoded: pictures that are stored as they are, got from a store of the same codec.
        """
        path = self._writable()
        embodiment = self._embodiment(episode.embodiment)
        if self._writer is None or self._writer.pid != os.getpid():
            self._writer = PartWriter(path, self.codec, list(self.embodiments))
            if self._writer.recovered_bytes:
                self._notice(f"{self._writer.directory}: removed a half-written commit.")
        commit = self._writer.append(episode, embodiment, encoded)
        directory = self._writer.directory
        if directory not in self._parts:
            self._parts[directory] = self._read_part(directory)
        return self._add(self._parts[directory], commit)

    def close(self) -> None:
        """Seal the part this handle has written and close all files; committed episodes never need it."""
        if self._writer is not None and self._writer.pid == os.getpid():
            self._writer.close()
        self._writer = None
        self._files.close()

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
