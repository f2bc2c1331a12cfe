"""The files of a LeRobotDataset v3.0 as they are written: tables, videos and ``meta``.

Files hold many episodes and are begun anew when they are full, at the boundary of an episode.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.lerobot_stats import PixelCounts, counted_steps, vector_stats
from vla.data.shards import crc32c
from vla.data.source import EpisodeInfo, Frames
from vla.data.video import VideoSettings, VideoWriter
from vla.errors import DatasetError, MissingExtraError
from vla.files import write_json

FILES_PER_CHUNK = 1000
DATA_MB, VIDEO_MB = 100, 200
VIDEO_S = 900.0  # lerobot compares times as float32 to 1e-4 s: beyond 1024 s in a file that is too coarse
EPISODES_PER_FILE = 5000
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
#: Columns that say where a row belongs, not what the robot did; lerobot numbers them anew when it edits.
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
CHECKSUMS = "crc32c"  # of ``meta/episodes``: JSON, the checksum of each column of numbers of an episode
_EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


def checksum(values: np.ndarray) -> int:
    """CRC-32C of the numbers of an episode [T n], row after row, little endian in their type."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return crc32c(np.ascontiguousarray(little).tobytes())


class DataFiles:
    """``data/``: one row group an episode."""

    def __init__(self, root: Path, features: Mapping[str, Any]) -> None:
        self._root = root
        self._sizes = {name: f["shape"][0] for name, f in features.items() if len(f["shape"]) == 1}
        self._number, self._path, self._writer = -1, root, None

    def append(self, rows: Mapping[str, Any]) -> dict[str, int]:
        """Columns of an episode ([T n] arrays, or lists of pictures); returns where they lie."""
        pa, pq = _arrow()
        table = pa.table({name: self._array(name, values) for name, values in rows.items()})
        if self._writer is None or self._path.stat().st_size >= DATA_MB * 2**20:
            self.close()
            self._number += 1
            self._path = _place(self._root, _DATA, self._number)
            self._writer = pq.ParquetWriter(self._path, table.schema, write_page_checksum=True)
        self._writer.write_table(table)
        chunk, file = divmod(self._number, FILES_PER_CHUNK)
        return {"data/chunk_index": chunk, "data/file_index": file}

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _array(self, name: str, values: Any) -> Any:
        pa, _ = _arrow()
        if not isinstance(values, np.ndarray):
            return pa.array(values, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        size = self._sizes[name]
        return flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)


class VideoTrack:
    """``videos/<camera>/``: the pictures of one camera, episode after episode."""

    def __init__(
        self, root: Path, key: str, shape: tuple[int, int], fps: float, settings: VideoSettings
    ) -> None:
        self._root, self._key, self._shape, self._fps, self._settings = root, key, shape, fps, settings
        self._number, self._writer = -1, None

    @property
    def info(self) -> dict[str, Any]:
        """What ``meta/info.json`` says of the video."""
        settings, (height, width) = self._settings, self._shape
        return {
            "video.height": height,
            "video.width": width,
            "video.codec": settings.codec,
            "video.pix_fmt": "yuv420p",
            "video.fps": self._fps,
            "video.channels": 3,
            "has_audio": False,
            "video.g": settings.keyframe_interval,
            "video.crf": settings.crf,
            "video.preset": settings.preset if settings.codec == "av1" else "medium",
            "video.fast_decode": 0,
            "video.video_backend": "pyav",
            "video.extra_options": {},
            "is_depth_map": False,
        }

    def append(self, frames: Frames, counts: PixelCounts) -> dict[str, Any]:
        """Encode an episode; returns where it lies."""
        if frames.shape != self._shape:
            raise DatasetError(f"{self._key}: pictures of {frames.shape}, the embodiment says {self._shape}.")
        writer = self._open()
        start, picture = writer.num_frames, np.empty((*self._shape, 3), np.uint8)
        counted = counted_steps(len(frames))
        for step in range(len(frames)):
            frames.read(step, picture)
            if step in counted:
                counts.add(picture)
            writer.write(picture)
        chunk, file = divmod(self._number, FILES_PER_CHUNK)
        return {
            f"videos/{self._key}/chunk_index": chunk,
            f"videos/{self._key}/file_index": file,
            f"videos/{self._key}/from_timestamp": start / self._fps,
            f"videos/{self._key}/to_timestamp": writer.num_frames / self._fps,
        }

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> VideoWriter:
        writer = self._writer
        if writer is None or writer.num_bytes >= VIDEO_MB * 2**20 or writer.num_frames >= VIDEO_S * self._fps:
            self.close()
            self._number += 1
            path = _place(self._root, _VIDEO, self._number, video_key=self._key)
            height, width = self._shape
            writer = self._writer = VideoWriter(
                path, height=height, width=width, rate_hz=self._fps, settings=self._settings
            )
        return writer


class MetaFiles:
    """``meta/``: collected while episodes are written."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.num_steps = 0
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._values: dict[str, list[np.ndarray]] = {}

    @property
    def num_episodes(self) -> int:
        return len(self._episodes)

    def start(
        self, columns: Mapping[str, np.ndarray], info: EpisodeInfo, fps: float
    ) -> dict[str, np.ndarray]:
        """The columns of the next episode and those that say where its rows belong."""
        count, task = np.arange(info.length), self._tasks.setdefault(info.instruction, len(self._tasks))
        return {
            **columns,
            "timestamp": (count / fps).astype(np.float32)[:, None],
            "frame_index": count[:, None],
            "episode_index": np.full((info.length, 1), self.num_episodes),
            "index": (self.num_steps + count)[:, None],
            "task_index": np.full((info.length, 1), task),
        }

    def finish(
        self,
        info: EpisodeInfo,
        rows: Mapping[str, np.ndarray],
        pixels: Mapping[str, Any],
        places: Mapping[str, Any],
    ) -> None:
        """Note where an episode lies, its checksums and its statistics (not of ``aux``, which may be unknown:
        NaN)."""
        columns = {name: values for name, values in rows.items() if name not in BOOKKEEPING}
        vectors = {name: values for name, values in rows.items() if not name.startswith("aux.")}
        stats = {**{name: vector_stats(values) for name, values in vectors.items()}, **pixels}
        for name, values in vectors.items():
            self._values.setdefault(name, []).append(values)
        chunk, file = divmod(self.num_episodes // EPISODES_PER_FILE, FILES_PER_CHUNK)
        self._episodes.append(
            {
                "episode_index": self.num_episodes,
                "tasks": [info.instruction],
                "length": info.length,
                "dataset_from_index": self.num_steps,
                "dataset_to_index": self.num_steps + info.length,
                "success": info.success,
                "provenance": json.dumps(dict(info.provenance)),
                CHECKSUMS: json.dumps({name: checksum(values) for name, values in columns.items()}),
                **places,
                **{f"stats/{key}/{name}": v for key, found in stats.items() for name, v in found.items()},
                "meta/episodes/chunk_index": chunk,
                "meta/episodes/file_index": file,
            }
        )
        self.num_steps += info.length

    def close(self, facts: Mapping[str, Any], pixels: Mapping[str, Any], *, videos: bool) -> None:
        """Write ``meta``; ``facts``: rate, robot and features; ``pixels``: statistics of all pictures."""
        pa, pq = _arrow()
        for number, first in enumerate(range(0, self.num_episodes, EPISODES_PER_FILE)):
            rows = self._episodes[first : first + EPISODES_PER_FILE]
            place = _place(self._root, _EPISODES, number)
            table = pa.Table.from_pylist(rows)
            column = table.schema.get_field_index("success")  # of unknown type where all are unknown
            table = table.set_column(column, "success", table["success"].cast(pa.bool_()))
            pq.write_table(table, place, write_page_checksum=True)
        tasks = _task_table(list(self._tasks))
        pq.write_table(tasks, self._root / "meta/tasks.parquet", write_page_checksum=True)
        stats = {name: vector_stats(np.concatenate(parts)) for name, parts in self._values.items()}
        write_json(self._root / "meta/stats.json", {**stats, **pixels})
        info = {
            "codebase_version": "v3.0",
            **facts,
            "total_episodes": self.num_episodes,
            "total_frames": self.num_steps,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "data_path": _DATA,
            "video_path": _VIDEO if videos else None,
            "splits": {"train": f"0:{self.num_episodes}"},
        }
        write_json(self._root / "meta/info.json", info)


def _task_table(tasks: Sequence[str]) -> Any:
    """``task_index`` by task, as pandas stores a frame whose index is named ``task``."""
    pa, _ = _arrow()
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": list(tasks)})
    column = {"field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    index = {"field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    labels = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [{**labels, "metadata": {"encoding": "UTF-8"}}],
        "columns": [{"name": "task_index", **index}, {"name": "task", **column}],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _place(root: Path, template: str, number: int, **more: str) -> Path:
    chunk, file = divmod(number, FILES_PER_CHUNK)
    path = root / template.format(chunk_index=chunk, file_index=file, **more)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("pyarrow", "formats", "Writing a LeRobotDataset") from None
    return pa, pq
