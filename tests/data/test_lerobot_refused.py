"""What contradicts itself in a LeRobotDataset is refused, and in which file it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.lerobot_worlds import (
    DATA,
    EPISODES,
    FRONT,
    LENGTHS,
    VIDEO,
    describe_v21,
    edit_feature,
    edit_json,
    edit_table,
    said,
    write_lines,
    write_table,
)
from vla.cli.main import main
from vla.data.check import CheckConfig
from vla.data.damage import damaged_episodes
from vla.data.fix import FixConfig, fix
from vla.data.importing import import_dataset
from vla.data.mixture import SourceConfig, open_sources
from vla.data.mixture_notes import mixture_notes, timing_notes
from vla.data.readers import open_raw, open_source
from vla.data.readers.lerobot import LeRobotDataset
from vla.data.readers.lerobot_faults import _overlaps
from vla.data.readers.lerobot_meta import VideoSpan
from vla.data.resample import ResampledSource
from vla.data.store import EpisodeStore
from vla.errors import DatasetError


@pytest.mark.parametrize("part", ["meta", "data"])
def test_a_folder_inside_or_around_the_data_set_is_refused(v21: Path, part: str):
    for folder in (v21 / part, v21.parent):
        with pytest.raises(DatasetError, match=r"meta/info\.json.*Give the folder with these"):
            open_raw(folder)


def _old_layout(root: Path) -> None:
    shutil.rmtree(root / "meta/episodes")
    write_lines(root / "meta/episodes.jsonl", [{"episode_index": 0, "tasks": ["x"], "length": 6}])


def _both(root: Path) -> None:
    write_lines(root / "meta/episodes.jsonl", [])


BAD_V3: dict[str, tuple[Callable[[Path], object], str]] = {
    "version": (lambda r: edit_json(r / "meta/info.json", codebase_version="v4.0"), r"'v4\.0'.*reads v2\.0"),
    "no version": (
        lambda r: edit_json(r / "meta/info.json", codebase_version=None),
        "codebase_version is None",
    ),
    "damaged info": (lambda r: (r / "meta/info.json").write_text("{"), r"info\.json is damaged"),
    "no fps": (lambda r: edit_json(r / "meta/info.json", fps=0), r"info\.json is damaged.*fps 0"),
    "old layout": (_old_layout, r"says v3\.0.*episodes\.jsonl \(v2\).*mixed"),
    "both layouts": (_both, r"two versions are mixed"),
    "no episodes": (lambda r: shutil.rmtree(r / "meta/episodes"), r"meta/episodes/? is missing"),
    "no tasks": (lambda r: (r / "meta/tasks.parquet").unlink(), r"tasks\.parquet is missing"),
    "no video": (lambda r: (r / VIDEO).unlink(), rf"1 of 3 files.*missing.*\n.*{VIDEO}"),
    "no table": (lambda r: (r / DATA).unlink(), rf"missing.*\n.*{DATA}"),
    "truncated table": (
        lambda r: (r / DATA).write_bytes((r / DATA).read_bytes()[:900]),
        r"file-000\.parquet is no",
    ),
    "count": (lambda r: edit_json(r / "meta/info.json", total_episodes=4), "states 4 episodes.*lists 3"),
    "twice": (lambda r: edit_table(r / EPISODES, episode_index=[0, 1, 1]), r"episode 1 more than once"),
    "length": (
        lambda r: edit_table(r / EPISODES, length=[6, 8, 7]),
        "Episode 1 .*length 8, but rows 6 to 15",
    ),
    "too few rows": (
        lambda r: pq.write_table(pq.read_table(r / DATA).slice(0, 20), r / DATA),
        "has 20 rows, but meta states 22",
    ),
    "shifted": (
        lambda r: edit_table(r / DATA, episode_index=[0] * 7 + [1] * 8 + [2] * 7),
        "row 6 belongs to episode 0, expected 1.*ragged",
    ),
    "short video": (
        lambda r: edit_table(r / EPISODES, **{f"{FRONT}/to_timestamp": [0.6, 1.3, 0.7]}),
        r"Episode 1 .*has 9 steps at 10 Hz, but 0\.700 s",
    ),
    "unknown column": (
        lambda r: edit_json(
            r / "meta/info.json",
            features={
                k: v
                for k, v in json.loads((r / "meta/info.json").read_text())["features"].items()
                if k != "time_s"
            },
        ),
        r"unknown columns 'time_s'",
    ),
    "lacking column": (
        lambda r: edit_feature(r, "effort", dtype="float32", shape=[2], names=None),
        "lacks 'effort'",
    ),
    "overlapping videos": (
        lambda r: edit_table(r / EPISODES, **{f"{FRONT}/from_timestamp": [0.0, 0.3, 0.0]}),
        r"episode 0 lies at 0\.000 to 0\.600 s, episode 1 begins at 0\.300 s.*whose pictures",
    ),
    "between frames": (
        lambda r: edit_table(
            r / EPISODES,
            **{f"{FRONT}/from_timestamp": [0.0, 0.64, 0.0], f"{FRONT}/to_timestamp": [0.6, 1.54, 0.7]},
        ),
        r"episode 1 begins at 0\.6400 s by meta/episodes, between two frames",
    ),
    "strange path": (
        lambda r: edit_json(r / "meta/info.json", data_path="data/{chunk}/{file_index}"),
        r"info\.json is damaged.*data_path .* names files by 'chunk'",
    ),
    "path out of the folder": (
        lambda r: edit_json(r / "meta/info.json", data_path="../{chunk_index}/{file_index}"),
        "leads out of the data set",
    ),
    "camera shape": (
        lambda r: edit_feature(r, "observation.images.front", shape=[64, 64, 4]),
        "expected height, width and 3",
    ),
}


@pytest.mark.parametrize("name", BAD_V3)
def test_a_spoilt_data_set_is_refused_when_it_is_opened(v3: Path, name: str):
    spoil, message = BAD_V3[name]
    spoil(v3)
    with pytest.raises(DatasetError, match=f"(?s){message}"):
        open_raw(v3)


def test_v21_layout_that_says_it_is_v3_is_refused(v21: Path):
    edit_json(v21 / "meta/info.json", codebase_version="v3.0")
    with pytest.raises(DatasetError, match=r"says v3\.0, which has episodes/"):
        open_raw(v21)


def test_all_missing_files_are_listed(v21: Path):
    shutil.rmtree(v21 / "videos")
    with pytest.raises(DatasetError, match=r"(?s)2 of 4 files.*episode_000000\.mp4.*episode_000001\.mp4"):
        open_raw(v21)


def test_a_table_longer_or_shorter_than_its_episode_is_ragged(v21: Path):
    write_table(v21 / "data/chunk-000/episode_000001.parquet", 1, 8)
    raw = open_raw(v21)
    assert raw.column(0, "action").shape == (6, 3)
    with pytest.raises(DatasetError, match=r"episode_000001\.parquet has 8 rows, but meta states 9.*ragged"):
        raw.column(1, "action")


def test_rows_of_different_lengths_and_empty_entries_are_said(v21: Path):
    rows = [[0.0, 1.0, 2.0]] * 4
    for bad, message in (([0.0, 1.0], r"ragged: rows of 2 and 3"), ([0.0, None, 1.0], "1 empty value")):
        column = pa.array([*rows, bad, [1.0, 2.0, 3.0]], pa.list_(pa.float64()))
        write_table(v21 / "data/chunk-000/episode_000000.parquet", 0, 6, action=column)
        with pytest.raises(DatasetError, match=f"'action'.*{message}"):
            open_raw(v21).column(0, "action")


@pytest.mark.parametrize(("bad", "message"), [([0.0], "ragged"), (None, "1 empty value")])
def test_one_bad_row_costs_one_episode(v3: Path, tmp_path: Path, bad: object, message: str):
    table = pq.read_table(v3 / DATA)
    rows = table["action"].to_pylist()
    rows[2] = bad
    place = table.schema.get_field_index("action")
    pq.write_table(table.set_column(place, "action", pa.array(rows, pa.list_(pa.float32()))), v3 / DATA)
    raw = open_raw(v3)
    assert len(raw.column(1, "action")) == LENGTHS[1]
    with pytest.raises(DatasetError, match=f"Episode 0.*{message}"):
        raw.column(0, "action")
    done = import_dataset(open_source(v3, skip_damaged=True), tmp_path / "s.zarr", skip_damaged=True)
    assert (done.num_episodes, len(done.skipped)) == (2, 1)


def test_time_that_is_no_number_is_said_with_the_cure_that_works(v21: Path, tmp_path: Path):
    stamps = pa.array(np.array([0, 0.1, np.nan, 0.3, 0.4, 0.5], np.float32))
    write_table(v21 / "data/chunk-000/episode_000000.parquet", 0, 6, timestamp=stamps)
    with pytest.raises(DatasetError, match=r"step 2 is nan\. 'vla data fix --drop not_finite'"):
        open_source(v21, describe_v21()).column(0, "action")
    source = open_source(v21, describe_v21(), tolerate_damage=True)
    settings = FixConfig(drop=("not_finite",), check=CheckConfig(frames="none"))
    fix(source, tmp_path / "b", settings)
    with EpisodeStore.open(tmp_path / "b") as store:
        assert [info.length for info in store.episodes] == [9]


def test_time_stamps_of_another_rate_and_with_gaps_are_noted(v21: Path, capsys):
    stamps = pa.array(np.array([0, 0.2, 0.4, 1.8, 2.0, 2.2], np.float32))
    write_table(v21 / "data/chunk-000/episode_000000.parquet", 0, 6, timestamp=stamps)
    source = open_source(v21, describe_v21())
    rate, gap = timing_notes(source)
    assert rate.startswith("time stamps of 1 episode say 5 Hz, 'so100' has 10 Hz")
    assert gap.startswith("1 gap in the time stamps of 1 episode")
    notes = mixture_notes(
        [SourceConfig(path=str(v21))], [source], roles=["front"], image_size=64, state_slots=[]
    )
    assert [note.partition(": ")[2] for note in notes if "time stamps" in note] == [rate, gap]
    out = str(v21.parent / "s.zarr")
    assert main(["data", "import", str(v21), "--description", said(v21), "--out", out]) == 0
    assert f"note: {rate}" in capsys.readouterr().out
    both = pa.array(0.25 * np.arange(9, dtype=np.float32))
    write_table(v21 / "data/chunk-000/episode_000001.parquet", 1, 9, task=1, timestamp=both)
    assert timing_notes(open_source(v21, describe_v21()))[0].startswith(
        "time stamps of 2 episodes say 4 to 5 Hz"
    )


def test_time_that_does_not_rise_is_said_with_its_file_and_step_and_can_be_repaired(
    v21: Path, tmp_path: Path
):
    stamps = pa.array(np.array([0, 0.1, 0.2, 0.2, 0.4, 0.5], np.float32))
    write_table(v21 / "data/chunk-000/episode_000000.parquet", 0, 6, timestamp=stamps)
    source = open_source(v21, describe_v21())
    message = r"episode_000000\.parquet\): time goes from 0\.2.* at step 3, it must rise.*fix --restamp"
    for use in (
        lambda: source.column(0, "action"),
        lambda: import_dataset(source, tmp_path / "a"),
        lambda: ResampledSource(source, 5.0),
    ):
        with pytest.raises(DatasetError, match=message):
            use()
    [skipping] = open_sources([SourceConfig(path=str(v21), description=said(v21), skip_damaged=True)])
    assert [episode for episode, _ in damaged_episodes(skipping)] == [0]
    assert [info.length for info in skipping.episodes] == [9]
    source = open_source(v21, describe_v21(), tolerate_damage=True)
    settings = FixConfig(restamp=True, check=CheckConfig(frames="none"))
    assert [change.episode for change in fix(source, tmp_path / "b", settings).changes] == [0]
    with EpisodeStore.open(tmp_path / "b") as store:
        np.testing.assert_array_equal(store.column(0, "time_s"), np.arange(6) / 10)
        np.testing.assert_array_equal(store.column(0, "action"), source.column(0, "action"))
        np.testing.assert_array_equal(store.column(1, "time_s"), source.column(1, "time_s"))


def test_a_video_span_inside_a_long_one_is_found_behind_a_short_one(v3: Path):
    layout = LeRobotDataset(v3).layout
    users = [
        (replace(entry, length=length), "front", VideoSpan(path=v3, start_s=start))
        for entry, length, start in zip(layout.episodes, (10, 1, 1), (0.0, 0.1, 0.3), strict=True)
    ]
    assert [entry.number for entry, _, _ in _overlaps(layout, v3, users)] == [0, 1, 0, 2]
