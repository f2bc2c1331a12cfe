"""Video: any frame by its time, in any order, in any process; what is not there is said."""

from __future__ import annotations

import gc
import multiprocessing as mp
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.data.lerobot_worlds import FPS, SIZE, number_of, write_video
from vla.data import video
from vla.data.video import VideoFile, VideoFiles, VideoSettings, VideoWriter
from vla.errors import DatasetError

COUNT = 30


@pytest.fixture(scope="module", params=["av1", "h264"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 pictures: AV1 with a keyframe every 2, or H.264 with one every 12."""
    path = tmp_path_factory.mktemp("clip") / f"{request.param}.mp4"
    if request.param == "av1":
        return write_video(path, range(COUNT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoSettings, "encoder", "libx264")
        return write_video(path, range(COUNT), VideoSettings(keyframe_interval=12, crf=20))


def read(files: VideoFiles, path: Path, step: int) -> int:
    out = np.empty((SIZE, SIZE, 3), np.uint8)
    files.read(path, step / FPS, out)
    return number_of(out)


def test_frames_read_in_any_order_are_those_of_their_times(clip: Path):
    files, rng = VideoFiles(), np.random.default_rng(0)
    for step in [*range(COUNT), *range(COUNT - 1, -1, -1), *rng.integers(0, COUNT, 60).tolist(), 5, 5]:
        assert read(files, clip, step) == step


def test_colours_and_rows_come_as_they_were_written(clip: Path):
    out = np.empty((SIZE, SIZE, 3), np.uint8)
    VideoFiles().read(clip, 0.0, out)
    top, bottom = out[8:24].mean(axis=(0, 1)), out[40:56].mean(axis=(0, 1))
    np.testing.assert_allclose(top, (128, 20, 20), atol=8)
    np.testing.assert_allclose(bottom, (20, 20, 20), atol=8)


def test_a_time_within_half_a_frame_is_enough_and_past_the_end_is_an_error(clip: Path):
    file, out = VideoFile(clip), np.empty((SIZE, SIZE, 3), np.uint8)
    file.read(0.74, out)
    assert number_of(out) == 7
    with pytest.raises(DatasetError, match=r"ends before 3\.000 s.*shorter than its episode"):
        file.read(COUNT / FPS, out)
    file.read(0.3, out)
    assert number_of(out) == 3  # and it can be read on after that


def test_a_forked_process_reads_through_its_own_files(clip: Path):
    files = VideoFiles()
    assert read(files, clip, 4) == 4
    with mp.get_context("fork").Pool(2) as pool:
        found = pool.starmap(_read_many, [(files, clip, 3), (files, clip, 7)])
    assert found == [list(range(3, COUNT, 5)), list(range(7, COUNT, 5))]
    assert read(files, clip, 9) == 9


def _read_many(files: VideoFiles, path: Path, first: int) -> list[int]:
    return [read(files, path, step) for step in range(first, COUNT, 5)]


def test_few_files_are_open_at_a_time(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(video, "MAX_OPEN_FILES", 2)
    files, copies = VideoFiles(), [tmp_path / f"{i}.mp4" for i in range(4)]
    for copy in copies:
        copy.write_bytes(clip.read_bytes())
    for step in range(8):
        assert read(files, copies[step % 4], step) == step
        assert len(files._files) <= 2


def test_missing_truncated_and_foreign_files_are_named(clip: Path, tmp_path: Path):
    with pytest.raises(DatasetError, match=r"nothing\.mp4 is missing"):
        VideoFile(tmp_path / "nothing.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(DatasetError, match=r"text\.mp4 is no readable video"):
        VideoFile(tmp_path / "text.mp4")
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(DatasetError, match=r"half\.mp4"):
        VideoFile(tmp_path / "half.mp4")


def test_another_size_than_expected_is_an_error(clip: Path):
    with pytest.raises(DatasetError, match="64x64, expected 32x48"):
        VideoFile(clip).read(0.0, np.empty((32, 48, 3), np.uint8))


@pytest.mark.parametrize(("height", "width", "reason"), [(65, 64, "must be even"), (64, 32, "too small")])
def test_sizes_that_video_does_not_have_are_refused(height: int, width: int, reason: str, tmp_path: Path):
    with pytest.raises(DatasetError, match=reason):
        VideoWriter(tmp_path / "x.mp4", height=height, width=width, rate_hz=10.0, settings=VideoSettings())


def test_reading_at_random_takes_no_memory_with_it(clip: Path):
    """PyAV's demuxer loses some 0.3 kB where it is dropped unfinished."""
    files, rng, process = VideoFiles(), np.random.default_rng(0), psutil.Process()
    out = np.empty((SIZE, SIZE, 3), np.uint8)

    def read_on(count: int) -> int:
        for step in rng.integers(0, COUNT, count).tolist():
            files.read(clip, step / FPS, out)
        gc.collect()
        return process.memory_info().rss

    before = read_on(1500)
    assert read_on(4000) - before < 300_000
