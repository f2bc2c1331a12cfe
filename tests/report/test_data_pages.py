"""Pages of checks and of episodes: whole, self-contained, and saying what they are about."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.data.check.made import LENGTH, MadeSource
from tests.data.memory import memory_source
from tests.data.worlds import make_arm
from vla.data.check import KINDS, CheckConfig, check, not_opened
from vla.embodiment import Camera
from vla.errors import DatasetError, MissingExtraError
from vla.report.data_page import write_check_page
from vla.report.data_view import write_episode_page
from vla.report.plots import bar_plot, line_plot
from vla.report.recording import write_recording


@pytest.fixture
def source() -> MadeSource:
    return MadeSource(count=10)


def test_the_page_of_a_check_pictures_every_kind_and_asks_nothing_of_the_network(
    source: MadeSource, tmp_path: Path
) -> None:
    source.pictures[2]["front"][10] = None
    source.values[4]["state"][30:, 0] += 0.4
    source.rename(7, "<b>pick_cube</b>")
    source.repeat(9, of=8)
    report = check(source, CheckConfig(frames="all"))
    page = write_check_page(report, source, tmp_path / "c.html").read_text()
    assert {"unreadable_frame", "jump", "odd_instruction", "duplicate"} <= set(report.kinds)
    for kind, found in report.kinds.items():
        assert f"<h2>{kind} " in page
        assert found[0].place in page
    assert page.count("<figure") == len(report.findings)
    cameras = len(source.arm.cameras)
    assert page.count("data:image/jpeg") == 4 + cameras  # one of each, of the duplicate both episodes
    assert "<b>pick_cube" not in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="http', page)


def test_a_mismatch_is_drawn_as_what_was_asked_for_beside_what_moved(tmp_path: Path) -> None:
    source = MadeSource()
    for name in ("action", "executed"):
        source.values[5][name] = np.roll(source.values[5][name], LENGTH // 2, axis=0)
    report = check(source, CheckConfig(frames="none"))
    page = write_check_page(report, source, tmp_path / "c.html").read_text()
    assert "<h2>mismatch " in page
    assert "change of state/tcp_position[0] in a step, of its largest" in page


def test_the_page_says_of_whom_its_findings_are(source: MadeSource, tmp_path: Path) -> None:
    source.lost.append((None, "part-00001 is missing"))
    source.rename(3, "")
    for values in source.values:
        values["action"][:, 3] = 0.0
    page = write_check_page(check(source), source, tmp_path / "c.html").read_text()
    assert "<p>errors</p><strong>2</strong><small>1 episode, the data set</small>" in page
    assert "<p>warning</p><strong>1</strong><small>all of an arm</small>" in page
    assert "<p>notes</p><strong>0</strong><small>0 episodes</small>" in page


def test_the_page_of_a_clean_check_says_so(source: MadeSource, tmp_path: Path) -> None:
    page = write_check_page(
        check(source, CheckConfig(frames="none")), source, tmp_path / "c.html"
    ).read_text()
    assert "Nothing found." in page


def test_the_page_of_a_clean_check_shows_what_was_looked_at(source: MadeSource, tmp_path: Path) -> None:
    source.episodes = [replace(info, success=(None, True)[info.index % 2]) for info in source.episodes]
    source.pictures[0]["front"][LENGTH // 2] = None  # its sample is left out, and the page is made
    report = check(source, CheckConfig(frames="sampled"))
    page = write_check_page(report, source, tmp_path / "c.html").read_text()
    assert "10 (5 successful, 5 of unknown success)" in page
    assert page.count('<img class="strip film" alt="') >= len(source.arm.cameras)
    assert "alpha: 40 to 40, median 40" in page
    assert "<th>reach the red square</th><td>4</td>" in page
    for kind, facts in KINDS.items():
        assert f"<th>{kind}</th><td>{facts.meaning}</td>".replace("'", "&#x27;") in page
    assert f"<td>{report.num_frames_read} pictures</td><td>0</td>" in page
    passed = len(KINDS) - len(report.kinds) - 1  # odd pictures take all
    assert f"{passed} of {len(KINDS)} kinds of fault were looked for and not found, 1 not looked for" in page


def test_checks_of_pictures_that_were_not_made_are_not_passed(source: MadeSource, tmp_path: Path) -> None:
    report = check(source, CheckConfig(frames="none"))
    page = write_check_page(report, source, tmp_path / "c.html").read_text()
    assert page.count("<td>not looked for: this takes pictures</td><td>-</td>") == 5
    assert f"{len(KINDS) - 5} of {len(KINDS)} kinds of fault were looked for and not found, 5 not" in page


def test_the_page_of_an_episode_holds_its_film_numbers_and_words(source: MadeSource, tmp_path: Path) -> None:
    source.rename(1, "reach </script> the <square>")
    source.values[1]["executed"][5] = 0
    page = write_episode_page(source, 1, tmp_path / "e.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page).group(1))  # type: ignore[union-attr]
    assert len(data["time_s"]) == LENGTH
    assert [len(plot) for plot in data["values"]] == [3, 7, 1, 3, 1, 1]
    assert np.allclose(data["values"][0], source.values[1]["state"][:, :3].T, rtol=1e-4)
    assert page.count("data:video/mp4") == 1
    assert "reach &lt;/script&gt; the &lt;square&gt;" in page
    assert "dashed: executed" in page


def test_the_film_has_a_picture_a_step_and_all_cameras(source: MadeSource, tmp_path: Path) -> None:
    import base64

    from vla.report.video import read_frames

    page = write_episode_page(source, 1, tmp_path / "e.html").read_text()
    encoded = re.search(r"data:video/mp4;base64,([^\"]+)", page).group(1)  # type: ignore[union-attr]
    (tmp_path / "film.mp4").write_bytes(base64.b64decode(encoded))
    frames = read_frames(tmp_path / "film.mp4")
    assert len(frames) == LENGTH
    assert frames[0].shape == (240, 2 * 240 + 6, 3)
    shown = frames[20][:, :240].reshape(48, 5, 48, 5, 3).mean(axis=(1, 3))
    stored = source.pictures[1]["front"][20]
    assert np.abs(shown - np.asarray(stored, float)).mean() < 4


def test_a_plot_has_a_line_an_entry_broken_at_nan_and_shades_the_place() -> None:
    values = np.array([0.0, 1.0, np.nan, 1.0, 2.0])
    text = line_plot([("a", values), ("b", -values)], band=(1, 2))
    assert text.count("<polyline") == 4
    assert 'class="band"' in text
    assert "nan" not in text.lower()


def test_plots_of_constants_and_of_nothing_are_drawn() -> None:
    assert "<polyline" in line_plot([("a", np.zeros(1))])
    assert "<svg" in line_plot([("a", np.full(3, np.nan))])
    assert bar_plot(["-1", "0"], [0.5, -0.2], marked=0).count("series1") == 1


def test_without_rerun_the_extra_is_named(
    source: MadeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingExtraError, match=r"vla\[rerun\]"):
        write_recording(source, 0, tmp_path / "e.rrd")


def test_rerun_reads_every_step_of_two_recordings_back(source: MadeSource, tmp_path: Path) -> None:
    chunks = pytest.importorskip("rerun.chunk", exc_type=ImportError)
    for episode in (0, 1):
        path = write_recording(source, episode, tmp_path / f"{episode}.rrd")
        seen: dict[tuple[str, str], dict[int, object]] = {}
        for chunk in chunks.RrdReader(path).stream():
            batch = chunk.to_record_batch()
            steps = [None] * len(batch) if chunk.is_static else batch.column("step").to_pylist()
            for name in ("Scalars:scalars", "EncodedImage:blob", "TextDocument:text"):
                if name in batch.schema.names:
                    rows = zip(steps, batch.column(name).to_pylist(), strict=True)
                    seen.setdefault((chunk.entity_path, name), {}).update(rows)
        assert seen["/instruction", "TextDocument:text"] == {None: [source.episodes[episode].instruction]}
        places = seen["/state/tcp_position", "Scalars:scalars"]
        stored = source.values[episode]["state"][:, :3]
        np.testing.assert_allclose([places[t] for t in range(LENGTH)], stored, rtol=1e-6)
        for camera, film in source.pictures[episode].items():
            blobs = seen[f"/cameras/{camera}", "EncodedImage:blob"]
            assert sorted(blobs) == list(range(LENGTH))
            picture = cv2.imdecode(np.frombuffer(bytes(blobs[7][0]), np.uint8), cv2.IMREAD_COLOR_RGB)
            assert np.abs(picture.astype(float) - np.asarray(film[7], float)).mean() < 4


def test_a_page_of_very_many_cameras_shows_the_first_and_names_the_rest(tmp_path: Path) -> None:
    cameras = tuple(Camera(name=f"c{i}", role="front", height=9, width=70) for i in range(40))
    arm = replace(make_arm("many", wrist=False), cameras=cameras)
    source = memory_source(arm, num_episodes=1, length=2)
    page = write_episode_page(source, 0, tmp_path / "e.html").read_text()
    assert "<video" in page
    assert "8 more cameras are not shown: c32, c33" in page


def test_what_cannot_be_opened_has_a_page_that_says_why(tmp_path: Path) -> None:
    report = not_opened("somewhere/demos", DatasetError("every table of <it> is cut short"))
    page = write_check_page(report, None, tmp_path / "c.html").read_text()
    assert "every table of &lt;it&gt; is cut short" in page
    assert "<p>error</p><strong>1</strong><small>the data set</small>" in page
    assert "What was looked at" not in page


def test_long_words_are_broken_and_nothing_is_said_twice(source: MadeSource, tmp_path: Path) -> None:
    source.rename(3, "x" * 180)
    source.values[5]["state"] = source.values[5]["state"][:-1]
    del source.values[7]["state"]
    source.pictures[2]["front"][10] = None
    page = write_check_page(check(source, CheckConfig(frames="all")), source, tmp_path / "c.html").read_text()
    assert f"<th class='long'>{'x' * 180}</th>" in page
    assert "cannot be drawn" not in page
    assert "<b>episode 2, step 10, front</b> the frame of step 10" in page


def test_bars_that_only_go_up_fill_the_drawing() -> None:
    tall = [
        float(h) for h in re.findall(r'<rect.*? height="([\d.]+)"', bar_plot(["a", "b"], [2, 1], marked=-1))
    ]
    assert tall == [104.0, 52.0]
    assert (
        max(
            float(h)
            for h in re.findall(r'<rect.*? height="([\d.]+)"', bar_plot(["a", "b"], [2, -1], marked=0))
        )
        < 60
    )
