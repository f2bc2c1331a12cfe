"""A data set whose columns are arrays in memory: for studies, tests and data made on the spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vla.data.shards import crc32c
from vla.data.source import Frames, RawCamera, RawColumn, RawEpisode
from vla.errors import DatasetError, UnknownNameError
from vla.text import quoted


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryEpisode:
    """Columns [T n], pictures uint8 [T h w 3] by name, and time stamps [T] in seconds where there are any."""

    columns: Mapping[str, np.ndarray]
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    time_s: np.ndarray | None = None
    instruction: str = ""


class MemoryDataset:
    """A :class:`vla.data.source.RawDataset` of arrays.

    Args:
        episodes: all with the same columns and pictures.
        path: what errors and descriptions call it.
        control_hz, robot: as a file would state them.

    Raises:
        DatasetError: episodes with other columns than the first, or columns of unequal length.
    """

    format = "memory"

    damaged: tuple[str, ...] = ()
    unread: Mapping[str, str] = {}

    def __init__(
        self,
        episodes: Sequence[MemoryEpisode],
        *,
        path: Path = Path("memory"),
        control_hz: float | None = None,
        robot: str | None = None,
        names: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        if not episodes:
            raise DatasetError("A data set in memory needs an episode.")
        self._episodes, self.path, self.control_hz, self.robot = list(episodes), path, control_hz, robot
        first = episodes[0]
        self.columns = {
            n: RawColumn(name=n, size=v.shape[1], dtype=str(v.dtype), names=(names or {}).get(n, ()))
            for n, v in first.columns.items()
        }
        self.cameras = {
            n: RawCamera(name=n, height=v.shape[1], width=v.shape[2]) for n, v in first.pictures.items()
        }
        self.episodes = [self._check(i, e) for i, e in enumerate(episodes)]

    def column(self, index: int, name: str) -> np.ndarray:
        if name not in self.columns:
            raise UnknownNameError(f"column of {self.path}", name, self.columns)
        return self._episodes[index].columns[name]

    def time_s(self, index: int) -> np.ndarray | None:
        return self._episodes[index].time_s

    def frame_reader(self, index: int, camera: str) -> Frames:
        if camera not in self.cameras:
            raise UnknownNameError(f"camera of {self.path}", camera, self.cameras)
        return _ArrayFrames(pictures=self._episodes[index].pictures[camera])

    def checksum(self) -> int:
        value = 0
        for episode in self._episodes:
            times = {} if episode.time_s is None else {"": episode.time_s}
            for name, array in {**episode.columns, **episode.pictures, **times}.items():
                said = f"{name} {episode.instruction}".encode()
                data = value.to_bytes(4, "little") + said + np.ascontiguousarray(array).tobytes()
                value = crc32c(data)
        return value

    def close(self) -> None:
        pass

    def _check(self, index: int, episode: MemoryEpisode) -> RawEpisode:
        arrays = {**episode.columns, **episode.pictures}
        lengths = {len(values) for values in arrays.values()}
        if set(arrays) != {*self.columns, *self.cameras} or len(lengths) != 1:
            raise DatasetError(
                f"Episode {index} in memory has {quoted(sorted(arrays))} of lengths "
                f"{', '.join(map(str, sorted(lengths)))}; expected "
                f"{quoted(sorted([*self.columns, *self.cameras]))}, all of one length."
            )
        return RawEpisode(index=index, length=lengths.pop(), instruction=episode.instruction, provenance={})


@dataclass(frozen=True, kw_only=True, eq=False)
class _ArrayFrames:
    pictures: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.pictures.shape[1], self.pictures.shape[2]

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, step: int, out: np.ndarray) -> None:
        out[:] = self.pictures[step]
