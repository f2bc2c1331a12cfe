"""Damaged tables and videos of a LeRobotDataset: named with their episodes, and left out on request."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.lerobot_worlds import (
    CAMERA,
    DATA,
    LENGTHS,
    VIDEO,
    describe_v21,
    edit_table,
    write_lines,
    write_table,
    write_video,
)
from vla.data.check import check
from vla.data.damage import damaged_episodes
from vla.data.mixture import SourceConfig, open_sources
from vla.data.mixture_notes import mixture_notes
from vla.data.readers import open_raw, open_source
from vla.data.readers.lerobot import LeRobotDataset
from vla.data.video import VideoFile
from vla.errors import DatasetError, UnknownNameError

FAST = {"movflags": "faststart"}


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
