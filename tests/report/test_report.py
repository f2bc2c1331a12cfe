import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.eval.fake_suite import PointEnv, PointExpert, PointSuite
from vla.control.loop import run_loop
from vla.control.safety import SafetyEnvelope
from vla.errors import EnvError
from vla.eval.evaluate import evaluate
from vla.eval.grid import EvalConfig
from vla.eval.intervals import Rate
from vla.report.episodes import MEDIA_BYTES
from vla.report.figures import film_strip, interval_chart, jpeg_uri
from vla.report.page import write_report
from vla.report.tables import safety_facts, summary_text
from vla.report.video import CAPTION_PX, LINGER_FRAMES, StateTrace, VideoWriter, read_frames, write_video
from vla.robots.sim import SimRobot
from vla.text import text_table

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects every address and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "poster", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def run(point_suite: str, tmp_path: Path) -> Path:
    """An evaluation with successes, failures under blank cameras, and videos."""
    config = EvalConfig(
        suite=point_suite, policy="seer", tasks=("reach",), num_seeds=3, workers=0, videos_per_cell=1,
        ablations=("none", "blank"),
    )  # fmt: skip
    evaluate(config, tmp_path, progress=False)
    return tmp_path


def test_the_page_is_well_formed_and_asks_nothing_of_the_network(run: Path) -> None:
    text = write_report(run).read_text()
    page = Page(text)
    assert page.sources
    assert all(
        source.startswith(("data:image/jpeg;base64,", "data:video/mp4;base64,")) for source in page.sources
    )
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text
    assert "default-src 'none'" in text


def test_the_page_says_rates_with_n_conditions_failures_and_what_it_was_made_with(run: Path) -> None:
    page = Page(write_report(run).read_text())
    for words in (
        "seer",
        "base blank",
        "n=3",
        "worst",
        "Failures",
        "not done after 25 steps",
        "mujoco",
        "command",
    ):
        assert words in page.text
    assert re.search(r"target off at t=0\s*\d+\.\d cm", page.text)


def test_the_material_clamps_stand_first_with_what_they_mean(run: Path) -> None:
    from vla.eval.evaluate import load_summary

    summary = load_summary(run)[2]
    for text in (summary_text(summary), Page(write_report(run).read_text()).text):
        assert text.index("range, material") < text.index("non_finite")
        assert "by more than the tolerance" in " ".join(text.split())
        assert "env_clipped " not in text  # this env reports none
    assert [row[0] for row in safety_facts(summary)][:2] == ["range, material", "change, material"]


def test_every_session_and_a_change_of_code_are_on_the_page(run: Path) -> None:
    path = run / "provenance.json"
    (session,) = json.loads(path.read_text())["sessions"]
    path.write_text(json.dumps({"sessions": [session, {**session, "commit": "feedbeef"}]}))
    text = Page(write_report(run).read_text()).text
    assert "2 code versions" in text
    assert "session 2 commit" in text


def test_media_stay_within_the_budget(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_report(run).stat().st_size < MEDIA_BYTES + 500_000
    monkeypatch.setattr("vla.report.page.MEDIA_BYTES", 10)
    assert Page(write_report(run).read_text()).sources == []


def test_what_people_write_is_escaped(run: Path) -> None:
    records = run / "records.jsonl"
    records.write_text(records.read_text().replace("reach the", "reach <b>&the"))
    text = write_report(run).read_text()
    assert "<b>&the" not in text
    assert "reach &lt;b&gt;&amp;the" in text


def test_a_run_without_records_or_videos_still_makes_a_page(run: Path) -> None:
    (run / "records.jsonl").write_text("")
    assert "0 of 12 episodes" in Page(write_report(run).read_text()).text


def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match="holds no evaluation"):
        write_report(tmp_path)


def test_the_console_tables_align_and_name_every_cell(run: Path) -> None:
    from vla.eval.evaluate import load_summary

    text = summary_text(load_summary(run)[2])
    assert "reach / point" in text
    assert "reach / dot" in text
    table = text_table(["a", "bb"], [["ccc", "1"], ["d", "22"]])
    assert [len(line) for line in table.splitlines()] == [7, 7, 7, 7]


def test_rows_come_in_the_order_of_the_plan_whatever_finished_first(run: Path) -> None:
    from vla.eval.evaluate import load_summary

    before = load_summary(run)[2]
    path = run / "records.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    after = load_summary(run)[2]
    assert list(after.by_cell) == list(before.by_cell) == [("reach", "point"), ("reach", "dot")]
    assert list(after.by_arm) == ["point", "dot"]


def test_prose_fits_the_terminal(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vla.eval.evaluate import load_summary

    monkeypatch.setenv("COLUMNS", "60")
    text = summary_text(load_summary(run)[2])
    prose = text[text.index("Share of control steps") :].splitlines()
    assert len(prose) > 5
    assert max(map(len, prose)) <= 60


def test_videos_are_h264_that_browsers_play_and_show_what_was_drawn(tmp_path: Path) -> None:
    frames = [np.full((31, 45, 3), value, np.uint8) for value in (20, 120, 220)]
    write_video(tmp_path / "v.mp4", frames, fps=10)
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width, stream.average_rate) == (30, 44, 10)
    means = [frame.mean() for frame in read_frames(tmp_path / "v.mp4")]
    assert means == pytest.approx([20, 120, 220], abs=4)


def test_an_unfinished_video_does_not_bear_its_name(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "v.mp4", fps=10)
    writer.add(np.zeros((32, 32, 3), np.uint8))
    assert not (tmp_path / "v.mp4").exists()
    writer.close()
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", fps=10) as writer:
        writer.add(np.zeros((32, 32, 3), np.uint8))
        with pytest.raises(ValueError, match=r"\(64, 32\)"):
            writer.add(np.zeros((64, 32, 3), np.uint8))


def test_a_trace_redraws_exactly_the_states_that_were_passed(tmp_path: Path) -> None:
    env = PointEnv("reach", "point")
    trace, robot = StateTrace(env, size=64), SimRobot(env, seed=0)
    result = run_loop(robot, PointExpert(env), SafetyEnvelope(env.embodiment), max_steps=50, hooks=[trace])
    env.reset(seed=9)
    frames = list(trace.frames())
    assert len(frames) == result.steps + 1 + LINGER_FRAMES
    assert frames[0].shape == (64 + CAPTION_PX, 96, 3)
    assert env.near(env.target)


def test_a_film_strip_shows_first_and_last() -> None:
    frames = [np.full((40, 40, 3), value, np.uint8) for value in (0, 50, 100, 150, 200)]
    strip = film_strip(frames, count=3, height=40)
    assert strip.shape == (40, 3 * 40 + 2 * 4, 3)
    assert [strip[0, x, 0] for x in (0, 50, 100)] == [0, 100, 200]


def test_an_embedded_picture_is_the_picture() -> None:
    import base64

    image = cv2.resize(np.array([[[250, 10, 10], [10, 10, 250]]], np.uint8), (64, 32))
    data = base64.b64decode(jpeg_uri(image).partition(",")[2])
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    decoded = decoded[..., ::-1]
    assert np.abs(decoded.astype(int) - image).mean() < 4


def test_the_interval_chart_draws_each_rate_inside_its_whisker() -> None:
    svg = interval_chart(
        [("pick", [("base", Rate(9, 10)), ("swapped", Rate(0, 10))]), ("a<b", [("base", Rate(0, 0))])]
    )
    whiskers = [
        tuple(map(float, m)) for m in re.findall(r'class="whisker[^"]*" x1="([\d.]+)" x2="([\d.]+)"', svg)
    ]
    dots = [float(x) for x in re.findall(r'cx="([\d.]+)"', svg)]
    assert len(dots) == len(whiskers) == 2
    assert all(low <= dot <= high for dot, (low, high) in zip(dots, whiskers, strict=True))
    assert "a<b" not in svg


def test_more_than_four_conditions_reuse_colours_without_failing() -> None:
    rows = [("pick", [(str(i), Rate(i, 6)) for i in range(6)])]
    assert interval_chart(rows).count("<circle") == 6
    assert replace(Rate(1, 2), n=3).n == 3


def test_an_arm_that_the_suite_keeps_out_of_training_is_marked(
    point_suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PointSuite, "heldout_embodiments", ("dot",), raising=False)
    config = EvalConfig(
        suite=point_suite, policy="seer", tasks=("reach",), embodiments=("point",), num_seeds=1, workers=0
    )
    assert "out of training" not in summary_text(evaluate(config, tmp_path, progress=False))
    summary = evaluate(replace(config, embodiments=("point", "dot")), tmp_path, progress=False)
    assert "point_suite keeps dot out of training" in summary_text(summary)
    assert "point_suite keeps dot out of training" in write_report(tmp_path).read_text()
    assert json.loads((tmp_path / "summary.json").read_text())["heldout_arms"] == ["dot"]
