"""LeRobotDataset v3.0 and v2.1 (v2.0): parquet tables with videos or pictures, read as they are.

Columns are the numeric features of ``meta/info.json`` (``next.success`` also tells success); cameras are its
video and image features (depth maps are left out). The instruction of an episode is that of its first step;
where it changes within an episode all are kept in the provenance. Frame k of an episode is the one shown
k / fps after its start in the video.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vla.data.readers.lerobot_layout import (
    BOOKKEEPING,
    NUMERIC,
    Layout,
    read_layout,
)
from vla.data.readers.lerobot_meta import EpisodeEntry, Feature, VideoSpan
from vla.data.readers.lerobot_tables import Tables
from vla.data.shards import crc32c
from vla.data.source import Frames, RawCamera, RawColumn, RawEpisode
from vla.data.video import VideoFiles
from vla.errors import DatasetError, StoreError, UnknownNameError

_SAMPLE_BYTES = 1 << 16  # of each end of a file that go into the checksum
_log = logging.getLogger(__name__)


def recognise(path: Path) -> bool:
    """Whether ``path`` is the folder of a LeRobotDataset."""
    return (path / "meta/info.json").is_file()


def open_raw(path: Path) -> LeRobotDataset:
    return LeRobotDataset(path)


class LeRobotDataset:
    """A :class:`~vla.data.source.RawDataset`; opening reads ``meta`` and checks that the files fit it.

    Raises:
        DatasetError: another version, two versions mixed, missing files, tables that do not have the rows or
            columns that ``meta`` states.
    """

    damaged: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layout = read_layout(path)
        self._tables, self._videos = Tables(), VideoFiles()
        features = self.layout.features.values()
        self.columns: Mapping[str, RawColumn] = {
            f.name: _column(f) for f in features if f.dtype in NUMERIC and f.name not in BOOKKEEPING
        }
        self.cameras: Mapping[str, RawCamera] = {f.name: _camera(f, path) for f in features if f.is_camera}
        if depth := [f.name for f in features if f.depth]:
            _log.warning("%s: depth maps are not read: %s", path, ", ".join(depth))
        self._check_tables()
        self.episodes: Sequence[RawEpisode] = [
            self._episode(index, entry) for index, entry in enumerate(self.layout.episodes)
        ]

    @property
    def format(self) -> str:
        return "lerobot_v3" if self.layout.is_v3 else "lerobot_v2"

    @property
    def control_hz(self) -> float:
        return self.layout.fps

    @property
    def robot(self) -> str | None:
        return self.layout.robot

    def column(self, index: int, name: str) -> np.ndarray:
        if name not in self.columns:
            raise UnknownNameError(f"column of {self.path}", name, self.columns)
        return self._values(self._entry(index), name, self.columns[name].size)

    def time_s(self, index: int) -> np.ndarray:
        entry = self._entry(index)
        times = self._values(entry, "timestamp", 1)[:, 0].astype(np.float64)
        wrong = np.flatnonzero(~(np.diff(times) > 0))
        if len(wrong):
            step = int(wrong[0]) + 1
            raise DatasetError(
                f"Episode {entry.number}, {entry.table}: time goes from {times[step - 1]:.4f} s to "
                f"{times[step]:.4f} s at step {step}, expected to rise. 'vla data fix' can re-time it."
            )
        return times

    def frame_reader(self, index: int, camera: str) -> Frames:
        if camera not in self.cameras:
            raise UnknownNameError(f"camera of {self.path}", camera, self.cameras)
        entry, stored = self._entry(index), self.cameras[camera]
        common: dict[str, Any] = {
            "origin": f"Episode {entry.number} of {self.path}, camera {camera!r}",
            "shape": (stored.height, stored.width),
            "length": entry.length,
        }
        if camera in entry.videos:
            span = entry.videos[camera]
            return _VideoFrames(**common, files=self._videos, span=span, fps=self.layout.fps)
        return _ImageFrames(**common, tables=self._tables, root=self.path, entry=entry, column=camera)

    def checksum(self) -> int:
        """Of ``meta`` whole, and of the size and both ends of every other file (a parquet or MP4 file keeps
        its index at its end)."""
        facts: list[Any] = []
        for file in sorted(p for p in self.path.rglob("*") if p.is_file()):
            name, size = str(file.relative_to(self.path)), file.stat().st_size
            with file.open("rb") as stream:
                ends = stream.read() if name.startswith("meta/") else stream.read(_SAMPLE_BYTES)
                if size > len(ends):
                    stream.seek(max(size - _SAMPLE_BYTES, len(ends)))
                    ends += stream.read()
            facts.append([name, size, crc32c(ends)])
        return crc32c(json.dumps(facts).encode())

    def close(self) -> None:
        self._tables.close()
        self._videos.close()

    def _entry(self, index: int) -> EpisodeEntry:
        if not 0 <= index < len(self.layout.episodes):
            raise StoreError(
                f"Episode {index} of {self.path}, which has {len(self.layout.episodes)} episodes."
            )
        return self.layout.episodes[index]

    def _values(self, entry: EpisodeEntry, name: str, size: int) -> np.ndarray:
        if not self.layout.is_v3:
            _check_rows(
                entry.table, self._tables.num_rows(entry.table), entry.length, f"episode {entry.number}"
            )
        return self._tables.values(entry.table, name, entry.row, entry.row + entry.length, size)

    def _check_tables(self) -> None:
        """Columns of the first table; in v3.0 also that each row belongs to the episode ``meta`` says."""
        first = self.layout.episodes[0].table
        _check_columns(self.layout, first, self._tables.names(first))
        if not self.layout.is_v3:
            return
        by_table: dict[Path, list[EpisodeEntry]] = {}
        for entry in self.layout.episodes:
            by_table.setdefault(entry.table, []).append(entry)
        for table, entries in by_table.items():
            rows = self._tables.num_rows(table)
            _check_rows(table, rows, sum(entry.length for entry in entries), f"its {len(entries)} episodes")
            expected = np.repeat([e.number for e in entries], [e.length for e in entries])
            stored = self._tables.values(table, "episode_index", 0, rows, 1)[:, 0]
            if (stored != expected).any():
                row = int(np.flatnonzero(stored != expected)[0])
                raise DatasetError(
                    f"{table}: row {row} belongs to episode {stored[row]}, expected {expected[row]} from the "
                    "lengths in meta/episodes: the episodes are ragged. Fetch the data set again."
                )

    def _episode(self, index: int, entry: EpisodeEntry) -> RawEpisode:
        facts = {key: value for key, value in entry.facts.items() if key != "success"}
        provenance: dict[str, Any] = {"episode_index": entry.number, **_unpacked(facts)}
        instruction = entry.tasks[0] if entry.tasks else ""
        if len(set(entry.tasks)) > 1:
            number = int(self._values(entry, "task_index", 1)[0, 0])
            if number not in self.layout.tasks:
                raise DatasetError(
                    f"Episode {entry.number}, {entry.table}: task_index {number} is not among those of meta "
                    f"({sorted(self.layout.tasks)})."
                )
            instruction = self.layout.tasks[number]
            provenance["instructions"] = list(entry.tasks)
        success = entry.facts.get("success")
        if "next.success" in self.columns and success is None:
            success = bool(self._values(entry, "next.success", 1).any())
        return RawEpisode(
            index=index,
            length=entry.length,
            instruction=instruction,
            success=success if isinstance(success, bool) else None,
            provenance=provenance,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _VideoFrames:
    """Pictures of one camera in one episode, in a video that may hold other episodes too."""

    origin: str
    shape: tuple[int, int]
    length: int
    files: VideoFiles
    span: VideoSpan
    fps: float

    def __len__(self) -> int:
        return self.length

    def read(self, step: int, out: np.ndarray) -> None:
        _check_step(step, self.length, self.origin)
        try:
            self.files.read(self.span.path, self.span.start_s + step / self.fps, out)
        except DatasetError as error:
            raise DatasetError(f"{self.origin}, step {step}: {error}") from error


@dataclass(frozen=True, kw_only=True, eq=False)
class _ImageFrames:
    """Pictures that lie in the table (or beside it, where it holds paths): PNG or JPEG."""

    origin: str
    shape: tuple[int, int]
    length: int
    tables: Tables
    root: Path
    entry: EpisodeEntry
    column: str

    def __len__(self) -> int:
        return self.length

    def read(self, step: int, out: np.ndarray) -> None:
        _check_step(step, self.length, self.origin)
        cell = self.tables.cell(self.entry.table, self.column, self.entry.row + step) or {}
        data = cell.get("bytes")
        if data is None:
            file = self.root / str(cell.get("path"))
            if cell.get("path") is None or not file.is_file():
                raise DatasetError(
                    f"{self.origin}, step {step}: there is no picture in {self.entry.table} nor at {file}."
                )
            data = file.read_bytes()
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if picture is None or picture.shape != out.shape:
            found = "unreadable" if picture is None else f"{picture.shape[0]}x{picture.shape[1]}"
            raise DatasetError(
                f"{self.origin}, step {step}: the picture in {self.entry.table} is {found}, expected "
                f"{out.shape[0]}x{out.shape[1]} (meta/info.json)."
            )
        cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=out)


def _column(feature: Feature) -> RawColumn:
    names = feature.names if len(feature.names) == feature.size else ()
    return RawColumn(name=feature.name, size=feature.size, dtype=feature.dtype, names=names)


def _camera(feature: Feature, root: Path) -> RawCamera:
    if len(feature.shape) != 3 or 3 not in feature.shape:
        raise DatasetError(
            f"{root / 'meta/info.json'}: {feature.name!r} has the shape {feature.shape}, expected height, "
            "width and 3 channels."
        )
    height, width = feature.height_width
    return RawCamera(name=feature.name, height=height, width=width)


def _check_rows(table: Path, rows: int, expected: int, what: str) -> None:
    if rows != expected:
        raise DatasetError(
            f"{table} has {rows} rows, but meta states {expected} for {what}: the episodes are ragged. Fetch "
            "the data set again."
        )


def _check_columns(layout: Layout, table: Path, there: list[str]) -> None:
    stated = {name for name, feature in layout.features.items() if feature.dtype != "video"}
    for kind, names in (("lacks", stated - set(there)), ("has unknown columns", set(there) - stated)):
        if names:
            raise DatasetError(
                f"{table} {kind} {sorted(names)}: 'features' in {layout.root / 'meta/info.json'} lists "
                f"{sorted(stated)}. Correct that list, or fetch the data set again."
            )


def _check_step(step: int, length: int, origin: str) -> None:
    if not 0 <= step < length:
        raise DatasetError(f"{origin}: step {step} of {length}.")


def _unpacked(facts: dict[str, Any]) -> dict[str, Any]:
    """``provenance`` holds JSON where this package wrote the data set."""
    text = facts.pop("provenance", None)
    if not isinstance(text, str):
        return facts if text is None else {**facts, "provenance": text}
    try:
        stored = json.loads(text)
    except ValueError:
        return {**facts, "provenance": text}
    return {**facts, **stored} if isinstance(stored, dict) else {**facts, "provenance": text}
