"""Pictures are fresh or there is an error: files through OpenCV, and streams that stop, freeze and return."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from vla.errors import ConfigError
from vla.robots.cameras import CameraError, Frame, Freshness, OpenCVCamera, fit


def picture(level: int) -> np.ndarray:
    return np.full((48, 64, 3), level, np.uint8)


def write_video(path: Path, levels: list[int]) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (64, 48))
    for level in levels:
        writer.write(np.full((48, 64, 3), (level, 0, 0), np.uint8))  # blue, as OpenCV orders it
    writer.release()
    assert path.stat().st_size


def wait_for(condition, *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


def test_nothing_sent_yet_is_an_error():
    with pytest.raises(CameraError, match="has sent nothing"):
        Freshness("front").get(0.0)


def test_an_old_picture_is_not_acted_on():
    fresh = Freshness("front", max_age_s=0.5)
    fresh.put(Frame(picture(1), 10.0))
    assert fresh.get(10.4).time_s == 10.0
    with pytest.raises(CameraError, match=r"0\.6 s old \(unplugged\)"):
        fresh.get(10.6, "unplugged")


def test_one_picture_for_ever_is_a_stuck_camera_and_a_changed_one_cures_it():
    fresh = Freshness("front", frozen_s=1.0)
    for step in range(10):
        fresh.put(Frame(picture(7), 0.1 * step))
    assert fresh.get(0.9).image[0, 0, 0] == 7
    fresh.put(Frame(picture(7), 1.2))
    with pytest.raises(CameraError, match="stuck"):
        fresh.get(1.2)
    fresh.put(Frame(picture(8), 1.3))
    assert fresh.get(1.3).image[0, 0, 0] == 8


def test_sources_without_noise_may_stand_still():
    fresh = Freshness("file", frozen_s=None)
    for time_s in (0.0, 100.0):
        fresh.put(Frame(picture(7), time_s))
    assert fresh.get(100.0).time_s == 100.0


@pytest.mark.parametrize("limits", [{"max_age_s": 0.0}, {"frozen_s": -1.0}])
def test_limits_are_seconds_above_zero(limits):
    with pytest.raises(ConfigError):
        Freshness("front", **limits)


def test_a_camera_gives_rgb_with_the_time_of_its_arrival(tmp_path: Path):
    write_video(tmp_path / "film.avi", [200] * 60)
    camera = OpenCVCamera("front", str(tmp_path / "film.avi"), frozen_s=None)
    began = time.monotonic()
    camera.open()
    frame = camera.read()
    camera.close()
    assert frame.image.shape == (48, 64, 3)
    assert frame.image[24, 32, 2] > 150 > frame.image[24, 32, 0]  # blue is the last of three
    assert began <= frame.time_s <= time.monotonic()
    with pytest.raises(CameraError, match=r"has sent nothing|old"):
        OpenCVCamera("front", str(tmp_path / "film.avi")).read()


def test_a_camera_that_is_not_there_says_so(tmp_path: Path):
    camera = OpenCVCamera("wrist", str(tmp_path / "none.avi"), start_s=0.2)
    with pytest.raises(CameraError, match=r"'wrist' has sent nothing .*cannot be opened"):
        camera.open()


def test_a_stream_that_ends_goes_stale_and_is_taken_up_again_when_it_returns(tmp_path: Path):
    path = tmp_path / "film.avi"
    write_video(path, list(range(10, 250, 8)))
    camera = OpenCVCamera("front", str(path), max_age_s=0.1, frozen_s=None, retry_s=0.05, fps=200.0)
    camera.open()
    try:
        path.rename(tmp_path / "away.avi")

        def stale() -> bool:
            try:
                camera.read()
            except CameraError:
                return True
            return False

        wait_for(stale)
        (tmp_path / "away.avi").rename(path)
        wait_for(lambda: not stale())
        assert camera.reopened >= 1
    finally:
        camera.close()


def test_pictures_are_cut_to_shape_from_the_middle_and_scaled():
    wide = np.zeros((48, 96, 3), np.uint8)
    wide[:, 24:72] = 255  # the middle square
    assert (fit(wide, 24, 24) == 255).all()
    assert fit(wide, 96, 96).shape == (96, 96, 3)
    same = picture(3)
    assert fit(same, 48, 64) is same
