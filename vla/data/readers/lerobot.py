"""LeRobotDataset v3.0 and v2.1 (v2.0): parquet tables with videos or pictures, read as they are.

Columns are the numeric features of ``meta/info.json`` (``next.success`` also tells success); cameras are its
video and image features (depth maps are left out). The instruction of an episode is that of its first step;
where it changes within an episode all are kept in the provenance. Frame k of an episode is the one shown
k / fps after its start in the video.

Damage is found by the checksums of pages (where the writer made them) and of an episode's columns (in what
this package exports), and else by what must agree: rows with ``meta``, the order of ``frame_index``, lengths
of rows. Numbers of other writers, and all video, have no checksums: a changed byte there can read as another
number or picture.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.damage import damage_lines
from vla.data.lerobot_files import BOOKKEEPING, checksum
from vla.data.readers.fingerprint import fingerprint
from vla.data.readers.lerobot_faults import (
    Fault,
    check_columns,
    check_tables,
    check_videos,
    row_faults,
    table_faults,
    task_faults,
    video_faults,
)
from vla.data.readers.lerobot_layout import NUMERIC, leave_out, read_layout
from vla.data.readers.lerobot_meta import EpisodeEntry, Feature, VideoSpan
from vla.data.readers.lerobot_tables import AGAIN, Tables
from vla.data.readers.stills import StillFrames
from vla.data.shards import crc32c
from vla.data.source import Frames, RawCamera, RawColumn, RawEpisode, check_episode, chosen
from vla.data.video import VideoFiles
from vla.errors import DatasetError, UnknownNameError


def recognise(path: Path) -> bool:
    """Whether ``path`` is the folder of a LeRobotDataset."""
    return (path / "meta/info.json").is_file()


def open_raw(
    path: Path,
    *,
    skip_damaged: bool = False,
    cameras: Collection[str] | None = None,
    to_look: bool = False,
) -> LeRobotDataset:
    return LeRobotDataset(path, skip_damaged=skip_damaged, cameras=cameras, to_look=to_look)


class LeRobotDataset:
    """A :class:`~vla.data.source.RawDataset`; opening reads ``meta`` and checks that the files fit it.

    Args:
        path: the folder with ``meta``, ``data`` and ``videos``.
        skip_damaged: leave episodes out whose files are missing or unreadable or whose rows are not theirs,
            and name them in ``damaged``. Single numbers and pictures are not read for that.
        cameras: that are read (None: all); videos of the others need not be there.
        to_look: keep, with ``skip_damaged``, episodes of which only a video cannot be read (reading that
            camera says why) or of which the list of tasks says something else (``damaged`` names them).

    Raises:
        DatasetError: another version, two versions mixed, missing files, tables that do not have the rows or
            columns that ``meta`` states.
    """

    def __init__(
        self,
        path: Path,
        *,
        skip_damaged: bool = False,
        cameras: Collection[str] | None = None,
        to_look: bool = False,
    ) -> None:
        self.path = path
        damaged: list[str] | None = [] if skip_damaged else None
        self.layout = read_layout(path, damaged, cameras, to_look=to_look)
        self._tables, self._videos = Tables(), VideoFiles()
        features = self.layout.features.values()
        self.columns: Mapping[str, RawColumn] = {
            f.name: _column(f) for f in features if f.dtype in NUMERIC and f.name not in BOOKKEEPING
        }
        pictures = {f.name: f for f in features if f.is_camera}
        self.cameras: Mapping[str, RawCamera] = {
            name: _camera(f, path) for name, f in chosen(pictures, cameras, path).items()
        }
        self.unread: Mapping[str, str] = {f.name: "a depth map" for f in features if f.depth} | {
            f.name: f"{f.dtype}, no numbers"
            for f in features
            if f.dtype not in (*NUMERIC, "video", "image") and f.name not in BOOKKEEPING
        }
        if damaged is None:
            check_tables(self.layout, self._tables)
            check_videos(self.layout)
        else:
            self.layout = leave_out(
                self.layout, table_faults(self.layout, self._tables, tasks_too=not to_look), damaged
            )
        blind = [] if damaged is None else list(video_faults(self.layout))
        #: Episode and camera whose video cannot be read, and why.
        self._blind = {(entry.number, camera): message for entry, camera, message in blind if to_look}
        if damaged is not None and to_look:
            doubts = [(entry.number, message) for entry, message in task_faults(self.layout, self._tables)]
            damaged += damage_lines(doubts)
        elif damaged is not None:
            self.layout = leave_out(self.layout, ((entry, said) for entry, _, said in blind), damaged)
        known = self.layout.episodes if self.layout.is_v3 or skip_damaged else ()
        self._sound = {entry.number for entry in known}  # episodes whose rows are known to be theirs
        if damaged is not None:
            self.layout = leave_out(self.layout, self._unsaid(), damaged)
        self.damaged: tuple[str, ...] = tuple(damaged or ())
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
        return self._values(self._entry(index), "timestamp", 1)[:, 0].astype(np.float64)

    def frame_reader(self, index: int, camera: str) -> Frames:
        if camera not in self.cameras:
            raise UnknownNameError(f"camera of {self.path}", camera, self.cameras)
        entry, stored = self._entry(index), self.cameras[camera]
        if (entry.number, camera) in self._blind:
            raise DatasetError(self._blind[entry.number, camera])
        origin = f"Episode {entry.number} of {self.path}, camera {camera!r}"
        shape = (stored.height, stored.width)
        if camera not in entry.videos:
            return StillFrames(
                origin=origin,
                shape=shape,
                length=entry.length,
                read_still=lambda step: self._still(entry, camera, step, origin),
            )
        return _VideoFrames(
            origin=origin,
            shape=shape,
            length=entry.length,
            files=self._videos,
            span=entry.videos[camera],
            fps=self.layout.fps,
        )

    def checksum(self) -> int:
        """Of the files that ``meta`` names, ``meta`` itself and ``images``: see ``readers.fingerprint``."""
        beside = [path for name in ("meta", "images") for path in (self.path / name).rglob("*")]
        named = [path for entry in self.layout.episodes for path in entry.files]
        files = fingerprint([*filter(Path.is_file, beside), *named], self.path)
        return crc32c(json.dumps(files).encode())

    def close(self) -> None:
        self._tables.close()
        self._videos.close()

    def _entry(self, index: int) -> EpisodeEntry:
        check_episode(index, len(self.layout.episodes), self.path)
        return self.layout.episodes[index]

    def _values(self, entry: EpisodeEntry, name: str, size: int) -> np.ndarray:
        if entry.number not in self._sound:
            check_columns(self.layout, entry.table, self._tables.names(entry.table))
            for _, message in row_faults(self.layout, self._tables, entry.table, [entry]):
                raise DatasetError(message)
            self._sound.add(entry.number)
        try:
            values = self._tables.values(entry.table, name, entry.row, entry.row + entry.length, size)
        except DatasetError as error:
            raise DatasetError(f"Episode {entry.number}: {error}") from error
        if name in entry.crc32c and checksum(values) != entry.crc32c[name]:
            raise DatasetError(
                f"Episode {entry.number}: {entry.table} is damaged: column {name!r} does not fit its "
                f"checksum in meta/episodes. {AGAIN}"
            )
        return values

    def _still(self, entry: EpisodeEntry, camera: str, step: int, origin: str) -> bytes:
        """PNG or JPEG, which lies in the table, or beside it where that holds paths."""
        try:
            cell = self._tables.cell(entry.table, camera, entry.row + step) or {}
        except DatasetError as error:
            raise DatasetError(f"{origin}, step {step}: {error}") from error
        if cell.get("bytes") is not None:
            return cell["bytes"]
        file = self.path / str(cell.get("path"))
        if cell.get("path") is None or not file.is_file():
            raise DatasetError(f"{origin}, step {step}: there is no picture in {entry.table} nor at {file}.")
        return file.read_bytes()

    def _unsaid(self) -> Iterator[Fault]:
        """Episodes whose instruction or success cannot be read."""
        for index, entry in enumerate(self.layout.episodes):
            try:
                self._episode(index, entry)
            except DatasetError as error:
                yield entry, str(error)

    def _episode(self, index: int, entry: EpisodeEntry) -> RawEpisode:
        facts = {key: value for key, value in entry.facts.items() if key != "success"}
        table = entry.table.relative_to(self.path).as_posix()
        provenance: dict[str, Any] = {"episode_index": entry.number, **_unpacked(facts), "table": table}
        instruction = entry.tasks[0] if entry.tasks else ""
        if len(set(entry.tasks)) > 1:
            number = int(self._values(entry, "task_index", 1)[0, 0])
            if number not in self.layout.tasks:
                raise DatasetError(
                    f"Episode {entry.number}, {entry.table}: task_index {number} is not among those of meta "
                    f"({', '.join(map(str, sorted(self.layout.tasks)))})."
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
        if not 0 <= step < self.length:
            raise DatasetError(f"{self.origin}: step {step} of {self.length}.")
        try:
            self.files.read(self.span.path, self.span.start_s + step / self.fps, out)
        except DatasetError as error:
            raise DatasetError(f"{self.origin}, step {step}: {error}") from error


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
