"""LeRobotDataset v2.1 and v3.0 are read as they are; what is wrong with them is said, and in which file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.lerobot_worlds import (
    CAMERA,
    LENGTHS,
    SIZE,
    describe_v21,
    edit_feature,
    edit_json,
    number_of,
    write_lines,
    write_table,
)
from vla.data.readers import lerobot_tables, open_raw, open_source
from vla.data.readers.lerobot import LeRobotDataset
from vla.data.source import RawDataset, read_frames
from vla.data.store import EpisodeStore
from vla.errors import DatasetError, StoreError, UnknownNameError


def test_v21_gives_columns_cameras_and_episodes_as_stored(v21: Path):
    raw = open_raw(v21)
    assert isinstance(raw, RawDataset)
    assert (raw.format, raw.control_hz, raw.robot) == ("lerobot_v2", 10.0, "so100")
    assert {name: (c.size, c.dtype, c.names) for name, c in raw.columns.items()} == {
        "observation.state": (2, "float32", ("a", "b")),
        "action": (3, "float64", ("x", "y", "z")),
        "next.done": (1, "bool", ()),
    }
    assert (raw.cameras[CAMERA].height, raw.cameras[CAMERA].width) == (SIZE, SIZE)
    assert [(e.length, e.instruction, e.success) for e in raw.episodes] == [
        (6, "pick", None),
        (9, "push", None),
    ]
    np.testing.assert_array_equal(raw.column(1, "action"), [[t, 1, -t] for t in range(9)])
    np.testing.assert_array_equal(raw.time_s(0), (np.arange(6) / 10).astype(np.float32))
    assert [number_of(p) for p in read_frames(raw.frame_reader(1, CAMERA), [8, 0, 3])] == [18, 10, 13]


def test_v3_gives_each_episode_its_own_rows_and_frames(exported: Path):
    raw = LeRobotDataset(exported)
    assert raw.format == "lerobot_v3"
    assert len({e.videos["observation.images.front"].path for e in raw.layout.episodes}) == 2
    source = EpisodeStore.open(exported.parent / "demos.zarr")
    for i, length in enumerate(LENGTHS):
        assert (raw.episodes[i].length, raw.episodes[i].instruction) == (length, f"do {i % 2}")
        np.testing.assert_array_equal(raw.column(i, "observation.state"), source.column(i, "state"))
        ours = source.frames(i, "front", range(length)).astype(int)
        theirs = read_frames(raw.frame_reader(i, "observation.images.front"), range(length))
        assert np.abs(ours - theirs).mean() < 8  # frames of other steps differ by 20 and more


def test_a_description_makes_a_foreign_data_set_a_source_of_episodes(v21: Path):
    source = open_source(v21, describe_v21())
    assert [info.instruction for info in source.episodes] == ["pick", "push"]
    np.testing.assert_allclose(source.column(1, "action")[8], (0.08, 0.01, -0.08))
    np.testing.assert_array_equal(source.column(0, "state")[:, 0], np.arange(6))
    assert read_frames(source.frame_reader(0, "top"), [0])[0, -1, :, 0].mean() > 100  # red is below now


def test_pictures_in_the_table_are_exact_whether_as_bytes_or_as_paths(v21: Path, rng: np.random.Generator):
    import cv2

    pictures = rng.integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)
    png = [cv2.imencode(".png", p[:, :, ::-1])[1].tobytes() for p in pictures]
    (v21 / "images").mkdir()
    (v21 / "images/5.png").write_bytes(png[5])
    cells = [{"bytes": data, "path": None} for data in png[:5]] + [{"bytes": None, "path": "images/5.png"}]
    features = json.loads((v21 / "meta/info.json").read_text())["features"]
    features["observation.images.eye"] = {"dtype": "image", "shape": [SIZE, SIZE, 3], "names": None}
    edit_json(v21 / "meta/info.json", features=features)
    for episode, length in ((0, 6), (1, 9)):
        table = v21 / f"data/chunk-000/episode_{episode:06d}.parquet"
        write_table(table, episode, length, **{"observation.images.eye": pa.array((cells * 2)[:length])})
    frames = open_raw(v21).frame_reader(0, "observation.images.eye")
    np.testing.assert_array_equal(read_frames(frames, range(6)), pictures)


def test_an_instruction_that_changes_within_an_episode_is_its_first_and_all_are_kept(v21: Path):
    write_lines(
        v21 / "meta/episodes.jsonl",
        [{"episode_index": 0, "tasks": ["push", "pick"], "length": 6}, {"episode_index": 1, "length": 9}],
    )
    write_table(v21 / "data/chunk-000/episode_000000.parquet", 0, 6, task_index=pa.array([0, 0, 0, 1, 1, 1]))
    first, second = open_raw(v21).episodes
    assert (first.instruction, first.provenance["instructions"]) == ("pick", ["push", "pick"])
    assert second.instruction == ""


def test_success_is_what_the_data_set_says_of_it(v21: Path):
    edit_feature(v21, "next.success", dtype="bool", shape=[1], names=None)
    for episode, length in ((0, 6), (1, 9)):
        flags = pa.array([False] * (length - 1) + [episode == 1])
        table = v21 / f"data/chunk-000/episode_{episode:06d}.parquet"
        write_table(table, episode, length, task=episode, **{"next.success": flags})
    assert [episode.success for episode in open_raw(v21).episodes] == [False, True]


def test_only_a_few_columns_stay_in_memory(exported: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lerobot_tables, "MAX_BYTES", 600)
    monkeypatch.setattr(lerobot_tables, "_BLOCK_ROWS", 1)  # a row group at a time
    raw = LeRobotDataset(exported)
    for i in [0, 1, 2, 1, 0]:
        assert raw.column(i, "action").shape == (LENGTHS[i], 5)
        assert raw._tables._bytes <= 600


def test_the_checksum_changes_with_any_file(v3: Path):
    files, seen = sorted(p for p in v3.rglob("*") if p.is_file()), {open_raw(v3).checksum()}
    for file in files:
        if file.name == "embodiment.json":  # counted where it is used: MappedSource.index_checksum
            continue
        data = file.read_bytes()
        file.write_bytes(data + b" ")
        if file.suffix != ".parquet":  # those end with their index and would not open
            seen.add(open_raw(v3).checksum())
        file.write_bytes(data)
    assert len(seen) == 1 + sum(f.suffix != ".parquet" for f in files) - 1


def test_unknown_names_and_numbers_are_said(v21: Path):
    raw = open_raw(v21)
    with pytest.raises(UnknownNameError, match="Did you mean 'action'"):
        raw.column(0, "actoin")
    with pytest.raises(UnknownNameError, match=CAMERA):
        raw.frame_reader(0, "front")
    with pytest.raises(StoreError, match="no episode 2 in"):
        raw.column(2, "action")
    with pytest.raises(DatasetError, match="step 6 of 6"):
        read_frames(raw.frame_reader(0, CAMERA), [6])


def test_what_is_neither_numbers_nor_pictures_is_said_to_be_unread(v21: Path):
    edit_feature(v21, "annotation.note", dtype="string", shape=[1], names=None)
    for episode, length in ((0, 6), (1, 9)):
        table = v21 / f"data/chunk-000/episode_{episode:06d}.parquet"
        rows = pq.read_table(table).append_column("annotation.note", pa.array(["good"] * length))
        pq.write_table(rows, table)
    assert open_raw(v21).unread == {"annotation.note": "string, no numbers"}
