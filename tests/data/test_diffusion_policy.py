"""Replay buffers of diffusion-policy: zarr v2, as a directory and zipped."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from vla.data.damage import damaged_episodes
from vla.data.description import CameraRule, ColumnRule, DatasetDescription
from vla.data.mixture import SourceConfig, open_sources
from vla.data.readers import open_raw
from vla.data.readers.diffusion_policy import ReplayBuffer
from vla.data.source import read_frames
from vla.embodiment import Camera, Embodiment, Field
from vla.errors import DatasetError

ENDS = [3, 8]


def write(path: Path, *, ends: list[int] | None = None, dtype: str = "uint8") -> np.ndarray:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (8, 6, 5, 3)).astype(dtype)
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    arrays = {
        "data/action": np.arange(16, dtype=np.float32).reshape(8, 2),
        "data/img": pictures,
        "meta/episode_ends": np.array(ENDS if ends is None else ends, np.int64),
    }
    for name, values in arrays.items():
        root.create_array(name, data=values, chunks=(3, *values.shape[1:]))
    return pictures


def describe() -> DatasetDescription:
    """What the columns of :func:`write` mean: a point that is pushed about."""
    move = Field(
        name="move", size=2, unit="m/step", frame="world", mode="delta", low=(-20, -20), high=(20, 20),
        slot="arm0.tcp_position_delta",
    )  # fmt: skip
    camera = Camera(name="front", role="front", height=6, width=5)
    return DatasetDescription(
        embodiment=Embodiment(name="pusher", cameras=(camera,), state=(), action=(move,), control_hz=10.0),
        state=(),
        action=(ColumnRule(field="move", column="action"),),
        cameras=(CameraRule(camera="front", column="img"),),
        instruction="push the T",
    )


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("zipped", [False, True])
def test_episodes_are_read_as_written(tmp_path: Path, dtype: str, zipped: bool) -> None:
    path, pictures = tmp_path / "pusht.zarr", write(tmp_path / "pusht.zarr", dtype=dtype)
    if zipped:
        path = Path(shutil.make_archive(str(path), "zip", path))
    raw = open_raw(path)
    assert [episode.length for episode in raw.episodes] == [3, 5]
    np.testing.assert_array_equal(raw.column(1, "action")[:, 0], [6, 8, 10, 12, 14])
    np.testing.assert_array_equal(read_frames(raw.frame_reader(1, "img"), range(5)), pictures[3:])
    raw.close()


@pytest.mark.parametrize("ends", [[3, 3, 8], [3, 9], [3, 7], []])
def test_ends_that_do_not_fit_are_refused(tmp_path: Path, ends: list[int]) -> None:
    write(tmp_path / "a.zarr", ends=ends)
    with pytest.raises(DatasetError, match="episode_ends"):
        open_raw(tmp_path / "a.zarr")


def test_float_pictures_of_another_range_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", dtype="float32")
    array = zarr.open_group(str(tmp_path / "a.zarr"), mode="a")["data/img"]
    array[:] = array[:] / 255  # type: ignore[index, operator]
    raw = open_raw(tmp_path / "a.zarr")
    with pytest.raises(DatasetError, match=r"expected 0\.\.255"):
        read_frames(raw.frame_reader(0, "img"), [0])


def test_episodes_that_the_arrays_do_not_hold_are_left_out_on_request(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", ends=[3, 8, 12])
    raw = ReplayBuffer(tmp_path / "a.zarr", skip_damaged=True)
    assert [episode.length for episode in raw.episodes] == [3, 5]
    assert len(raw.damaged) == 1
    assert raw.damaged[0].startswith("episode 2: ")
    np.testing.assert_array_equal(raw.column(1, "action")[:, 0], [6, 8, 10, 12, 14])


def test_an_episode_with_a_damaged_chunk_is_left_out_of_a_mixture(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr")
    describe().save(tmp_path / "a.zarr/embodiment.json")
    (tmp_path / "a.zarr/data/img/1.0.0.0").write_bytes(b"nonsense")  # rows 3..5
    (source,) = open_sources([SourceConfig(path=str(tmp_path / "a.zarr"), skip_damaged=True)])
    assert [info.length for info in source.episodes] == [3]
    [(episode, line)] = damaged_episodes(source)
    assert episode == 1
    assert "data/img" in line


def test_damaged_chunk_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/data/action/1.0").write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match="data/action"):
        open_raw(tmp_path / "a.zarr").column(1, "action")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_missing_chunk_is_named_and_not_read_as_zeros(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.zarr"
    write(path)
    (path / "data/img/2.0.0.0").unlink()  # rows 6 and 7
    if zipped:
        path = Path(shutil.make_archive(str(path), "zip", path))
    with pytest.raises(DatasetError, match=r"chunk data/img/2\.0\.0\.0 \(from row 6 on\) is missing"):
        open_raw(path)
    raw = open_raw(path, skip_damaged=True)
    assert read_frames(raw.frame_reader(0, "img"), range(3)).any()
    with pytest.raises(DatasetError, match="missing"):
        read_frames(raw.frame_reader(1, "img"), [4])
