"""Replay buffers of diffusion-policy: zarr v2 with all episodes one after the other, or the same zipped.

::

    pusht.zarr/  data/action [N 2]  data/state [N 5]  data/img [N 96 96 3] (uint8, or float 0..255)
                 meta/episode_ends int64 [E]    row after the last one of each episode
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.readers.stills import StillFrames
from vla.data.shards import crc32c
from vla.data.source import Frames, RawCamera, RawColumn, RawEpisode
from vla.errors import DatasetError, StoreError, UnknownNameError

_ENDS = "meta/episode_ends"
_KEPT = 4  # decompressed chunks of pictures


def recognise(path: Path) -> bool:
    """Whether ``path`` is a replay buffer, a directory or a ZIP file."""
    if path.is_dir():
        return (path / _ENDS / ".zarray").is_file()
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return f"{_ENDS}/.zarray" in file.namelist()


def open_raw(path: Path) -> ReplayBuffer:
    return ReplayBuffer(path)


class ReplayBuffer:
    """A :class:`~vla.data.source.RawDataset`.

    Raises:
        DatasetError: no ``data``, episode ends that do not rise or do not fit, unknown compression.
    """

    format = "diffusion_policy"
    control_hz = None
    robot = None

    damaged: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        import zarr
        import zarr.storage

        self.path = path
        self._store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else None
        root = zarr.open_group(self._store or str(path), mode="r", zarr_format=2)
        self._arrays = self._open_arrays(root)
        ends = self._read(root[_ENDS], slice(None), _ENDS).astype(np.int64)
        self._check_ends(ends)
        self._starts = np.concatenate([[0], ends[:-1]])
        self.columns: Mapping[str, RawColumn] = {
            n: RawColumn(name=n, size=int(np.prod(a.shape[1:])), dtype=str(a.dtype))
            for n, a in self._arrays.items()
            if not _is_pictures(a)
        }
        self.cameras: Mapping[str, RawCamera] = {
            n: RawCamera(name=n, height=a.shape[1], width=a.shape[2])
            for n, a in self._arrays.items()
            if _is_pictures(a)
        }
        self.episodes = [
            RawEpisode(index=i, length=int(end - start), instruction="", provenance={"episode": i})
            for i, (start, end) in enumerate(zip(self._starts, ends, strict=True))
        ]
        self._chunks: dict[tuple[str, int], np.ndarray] = {}

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
        """Of the metadata, the episode ends, and the size and time of change of every file."""
        if self.path.is_file():
            with zipfile.ZipFile(self.path) as file:
                facts: list[Any] = [[i.filename, i.file_size, i.CRC] for i in file.infolist()]
            return crc32c(json.dumps(facts).encode())
        facts = []
        for file in sorted(p for p in self.path.rglob("*") if p.is_file()):
            meta = file.name.startswith(".z") or "meta" in file.relative_to(self.path).parts
            state = crc32c(file.read_bytes()) if meta else file.stat().st_mtime_ns
            facts.append([str(file.relative_to(self.path)), file.stat().st_size, state])
        return crc32c(json.dumps(facts).encode())

    def close(self) -> None:
        self._chunks.clear()
        if self._store is not None:
            self._store.close()

    def _open_arrays(self, root: Any) -> dict[str, Any]:
        if "data" not in root:
            raise DatasetError(f"{self.path} has meta/episode_ends but no 'data' group: fetch it again.")
        arrays = {}
        try:
            for name, array in root["data"].arrays():
                if not np.issubdtype(array.dtype, np.number) and array.dtype != bool:
                    raise DatasetError(f"{self.path}: data/{name} is {array.dtype}, expected numbers.")
                arrays[name] = array
        except (ValueError, KeyError) as error:
            raise DatasetError(
                f"{self.path}: an array cannot be opened ({error}). If that is a codec (imagecodecs_jpeg2k), "
                "rewrite the arrays with Blosc or zlib."
            ) from error
        if not arrays:
            raise DatasetError(f"{self.path}: the 'data' group is empty.")
        return dict(sorted(arrays.items()))

    def _check_ends(self, ends: np.ndarray) -> None:
        if not len(ends) or (np.diff(np.concatenate([[0], ends])) <= 0).any():
            raise DatasetError(
                f"{self.path}: {_ENDS} is {ends.tolist()[:8]}..., expected numbers that rise from above 0."
            )
        rows = {name: array.shape[0] for name, array in self._arrays.items()}
        if set(rows.values()) != {int(ends[-1])}:
            raise DatasetError(
                f"{self.path} is ragged: {_ENDS} ends at {ends[-1]}, the arrays have {rows} rows. It was cut "
                "while it was written or copied: fetch it again."
            )

    def _rows(self, index: int) -> slice:
        if not 0 <= index < len(self.episodes):
            raise StoreError(f"Episode {index} of {self.path}, which has {len(self.episodes)} episodes.")
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

    def _read(self, array: Any, rows: slice, name: str) -> np.ndarray:
        try:
            return np.asarray(array[rows])
        except (OSError, ValueError, RuntimeError) as error:
            raise DatasetError(
                f"{self.path}: {name}, rows {rows.start or 0}..{rows.stop}: a chunk is damaged ({error})."
            ) from error


def _is_pictures(array: Any) -> bool:
    return array.ndim == 4 and array.shape[3] == 3
