"""Small LeRobot data sets for tests: v2.1 written by hand with pyarrow and PyAV, v3.0 by our export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla.data.description import CameraRule, ColumnRule, DatasetDescription
from vla.data.video import VideoSettings, VideoWriter
from vla.embodiment import Camera, Embodiment, Field

FPS = 10
SIZE = 64
CAMERA = "observation.images.top"
#: Of the v3.0 data set (the fixtures ``exported`` and ``v3``): episodes, and where things are.
LENGTHS = (6, 9, 7)
EPISODES, DATA = "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"
FRONT = "videos/observation.images.front"
VIDEO = f"{FRONT}/chunk-000/file-001.mp4"


def picture(number: int) -> np.ndarray:
    """A picture that says which one it is by its brightness, and survives compression."""
    level = np.full((SIZE, SIZE, 3), 20 + 6 * (number % 36), np.uint8)
    level[: SIZE // 2, :, 0] = 128  # red above: tells top from bottom and red from blue
    return level


def number_of(image: np.ndarray) -> int:
    """Inverse of :func:`picture`, modulo 36."""
    return round((float(image[SIZE // 2 + 4 :, :, 1].mean()) - 20) / 6)


def write_video(path: Path, numbers: Sequence[int], settings: VideoSettings | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = settings or VideoSettings()
    writer = VideoWriter(path, height=SIZE, width=SIZE, rate_hz=FPS, settings=chosen)
    for number in numbers:
        writer.write(picture(number))
    writer.close()
    return path


def write_v21(root: Path, lengths: Sequence[int] = (6, 9), tasks: Sequence[str] = ("pick", "push")) -> Path:
    """Episode e, step t: state [e, t], action [t, e, -t], picture 10 e + t, instruction ``tasks[e % n]``."""
    features: dict[str, Any] = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["a", "b"]}},
        "action": {"dtype": "float64", "shape": [3], "names": ["x", "y", "z"]},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
        CAMERA: {"dtype": "video", "shape": [3, SIZE, SIZE], "names": ["channels", "height", "width"]},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **{
            key: {"dtype": "int64", "shape": [1], "names": None}
            for key in ("frame_index", "episode_index", "index", "task_index")
        },
    }
    info = {
        "codebase_version": "v2.1",
        "robot_type": "so100",
        "fps": FPS,
        "total_episodes": len(lengths),
        "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    write_lines(root / "meta/tasks.jsonl", [{"task_index": i, "task": task} for i, task in enumerate(tasks)])
    episodes = [
        {"episode_index": e, "tasks": [tasks[e % len(tasks)]], "length": n} for e, n in enumerate(lengths)
    ]
    write_lines(root / "meta/episodes.jsonl", episodes)
    for e, length in enumerate(lengths):
        write_table(root / f"data/chunk-000/episode_{e:06d}.parquet", e, length, task=e % len(tasks))
        write_video(root / f"videos/chunk-000/{CAMERA}/episode_{e:06d}.mp4", range(10 * e, 10 * e + length))
    return root


def describe_v21() -> DatasetDescription:
    """What the columns of :func:`write_v21` mean: state row number, action in cm, pictures upside down."""

    def field(name: str, size: int, slot: str) -> Field:
        return Field(
            name=name, size=size, unit="m", frame="world", mode="absolute", low=(-99,) * size,
            high=(99,) * size, slot=f"arm0.{slot}",
        )  # fmt: skip

    arm = Embodiment(
        name="so100", cameras=(Camera(name="top", role="top", height=SIZE, width=SIZE),), control_hz=10.0,
        state=(field("tcp", 1, "tcp_position"),), action=(field("tcp", 3, "tcp_position"),),
    )  # fmt: skip
    return DatasetDescription(
        embodiment=arm,
        state=(ColumnRule(field="tcp", column="observation.state", start=1),),
        action=(ColumnRule(field="tcp", column="action", unit="cm"),),
        cameras=(CameraRule(camera="top", column=CAMERA, flip="vertical"),),
    )


def write_table(path: Path, episode: int, length: int, *, task: int = 0, **replaced: Any) -> None:
    """The table of an episode of :func:`write_v21`; ``replaced`` columns (None: left out)."""
    t = np.arange(length)
    state = np.stack([np.full(length, episode), t], axis=1).astype(np.float32)
    action = np.stack([t, np.full(length, episode), -t], axis=1).astype(np.float64)
    columns: dict[str, Any] = {
        "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(state.reshape(-1)), 2),
        "action": pa.array(action.tolist(), pa.list_(pa.float64())),
        "next.done": pa.array(t == length - 1),
        "timestamp": pa.array((t / FPS).astype(np.float32)),
        "frame_index": pa.array(t),
        "episode_index": pa.array(np.full(length, episode)),
        "index": pa.array(t),
        "task_index": pa.array(np.full(length, task)),
        **replaced,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: values for name, values in columns.items() if values is not None}), path)


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def edit_json(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def edit_table(path: Path, **changed: Any) -> None:
    """Replace columns of a parquet file (a list of values each)."""
    table = pq.read_table(path)
    for name, values in changed.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    pq.write_table(table, path)


def edit_feature(root: Path, name: str, **changed: object) -> None:
    """Change what ``meta/info.json`` says of a feature."""
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features[name] = {**features.get(name, {}), **changed}
    edit_json(root / "meta/info.json", features=features)


def said(root: Path) -> str:
    """The file that describes a data set of :func:`write_v21`, beside it."""
    file = root.parent / "description.json"
    describe_v21().save(file)
    return str(file)
