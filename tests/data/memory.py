"""A foreign data set in memory, at any rate and without our auxiliary quantities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.data.worlds import make_arm
from vla.data.description import CameraRule, ColumnRule, DatasetDescription
from vla.data.mapped import MappedSource
from vla.data.source import RawCamera, RawColumn, RawEpisode
from vla.embodiment import Embodiment


@dataclass(frozen=True)
class ArrayFrames:
    pictures: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.pictures.shape[1], self.pictures.shape[2]

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, step: int, out: np.ndarray) -> None:
        out[:] = self.pictures[step]


class MemoryRaw:
    """Episodes given as columns and pictures by name; ``time_s`` [T] where there is such a column."""

    format, robot, control_hz = "memory", None, None

    def __init__(self, episodes: list[dict[str, np.ndarray]], cameras: tuple[str, ...] = ()) -> None:
        self.path, self._data, first = Path("memory"), episodes, episodes[0]
        self.cameras = {
            c: RawCamera(name=c, height=first[c].shape[1], width=first[c].shape[2]) for c in cameras
        }
        self.columns = {
            name: RawColumn(name=name, size=values.shape[1], dtype=values.dtype.name)
            for name, values in first.items()
            if name not in cameras and values.ndim == 2
        }
        self.episodes = [
            RawEpisode(index=i, length=len(e["action"]), instruction="reach the red square", provenance={})
            for i, e in enumerate(episodes)
        ]

    def column(self, index: int, name: str) -> np.ndarray:
        return self._data[index][name]

    def time_s(self, index: int) -> np.ndarray | None:
        return self._data[index].get("time_s")

    def frame_reader(self, index: int, camera: str) -> ArrayFrames:
        return ArrayFrames(self._data[index][camera])

    def checksum(self) -> int:
        return 1

    def close(self) -> None:
        pass


def memory_source(
    arm: Embodiment | None = None, *, num_episodes: int = 3, length: int = 20, seed: int = 0
) -> MappedSource:
    """Random episodes of an arm (default: ``gamma``, 20 px, a front camera)."""
    arm = arm or make_arm("gamma", image_size=20, wrist=False)
    rng = np.random.default_rng(seed)
    episodes = []
    for _ in range(num_episodes):
        columns: dict[str, np.ndarray] = {
            "state": rng.normal(size=(length, arm.state_dim)).astype(np.float32),
            "action": rng.uniform(arm.action_low, arm.action_high, (length, arm.action_dim)),
        }
        for camera in arm.cameras:
            columns[camera.name] = rng.integers(
                0, 256, (length, camera.height, camera.width, 3), dtype=np.uint8
            )
        episodes.append(columns)
    return MappedSource(MemoryRaw(episodes, tuple(c.name for c in arm.cameras)), describe(arm))


def describe(arm: Embodiment) -> DatasetDescription:
    """Columns ``state`` and ``action`` with the fields side by side, cameras under their own names."""
    rules = {
        kind: tuple(
            ColumnRule(field=f.name, column=kind, start=arm.field_slice(f.name, of=kind).start)
            for f in members
        )
        for kind, members in (("state", arm.state), ("action", arm.action))
    }
    cameras = tuple(CameraRule(camera=c.name, column=c.name) for c in arm.cameras)
    return DatasetDescription(embodiment=arm, cameras=cameras, **rules)
