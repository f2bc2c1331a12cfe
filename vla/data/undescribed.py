"""A foreign data set of which nobody has said yet what its columns mean: to be looked at, not learned from.

Its columns are shown as they are stored. Nothing here has a slot, a unit or a frame, so that no window,
policy or store takes it; :func:`~vla.data.readers.open_source` never gives one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla.data.source import EpisodeInfo, Fault, Frames, RawDataset
from vla.embodiment import Camera, Embodiment, Field
from vla.errors import DatasetError, UnknownNameError

UNKNOWN = "?"
#: Kinds of findings that take knowing what a column means, and why.
NEEDS_MEANING: Mapping[str, str] = {
    "outlier": "which columns are numbers and which are codes",
    "episode_outlier": "which columns tell where the arm is",
    "state_out_of_range": "ranges",
    "action_out_of_range": "ranges",
    "saturated_action": "ranges",
    "held_action": "ranges",
    "idle_start": "which columns move",
    "idle_middle": "which columns move",
    "idle_end": "which columns move",
    "frozen_frames": "which columns move",
}  # what compares state with action finds nothing to compare either


class UndescribedEmbodiment(Embodiment):
    """Fields without slots, cameras without roles; 1 Hz where neither files nor time stamps tell a rate."""

    def __post_init__(self) -> None:
        """Nothing is checked: nothing is claimed."""


class _UndescribedCamera(Camera):
    def __post_init__(self) -> None:
        """Its role is unknown."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A column, and whether it looks like an action by its name."""

    name: str
    size: int

    @property
    def is_action(self) -> bool:
        return "action" in self.name.lower()


class UndescribedSource:
    """An :class:`~vla.data.source.EpisodeSource` of columns as they are stored.

    Columns with "action" in their names are shown as action, all others as state; side by side they have the
    number type that holds all of them (64 bits where there are time stamps of 64 bits).

    Args:
        raw: closed with this one.
    """

    def __init__(self, raw: RawDataset) -> None:
        self.raw = raw
        self._parts = [_Part(name=c.name, size=c.size) for c in raw.columns.values() if c.dtype[:1] in "fiub"]
        name = raw.robot or "undescribed"
        self._embodiment = UndescribedEmbodiment(
            name=name,
            cameras=tuple(
                _UndescribedCamera(name=c.name, role=UNKNOWN, height=c.height, width=c.width)  # type: ignore[arg-type]
                for c in raw.cameras.values()
            ),
            state=tuple(_field(part) for part in self._parts if not part.is_action),
            action=tuple(_field(part) for part in self._parts if part.is_action),
            control_hz=raw.control_hz or _stamped_hz(raw) or 1.0,
        )
        self.embodiments: Mapping[str, Embodiment] = {name: self._embodiment}
        self.episodes: Sequence[EpisodeInfo] = [
            EpisodeInfo(
                index=episode.index,
                length=episode.length,
                instruction=episode.instruction,
                embodiment=name,
                success=episode.success,
                provenance={"format": raw.format, "dataset": raw.path.name, **episode.provenance},
            )
            for episode in raw.episodes
        ]

    @property
    def path(self) -> Path:
        return self.raw.path

    def __len__(self) -> int:
        return len(self.episodes)

    def columns(self, index: int) -> list[str]:
        self._check(index)
        return ["state", "action", "executed", "time_s"]

    def column(self, index: int, name: str) -> np.ndarray:
        length = self.episodes[index].length
        if name == "time_s":
            stored = self.raw.time_s(index)
            return np.arange(length) / self._embodiment.control_hz if stored is None else stored
        if name not in self.columns(index):
            raise UnknownNameError(f"column of episode {index}", name, self.columns(index))
        wanted = [part for part in self._parts if part.is_action == (name != "state")]
        columns = [self._stored(index, part) for part in wanted]
        return np.concatenate(columns, axis=1) if columns else np.zeros((length, 0), np.float32)

    def cameras(self, index: int) -> list[str]:
        self._check(index)
        return list(self.raw.cameras)

    def frame_reader(self, index: int, camera: str) -> Frames:
        self._check(index)
        return self.raw.frame_reader(index, camera)

    def index_checksum(self) -> int:
        return self.raw.checksum()

    def faults(self) -> list[Fault]:
        return [(None, line) for line in self.raw.damaged]

    def close(self) -> None:
        self.raw.close()

    def _stored(self, index: int, part: _Part) -> np.ndarray:
        values, length = self.raw.column(index, part.name), self.episodes[index].length
        if len(values) != length:
            raise DatasetError(
                f"Episode {index} of {self.path}: column {part.name!r} has {len(values)} rows, the episode "
                f"{length}."
            )
        values = values.reshape(length, part.size)
        return values.view(np.uint8) if values.dtype == bool else values

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self.episodes):
            raise UnknownNameError(f"episode of {self.path}", str(index), [f"0 to {len(self) - 1}"])


def _stamped_hz(raw: RawDataset) -> float | None:
    """The rate that the first episode's time stamps tell; None where it has none."""
    time_s = raw.time_s(0) if raw.episodes else None
    if time_s is None or len(time_s) < 2:
        return None
    period = float(np.median(np.diff(time_s)))
    return 1 / period if np.isfinite(period) and period > 0 else None


def _field(part: _Part) -> Field:
    return Field(
        name=part.name,
        size=part.size,
        unit=UNKNOWN,
        frame="none",
        mode="absolute",
        low=(-1.0,) * part.size,
        high=(1.0,) * part.size,
        slot=UNKNOWN,
    )
