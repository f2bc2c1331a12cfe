"""Replay buffers of diffusion-policy: zarr v2 with all episodes one after the other, or the same zipped.

::

    pusht.zarr/  data/action [N 2]  data/state [N 5]  data/img [N 96 96 3] (uint8, or float 0..255)
                 meta/episode_ends int64 [E]    row after the last one of each episode
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.damage import damage_lines
from vla.data.guard import reading
from vla.data.readers.fingerprint import fingerprint
from vla.data.readers.stills import StillFrames
from vla.data.shards import crc32c
from vla.data.source import Frames, RawCamera, RawColumn, RawEpisode, check_episode, chosen
from vla.errors import DatasetError, UnknownNameError

_ENDS = "meta/episode_ends"
_ZIPPED = ".zarr.zip"
_KEPT = 4  # decompressed chunks of pictures


def recognise(path: Path) -> bool:
    """Whether ``path`` is a replay buffer, a directory or a ZIP file."""
    if path.is_dir():
        return (path / _ENDS / ".zarray").is_file()
    if not zipfile.is_zipfile(path):
        return path.name.endswith(_ZIPPED)  # damaged: opening says so
    try:
        with zipfile.ZipFile(path) as file:
            return f"{_ENDS}/.zarray" in file.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return path.name.endswith(_ZIPPED)


def open_raw(
    path: Path,
    *,
    skip_damaged: bool = False,
    cameras: Collection[str] | None = None,
    to_look: bool = False,  # what is damaged is left out all the same
) -> ReplayBuffer:
    return ReplayBuffer(path, skip_damaged=skip_damaged, cameras=cameras)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Opened:
    """What a process has open: ``store`` if a ZIP file, the ends of episodes, the arrays in ``data``."""

    pid: int
    store: Any
    ends: Any
    arrays: Mapping[str, Any]


class ReplayBuffer:
    """A :class:`~vla.data.source.RawDataset`.

    Args:
        path: directory or ZIP file.
        skip_damaged: where arrays end before the episodes do, leave out the episodes that they do not hold
            and name them in ``damaged``.
        cameras: that are read; None: all.

    Raises:
        DatasetError: no ``data``, episode ends that do not rise or do not fit, unknown compression.
    """

    format = "diffusion_policy"
    control_hz = None
    robot = None
    unread: Mapping[str, str] = {}

    def __init__(
        self, path: Path, *, skip_damaged: bool = False, cameras: Collection[str] | None = None
    ) -> None:
        self.path = path
        self._opened: _Opened | None = None
        self._chunks: dict[tuple[str, int], np.ndarray] = {}
        self._holes = {f"data/{name}": self._missing(name) for name in self._arrays}
        if not skip_damaged:
            for name in self._holes:
                self._check_there(name, 0, self._arrays[name.removeprefix("data/")].shape[0])
        ends, damaged = self._ends(skip_damaged=skip_damaged)
        self.damaged: tuple[str, ...] = tuple(damaged)
        self._starts = np.concatenate([[0], ends[:-1]])
        self.columns: Mapping[str, RawColumn] = {
            n: RawColumn(name=n, size=int(np.prod(a.shape[1:])), dtype=str(a.dtype))
            for n, a in self._arrays.items()
            if not _is_pictures(a)
        }
        pictures = {n: a for n, a in self._arrays.items() if _is_pictures(a)}
        self.cameras: Mapping[str, RawCamera] = {
            n: RawCamera(name=n, height=a.shape[1], width=a.shape[2])
            for n, a in chosen(pictures, cameras, path).items()
        }
        self.episodes = [
            RawEpisode(index=i, length=int(end - start), instruction="", provenance={"episode": i})
            for i, (start, end) in enumerate(zip(self._starts, ends, strict=True))
        ]

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens its own files."""
        return {**self.__dict__, "_opened": None, "_chunks": {}}

    def column(self, index: int, name: str) -> np.ndarray:
        if name not in self.columns:
            raise UnknownNameError(f"column of {self.path}", name, self.columns)
        rows = self._read(self._arrays[name], self._rows(index), f"data/{name}")
        return rows.reshape(len(rows), -1)

    def time_s(self, index: int) -> None:
        """The format has no time stamps."""
        return

    def frame_reader(self, index: int, camera: str) -> Frames:
        if camera not in self.cameras:
            raise UnknownNameError(f"camera of {self.path}", camera, self.cameras)
        rows, stored = self._rows(index), self.cameras[camera]
        return StillFrames(
            origin=f"Episode {index} of {self.path}, camera {camera!r}",
            shape=(stored.height, stored.width),
            length=rows.stop - rows.start,
            read_still=lambda step: self._picture(camera, rows.start + step),
        )

    def checksum(self) -> int:
        """Of the content of its files: see ``readers.fingerprint``; a ZIP file's list has a CRC of each."""
        if self.path.is_file():
            with zipfile.ZipFile(self.path) as file:
                listed = [[i.filename, i.file_size, i.CRC] for i in file.infolist()]
            return crc32c(json.dumps([listed, fingerprint([self.path], self.path.parent)]).encode())
        parts = [path for part in ("data", "meta") for path in (self.path / part).rglob("*")]
        files = fingerprint(filter(Path.is_file, parts), self.path)
        return crc32c(json.dumps(files).encode())

    def close(self) -> None:
        self._chunks.clear()
        if self._opened is not None and self._opened.store is not None:
            self._opened.store.close()
        self._opened = None

    @property
    def _arrays(self) -> Mapping[str, Any]:
        return self._open().arrays

    def _open(self) -> _Opened:
        import zarr
        import zarr.storage

        if self._opened is None or self._opened.pid != os.getpid():
            with reading(self.path, "zarr v2 group with data/ and meta/episode_ends"):
                store = zarr.storage.ZipStore(self.path, mode="r") if self.path.is_file() else None
                root = zarr.open_group(store or str(self.path), mode="r", zarr_format=2)
                ends = root[_ENDS]
                arrays = self._open_arrays(root)
            self._opened = _Opened(pid=os.getpid(), store=store, ends=ends, arrays=arrays)
        return self._opened

    def _open_arrays(self, root: Any) -> dict[str, Any]:
        if "data" not in root:
            raise DatasetError(f"{self.path} has meta/episode_ends but no 'data' group: fetch it again.")
        arrays = {}
        known = "group of arrays compressed by Blosc, zlib or nothing (imagecodecs_jpeg2k is not read)"
        with reading(f"{self.path}, data", known):
            for name, array in root["data"].arrays():
                if not np.issubdtype(array.dtype, np.number) and array.dtype != bool:
                    raise DatasetError(f"{self.path}: data/{name} is {array.dtype}, expected numbers.")
                if not array.ndim or 0 in array.chunks:
                    raise DatasetError(
                        f"{self.path}: data/{name} has the shape {array.shape}: it has no rows."
                    )
                arrays[name] = array
        if not arrays:
            raise DatasetError(f"{self.path}: the 'data' group is empty.")
        return dict(sorted(arrays.items()))

    def _ends(self, *, skip_damaged: bool) -> tuple[np.ndarray, list[str]]:
        """int64 [E], row after the last one of each episode; what is said of those that are left out."""
        ends = self._read(self._open().ends, slice(None), _ENDS).astype(np.int64)
        if not len(ends) or (np.diff(np.concatenate([[0], ends])) <= 0).any():
            raise DatasetError(
                f"{self.path}: {_ENDS} is {ends.tolist()[:8]}..., expected numbers that rise from above 0."
            )
        rows = {name: array.shape[0] for name, array in self._arrays.items()}
        if set(rows.values()) == {int(ends[-1])}:
            return ends, []
        what = f"{self.path} is ragged: {_ENDS} ends at {ends[-1]}, the arrays have {rows} rows"
        kept = ends[ends <= min(rows.values())]
        if not skip_damaged or not len(kept):
            raise DatasetError(f"{what}. It was cut while it was written or copied: fetch it again.")
        return kept, damage_lines((i, what) for i in range(len(kept), len(ends))) or [what]

    def _rows(self, index: int) -> slice:
        check_episode(index, len(self.episodes), self.path)
        start = int(self._starts[index])
        return slice(start, start + self.episodes[index].length)

    def _picture(self, camera: str, row: int) -> np.ndarray:
        array = self._arrays[camera]
        size = array.chunks[0]
        key = (camera, row // size)
        if key not in self._chunks:
            while len(self._chunks) >= _KEPT:
                self._chunks.pop(next(iter(self._chunks)))
            rows = slice(key[1] * size, min((key[1] + 1) * size, array.shape[0]))
            self._chunks[key] = self._read(array, rows, f"data/{camera}")
        picture = self._chunks[key][row % size]
        if picture.dtype == np.uint8:
            return picture
        if not (np.isfinite(picture).all() and picture.min() >= 0 and 1 < picture.max() <= 255):
            raise DatasetError(
                f"{self.path}: data/{camera}, row {row} has values {picture.min():g}..{picture.max():g}, "
                "expected 0..255. Rewrite the pictures as uint8."
            )
        return np.rint(picture).astype(np.uint8)

    def _missing(self, name: str) -> dict[int, str]:
        """Chunks of an array that are not there, by their first row; zarr would read them as zeros."""
        array, folder = self._arrays[name], f"data/{name}/"
        if self.path.is_file():
            with zipfile.ZipFile(self.path) as file:
                there = set(file.namelist())
        else:
            there = {p.relative_to(self.path).as_posix() for p in (self.path / folder).rglob("*")}
        counts = [-(-size // chunk) for size, chunk in zip(array.shape, array.chunks, strict=True)]
        mark = array.metadata.dimension_separator
        names = ((key[0], folder + mark.join(map(str, key))) for key in product(*map(range, counts)))
        return {number * array.chunks[0]: file for number, file in names if file not in there}

    def _check_there(self, name: str, start: int, stop: int) -> None:
        size = self._arrays[name.removeprefix("data/")].chunks[0]
        for row, file in self._holes[name].items():
            if start < row + size and row < stop:
                raise DatasetError(
                    f"{self.path}: the chunk {file} (from row {row} on) is missing: it was not copied, or "
                    "zarr left it out as all zeros (write_empty_chunks=False: write it anew with True)."
                )

    def _read(self, array: Any, rows: slice, name: str) -> np.ndarray:
        if name in self._holes:
            self._check_there(name, rows.start, rows.stop)
        with reading(f"{self.path}: {name}, rows {rows.start or 0}..{rows.stop}"):
            return np.asarray(array[rows])


def _is_pictures(array: Any) -> bool:
    return array.ndim == 4 and array.shape[3] == 3
