"""What a LeRobotDataset's ``meta`` says of features, tasks and episodes, in both versions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla.data.guard import reading
from vla.data.lerobot_files import CHECKSUMS
from vla.errors import DatasetError, MissingExtraError
from vla.text import sentence

PURPOSE = "Reading a LeRobotDataset"
FETCH = "Fetch the data set again, whole."


@dataclass(frozen=True, kw_only=True)
class Feature:
    """An entry of ``features`` in ``meta/info.json``; ``size`` counts the numbers a step."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    depth: bool = False

    @property
    def size(self) -> int:
        size = 1
        for length in self.shape:
            size *= length
        return size

    @property
    def is_camera(self) -> bool:
        return self.dtype in ("video", "image") and not self.depth

    @property
    def height_width(self) -> tuple[int, int]:
        """Pixels; stored as [h w c] or [c h w]."""
        first = bool(self.names) and self.names[0] in ("channels", "channel", "c")
        if first or (not self.names and self.shape[0] == 3 and self.shape[2] != 3):
            return self.shape[1], self.shape[2]
        return self.shape[0], self.shape[1]


@dataclass(frozen=True, kw_only=True)
class VideoSpan:
    """Where an episode lies in a video: ``start_s`` to ``end_s`` (None: to its end)."""

    path: Path
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class EpisodeEntry:
    """Where an episode lies: ``length`` rows from ``row`` on in ``table``, and its videos by camera.

    ``tasks`` are all its instructions; ``facts`` is what else its row in ``meta/episodes`` says; ``crc32c``
    the checksums of its columns, where this package wrote them (``lerobot_files.checksum``).
    """

    number: int
    length: int
    tasks: tuple[str, ...]
    table: Path
    row: int
    videos: Mapping[str, VideoSpan]
    facts: Mapping[str, Any] = field(default_factory=dict)
    crc32c: Mapping[str, int] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """Its table and its videos."""
        return [self.table, *(video.path for video in self.videos.values())]


def read_feature(name: str, data: Mapping[str, Any]) -> Feature:
    info = {**(data.get("video_info") or {}), **(data.get("info") or {})}
    return Feature(
        name=name,
        dtype=data["dtype"],
        shape=tuple(int(length) for length in data["shape"]),
        names=tuple(str(entry) for entry in _flat_names(data.get("names"))),
        depth=bool(info.get("is_depth_map") or info.get("video.is_depth_map")),
    )


def _flat_names(names: Any) -> list[Any]:
    """Names are a list, or lists by group (``{"motors": [...]}``), or nothing."""
    if isinstance(names, Mapping):
        return [entry for group in names.values() for entry in _flat_names(group)]
    return [entry for item in names for entry in _flat_names(item)] if isinstance(names, list) else (
        [] if names is None else [names]
    )  # fmt: skip


def _parquet(path: Path, columns: Sequence[str] | None = None) -> dict[str, list[Any]]:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("pyarrow", "formats", PURPOSE) from None
    if not path.is_file():
        raise DatasetError(f"{path} is missing. {FETCH}")
    with reading(path, "parquet file"):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        return file.read(columns=names if columns is None else list(columns)).to_pydict()


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise DatasetError(f"{path} is missing. {FETCH}")
    with reading(path, "JSON of a line each"):
        lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DatasetError(f"{path}, line {number} is damaged: {sentence(error)} {FETCH}") from error


def tasks_v3(root: Path) -> dict[int, str]:
    table = _parquet(root / "meta/tasks.parquet")
    name = "task" if "task" in table else "__index_level_0__"  # pandas writes the latter for a nameless index
    return dict(zip(table["task_index"], table[name], strict=True))


def tasks_v2(root: Path) -> dict[int, str]:
    return {int(row["task_index"]): row["task"] for row in _json_lines(root / "meta/tasks.jsonl")}


def episodes_v3(root: Path, templates: tuple[str, str], cameras: Sequence[str]) -> list[EpisodeEntry]:
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    if not files:
        raise DatasetError(f"{root / 'meta/episodes'} has no chunk-*/file-*.parquet. {FETCH}")
    tables = [_parquet(file) for file in files]
    rows = [
        dict(zip(table, values, strict=True))
        for table in tables
        for values in zip(*table.values(), strict=True)
    ]
    rows.sort(key=lambda row: row["episode_index"])
    first: dict[Path, int] = {}
    entries = []
    for row in rows:
        number, length, start = row["episode_index"], row["length"], row["dataset_from_index"]
        if row["dataset_to_index"] - start != length:
            raise DatasetError(
                f"Episode {number} in {root / 'meta/episodes'}: length {length}, but rows {start} to "
                f"{row['dataset_to_index']}. {FETCH}"
            )
        table = root / templates[0].format(
            chunk_index=row["data/chunk_index"], file_index=row["data/file_index"], episode_index=number
        )
        videos = {}
        for camera in cameras:
            at = {key: row[f"videos/{camera}/{key}"] for key in ("chunk_index", "file_index")}
            start_s, end_s = (row[f"videos/{camera}/{key}_timestamp"] for key in ("from", "to"))
            path = root / templates[1].format(video_key=camera, episode_index=number, **at)
            videos[camera] = VideoSpan(path=path, start_s=start_s, end_s=end_s)
        entries.append(
            EpisodeEntry(
                number=number,
                length=length,
                tasks=_texts(row["tasks"]),
                table=table,
                row=start - first.setdefault(table, start),
                videos=videos,
                facts={key: value for key, value in row.items() if "/" not in key and key not in _KNOWN},
                crc32c=json.loads(row.get(CHECKSUMS) or "{}"),
            )
        )
    return entries


def _texts(tasks: Any) -> tuple[str, ...]:
    return (tasks,) if isinstance(tasks, str) else tuple(tasks or ())


_KNOWN = ("episode_index", "length", "tasks", "dataset_from_index", "dataset_to_index", CHECKSUMS)


def episodes_v2(
    root: Path, templates: tuple[str, str], cameras: Sequence[str], chunks: int
) -> list[EpisodeEntry]:
    entries = []
    for row in _json_lines(root / "meta/episodes.jsonl"):
        number = int(row["episode_index"])
        at = {"episode_chunk": number // chunks, "episode_index": number}
        entries.append(
            EpisodeEntry(
                number=number,
                length=int(row["length"]),
                tasks=_texts(row.get("tasks")),
                table=root / templates[0].format(**at),
                row=0,
                videos={
                    camera: VideoSpan(path=root / templates[1].format(video_key=camera, **at))
                    for camera in cameras
                },
                facts={key: value for key, value in row.items() if key not in _KNOWN},
            )
        )
    return sorted(entries, key=lambda entry: entry.number)
