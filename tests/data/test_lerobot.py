"""LeRobotDataset v2.1 and v3.0 are read as they are; what is wrong with them is said, and in which file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.lerobot_worlds import (
    CAMERA,
    SIZE,
    describe_v21,
    edit_json,
    edit_table,
    number_of,
    write_lines,
    write_table,
    write_v21,
    write_video,
)
from tests.data.worlds import make_arm, make_episode
from vla.cli.main import main
from vla.data import lerobot_files
from vla.data.check import CheckConfig, check
from vla.data.damage import damaged_episodes
from vla.data.exporting import export_lerobot
from vla.data.fix import FixConfig, fix
from vla.data.importing import import_dataset
from vla.data.mixture import SourceConfig, open_sources
from vla.data.mixture_notes import mixture_notes, timing_notes
from vla.data.readers import lerobot_tables, open_raw, open_source
from vla.data.readers.lerobot import LeRobotDataset
from vla.data.resample import ResampledSource
from vla.data.source import RawDataset, read_frames
from vla.data.store import EpisodeStore
from vla.data.video import VideoFile
from vla.errors import DatasetError, StoreError, UnknownNameError

LENGTHS = (6, 9, 7)
FAST = {"movflags": "faststart"}


@pytest.fixture
def v21(tmp_path: Path) -> Path:
    return write_v21(tmp_path / "old")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A v3.0 data set of three episodes, two to a video file."""
    folder, rng, arm = tmp_path_factory.mktemp("v3"), np.random.default_rng(3), make_arm(wrist=False)
    with EpisodeStore.create(folder / "demos.zarr", embodiments=[arm]) as store:
        for i, length in enumerate(LENGTHS):
            store.append(make_episode(rng, arm, length=length, instruction=f"do {i % 2}"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lerobot_files, "VIDEO_S", 1.2)
            export_lerobot(store, folder / "new")
    return folder / "new"


@pytest.fixture
def v3(exported: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(exported, tmp_path / "new"))


def _edit_feature(root: Path, name: str, **changed: object) -> None:
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features[name] = {**features.get(name, {}), **changed}
    edit_json(root / "meta/info.json", features=features)


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
    _edit_feature(v21, "next.success", dtype="bool", shape=[1], names=None)
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


EPISODES, DATA = "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"
FRONT = "videos/observation.images.front"
VIDEO = f"{FRONT}/chunk-000/file-001.mp4"
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
        lambda r: _edit_feature(r, "effort", dtype="float32", shape=[2], names=None),
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
        lambda r: _edit_feature(r, "observation.images.front", shape=[64, 64, 4]),
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


def said(root: Path) -> str:
    file = root.parent / "description.json"
    describe_v21().save(file)
    return str(file)


def test_rows_out_of_order_are_said(v21: Path):
    write_table(v21 / "data/chunk-000/episode_000000.parquet", 0, 6, frame_index=pa.array([0, 1, 3, 2, 4, 5]))
    with pytest.raises(DatasetError, match=r"frame_index goes from 3 to 2 at row 3 in episode 0.*order"):
        open_raw(v21).column(0, "action")


def numbers(root: Path) -> list[bytes]:
    raw = open_raw(root)
    return [raw.column(i, name).tobytes() for i in range(len(LENGTHS)) for name in raw.columns]


def flip_last_byte(table: Path, group: int, column: str) -> None:
    """Spoil the last page of a column in a row group."""
    chunks = pq.read_metadata(table).row_group(group)
    [chunk] = [
        c for c in map(chunks.column, range(chunks.num_columns)) if c.path_in_schema.startswith(column)
    ]
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(table.read_bytes())
    data[start + chunk.total_compressed_size - 1] ^= 0x10
    table.write_bytes(data)


def test_a_flipped_byte_in_an_exported_table_is_an_error_or_changes_nothing(v3: Path):
    table, wanted, found = v3 / DATA, numbers(v3), []
    good = table.read_bytes()
    for place in np.linspace(4, len(good) - 9, 60).astype(int):
        spoilt = bytearray(good)
        spoilt[place] ^= 0x10
        table.write_bytes(spoilt)
        try:
            assert numbers(v3) == wanted
        except DatasetError as error:
            found.append(str(error))
    assert len(found) > 20
    assert all("file-000.parquet" in message for message in found)


def test_a_damaged_page_is_said_with_its_episode_and_what_to_do(v3: Path):
    flip_last_byte(v3 / DATA, 1, "action")
    raw = open_raw(v3)
    assert raw.column(0, "action").shape == (LENGTHS[0], 5)
    with pytest.raises(
        DatasetError, match=r"Episode 1: .*file-000\.parquet, column 'action' is damaged.*skip_damaged"
    ):
        raw.column(1, "action")


def test_numbers_that_another_writer_changed_do_not_fit_the_checksum_of_their_episode(v3: Path):
    rows = pq.read_table(v3 / DATA)["action"].to_pylist()
    rows[7][2] += 1e-6
    edit_table(v3 / DATA, action=rows)  # without checksums of pages
    raw = open_raw(v3)
    assert raw.column(2, "action").shape == (LENGTHS[2], 5)
    with pytest.raises(DatasetError, match=r"Episode 1: .*column 'action' does not fit its checksum"):
        raw.column(1, "action")


def test_damaged_episodes_are_left_out_on_request_with_a_line_a_file(v3: Path, v21: Path):
    lost = [e.number for e in LeRobotDataset(v3).layout.episodes if v3 / VIDEO in e.files]
    (v3 / VIDEO).write_bytes(b"no video")
    raw = LeRobotDataset(v3, skip_damaged=True)
    assert [e.provenance["episode_index"] for e in raw.episodes] == [n for n in range(3) if n not in lost]
    assert len(raw.damaged) == 1
    assert "file-001.mp4 is no readable video" in raw.damaged[0]
    (v21 / f"videos/chunk-000/{CAMERA}/episode_000001.mp4").unlink()
    raw = LeRobotDataset(v21, skip_damaged=True)
    assert ([e.length for e in raw.episodes], raw.checksum() != 0) == ([6], True)
    assert raw.damaged[0].startswith("episode 1: ")
    (v21 / "data/chunk-000/episode_000000.parquet").unlink()
    with pytest.raises(DatasetError, match=r"Every episode of .* is damaged"):
        LeRobotDataset(v21, skip_damaged=True)


def test_sources_of_a_mixture_leave_out_what_only_reading_shows_to_be_damaged(v3: Path):
    flip_last_byte(v3 / DATA, 1, "action")
    config = SourceConfig(path=str(v3), skip_damaged=True)
    (source,) = open_sources([config])
    assert [info.length for info in source.episodes] == [LENGTHS[0], LENGTHS[2]]
    [(episode, line)] = damaged_episodes(source)
    assert episode == 1
    assert line.startswith("Episode 1: ")
    notes = mixture_notes([config], [source], roles=("front",), image_size=64, state_slots=())
    assert any("left out, damaged: episode 1: " in note for note in notes)
    assert not any("unsuccessful" in note for note in notes)


def test_a_video_shorter_than_its_episode_is_said_with_its_episode(v21: Path):
    write_video(v21 / f"videos/chunk-000/{CAMERA}/episode_000001.mp4", range(10, 16))
    with pytest.raises(
        DatasetError, match=r"(?s)episode 1: .*episode_000001\.mp4 has no whole frame after 0\.500 s"
    ):
        open_raw(v21)
    raw = open_raw(v21, skip_damaged=True)
    assert [episode.length for episode in raw.episodes] == [6]
    assert raw.damaged[0].startswith("episode 1: ")


def test_half_a_video_names_the_episodes_that_it_cannot_serve(v3: Path, monkeypatch: pytest.MonkeyPatch):
    put_index_first(v3 / VIDEO)
    monkeypatch.setattr(VideoFile, "read", None)  # nothing is decoded to find out
    (v3 / VIDEO).write_bytes((v3 / VIDEO).read_bytes()[:-40])
    lost = [e.number for e in LeRobotDataset(v3, cameras=[]).layout.episodes][-1]
    with pytest.raises(
        DatasetError, match=rf"(?s)episode {lost}: .*file-001\.mp4 has no whole frame .*--cameras"
    ):
        open_raw(v3)
    assert len(open_raw(v3, skip_damaged=True).episodes) == 2


def put_index_first(path: Path) -> None:
    """Put the index of an MP4 before its pictures, where a file that is cut short keeps it."""
    with av.open(str(path)) as old, av.open(f"{path}.new", "w", format="mp4", options=FAST) as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    Path(f"{path}.new").replace(path)


def test_a_set_without_the_videos_of_a_camera_is_read_without_that_camera(v3: Path, v21: Path):
    shutil.rmtree(v3 / "videos")
    for skip in (False, True):
        with pytest.raises(DatasetError, match=r"--cameras with the names of the others"):
            open_source(v3, skip_damaged=skip)
    source = open_source(v3, cameras=[])
    assert (len(source), source.cameras(0)) == (3, [])
    assert source.embodiments[source.episodes[0].embodiment].cameras == ()
    shutil.rmtree(v21 / "videos")
    blind = describe_v21().with_cameras([])
    assert len(open_source(v21, blind)) == 2  # a description that names no camera needs none
    with pytest.raises(UnknownNameError, match=r"Unknown camera of .*'tip'.*observation\.images\.top"):
        open_source(v21, describe_v21(), cameras=["tip"])


@pytest.mark.parametrize("text", ["", "something else"])
def test_instructions_that_two_files_tell_differently_are_a_fault_that_names_both(
    v3: Path, v21: Path, text: str
):
    edit_table(v3 / "meta/tasks.parquet", task=[text, "do 1"])
    with pytest.raises(DatasetError, match=r"tasks\.parquet: task_index 0, .* meta/episodes says"):
        open_raw(v3)
    write_lines(
        v21 / "meta/tasks.jsonl", [{"task_index": 0, "task": text}, {"task_index": 1, "task": "push"}]
    )
    raw = open_raw(v21)
    with pytest.raises(DatasetError, match=rf"tasks\.jsonl: task_index 0, .* is {text!r}; .* says 'pick'"):
        raw.column(0, "action")
    assert len(raw.column(1, "action")) == 9
    (missing,) = check(open_source(v21, describe_v21(), tolerate_damage=True)).kinds["missing"]
    assert "episode 0: " in missing.message
