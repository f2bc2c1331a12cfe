"""A foreign data set can be looked at before anybody has said what its columns mean, and not learned from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.lerobot_worlds import CAMERA, write_v21
from tests.data.worlds import make_arm, make_episode
from vla.cli.main import main
from vla.data.check import check
from vla.data.readers import open_source, open_to_look
from vla.data.store import EpisodeStore
from vla.data.summary import describe
from vla.data.undescribed import NEEDS_MEANING, UndescribedSource
from vla.errors import EmbodimentError, UndescribedError, UnknownNameError

pytest.importorskip("pyarrow")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_v21(tmp_path / "d", lengths=(6, 8, 7), tasks=("pick", "push"))


def test_its_columns_are_shown_as_they_are_stored(folder: Path) -> None:
    with pytest.raises(UndescribedError, match="vla data solve"):
        open_source(folder)
    source = open_to_look(folder)
    np.testing.assert_array_equal(source.column(1, "state")[:3, :2], [[1, 0], [1, 1], [1, 2]])
    np.testing.assert_array_equal(source.column(1, "action")[2], [2, 1, -2])
    assert source.episodes[1].instruction == "push"
    rows = describe(source)
    assert ("episodes", "3 (3 of unknown success)") in rows
    assert ("column", "observation.state [2]") in rows
    assert ("cameras of so100", f"{CAMERA} 64x64") in rows
    assert not any("swapped" in text or "(?)" in text for _, text in rows)
    with pytest.raises(UnknownNameError, match="0 to 2"):
        source.cameras(3)


def test_nothing_learns_from_it(folder: Path, tmp_path: Path) -> None:
    source = open_to_look(folder)
    with pytest.raises((EmbodimentError, UnknownNameError)):
        EpisodeStore.create(tmp_path / "s.zarr", embodiments=source.embodiments.values())
    assert main(["data", "import", str(folder), "--out", str(tmp_path / "o.zarr")]) == 2


def test_its_numbers_can_be_seen(folder: Path, capsys) -> None:
    assert main(["data", "stats", str(folder)]) == 0
    assert "state observation.state[1]" in capsys.readouterr().out


def test_it_is_checked_for_what_needs_no_meaning_and_the_rest_is_named(folder: Path, capsys) -> None:
    source = open_to_look(folder, tolerate_damage=True)
    assert isinstance(source, UndescribedSource)
    assert check(source).left_out.items() >= NEEDS_MEANING.items()
    assert {"odd_frame", "mismatch", "action_late"} == {*check(source).left_out} - {*NEEDS_MEANING} - {
        *("action_early", "opposite_sign", "wrong_scale")
    }
    assert main(["data", "check", str(folder), "--frames", "all"]) == 0
    said = capsys.readouterr()
    assert "not looked for: outlier, episode_outlier" in said.out
    assert "data verify" not in said.out
    assert "nobody says what the columns mean" in said.err


def test_a_missing_video_is_one_finding_and_the_rest_is_checked(folder: Path, tmp_path: Path, capsys) -> None:
    (folder / f"videos/chunk-000/{CAMERA}/episode_000001.mp4").unlink()
    (folder / "data/chunk-000/episode_000002.parquet").write_bytes(b"PAR1")
    answer = main(["data", "check", str(folder), "--json", str(tmp_path / "f.json")])
    assert answer == 1
    found = {f["kind"]: f for f in json.loads((tmp_path / "f.json").read_text())["findings"]}
    assert "episode_000002.parquet" in found["missing"]["message"]
    assert (found["unreadable"]["episode"], found["unreadable"]["where"]) == (1, CAMERA)
    assert "episode_000001.mp4" in found["unreadable"]["message"]
    assert "2 episodes, 14 steps" in capsys.readouterr().out


def test_info_and_view_work_and_view_closes_what_it_opened(folder: Path, tmp_path: Path, capsys, monkeypatch):
    closed = []
    close = UndescribedSource.close
    monkeypatch.setattr(UndescribedSource, "close", lambda self: (closed.append(1), close(self)))
    assert main(["data", "info", str(folder)]) == 0
    assert main(["data", "view", str(folder), "--episode", "1", "--out", str(tmp_path / "v.html")]) == 0
    assert main(["data", "view", str(folder), "--episode", "9"]) == 2
    assert len(closed) == 3
    assert "observation.state" in (tmp_path / "v.html").read_text()


def test_the_size_of_a_store_at_a_url_is_that_of_its_files(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    rng, arm = np.random.default_rng(0), make_arm()
    with EpisodeStore.create(tmp_path / "s.zarr", embodiments=[arm]) as store:
        store.append(make_episode(rng, arm, length=4))
    fsspec.filesystem("memory").put(str(tmp_path / "s.zarr"), "/sized.zarr", recursive=True)
    with EpisodeStore.open("memory://sized.zarr") as there:
        size = dict(describe(there))["size on disk"]
    assert not size.startswith("0.0 MB")
    assert "kB a picture" in size
