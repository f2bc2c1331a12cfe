"""Our own store as raw columns, so that what its embodiment says can be compared with what its data say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vla.data.description import CameraRule, ColumnRule, DatasetDescription
from vla.data.source import Frames, RawCamera, RawColumn, RawEpisode
from vla.data.store import EpisodeStore
from vla.embodiment import Field


class StoredColumns:
    """A :class:`vla.data.source.RawDataset` of the episodes of one embodiment of a store.

    Columns ``state`` and ``action``; the latter is what was sent to the arm, which is what it answers to.

    Args:
        store: stays open, the caller closes it.
        embodiment: name of one of its embodiments.
    """

    format = "store"
    control_hz: float | None = None  # what the embodiment says is what is asked about: the time stamps tell
    damaged: Sequence[str] = ()
    unread: Mapping[str, str] = {}

    def __init__(self, store: EpisodeStore, embodiment: str) -> None:
        arm = store.embodiments[embodiment]
        self.path, self.robot = Path(str(store.path)), embodiment
        self._store = store
        self._numbers = [e.index for e in store.episodes if e.embodiment == embodiment]
        self.columns: Mapping[str, RawColumn] = {
            name: RawColumn(name=name, size=size, dtype="float32")
            for name, size in (("state", arm.state_dim), ("action", arm.action_dim))
        }
        seen = store.cameras(self._numbers[0]) if self._numbers else []
        self.cameras: Mapping[str, RawCamera] = {
            c.name: RawCamera(name=c.name, height=c.height, width=c.width)
            for c in arm.cameras
            if c.name in seen
        }
        self.episodes: Sequence[RawEpisode] = [
            RawEpisode(
                index=i, length=store.episodes[n].length, instruction=store.episodes[n].instruction,
                success=store.episodes[n].success, provenance=store.episodes[n].provenance,
            )
            for i, n in enumerate(self._numbers)
        ]  # fmt: skip

    def column(self, index: int, name: str) -> np.ndarray:
        return self._store.column(self._numbers[index], "executed" if name == "action" else name)

    def time_s(self, index: int) -> np.ndarray | None:
        return self._store.column(self._numbers[index], "time_s")

    def frame_reader(self, index: int, camera: str) -> Frames:
        return self._store.frame_reader(self._numbers[index], camera)

    def checksum(self) -> int:
        return self._store.index_checksum()

    def close(self) -> None:
        """Nothing: the store is the caller's."""


def stored_description(store: EpisodeStore, embodiment: str) -> DatasetDescription:
    """What the store's embodiment says of :class:`StoredColumns`."""
    arm = store.embodiments[embodiment]
    return DatasetDescription(
        embodiment=arm,
        state=_rules("state", arm.state),
        action=_rules("action", arm.action),
        cameras=tuple(CameraRule(camera=c.name, column=c.name) for c in arm.cameras),
    )


def _rules(column: str, members: Sequence[Field]) -> tuple[ColumnRule, ...]:
    rules, start = [], 0
    for member in members:
        rules.append(ColumnRule(field=member.name, column=column, start=start))
        start += member.size
    return tuple(rules)
