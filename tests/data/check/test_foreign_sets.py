"""Sets of other formats that are damaged, contradict themselves, or say that their actions are held."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import h5py
import numpy as np
import pytest

from tests.data.lerobot_worlds import edit_table, write_v21
from tests.data.test_hdf5 import write_robomimic
from tests.data.worlds import make_arm, make_episode
from vla.cli.main import main
from vla.data.check import CheckConfig, check
from vla.data.exporting import export_lerobot
from vla.data.fix import FixConfig, fix
from vla.data.readers import open_source
from vla.data.store import EpisodeStore
from vla.errors import ConfigError, DatasetError

NUMBERS = CheckConfig(frames="none")


def cut_short(folder: Path, pattern: str) -> None:
    for path in folder.rglob(pattern):
        path.write_bytes(path.read_bytes()[:200])


@pytest.fixture
def v3(tmp_path: Path) -> Path:
    rng, arm = np.random.default_rng(0), make_arm()
    with EpisodeStore.create(tmp_path / "s.zarr", embodiments=[arm]) as store:
        for text in ("reach the red square", "reach the blue square", "todo"):
            store.append(make_episode(rng, arm, length=8, instruction=text))
        export_lerobot(store, tmp_path / "v3")
    return tmp_path / "v3"


def checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, list[dict]], str]:
    """Exit code, findings by kind, and what was printed as an error."""
    out = folder.parent / "found.json"
    code = main(["data", "check", str(folder), "--json", str(out), "--html", str(out.with_suffix(".html"))])
    kinds: dict[str, list[dict]] = {}
    for finding in json.loads(out.read_text())["findings"]:
        kinds.setdefault(finding["kind"], []).append(finding)
    return code, kinds, capsys.readouterr().err


@pytest.mark.parametrize("damage", [lambda f: cut_short(f, "*.parquet"), lambda f: shutil.rmtree(f / "data")])
def test_a_set_that_cannot_be_opened_gets_a_page_with_that_fault_and_exit_code_2(
    damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_v21(tmp_path / "d")
    damage(folder)
    code, kinds, error = checked(folder, capsys)
    assert (code, list(kinds)) == (2, ["missing"])
    assert "Every episode of" in kinds["missing"][0]["message"]
    assert "Every episode of" in (tmp_path / "found.html").read_text()
    assert "skip" not in error
    assert "--cameras" not in error


def test_a_store_without_a_readable_header_gets_a_page_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EpisodeStore.create(tmp_path / "s.zarr", embodiments=[make_arm()]) as store:
        store.append(make_episode(np.random.default_rng(0), make_arm(), length=4))
    (tmp_path / "s.zarr/zarr.json").write_text("{")
    code, kinds, _ = checked(tmp_path / "s.zarr", capsys)
    assert (code, list(kinds)) == (2, ["missing"])


def test_advice_is_given_once_and_of_cameras_where_videos_are_damaged(tmp_path: Path) -> None:
    folder = write_v21(tmp_path / "d")
    cut_short(folder, "*.mp4")
    with pytest.raises(DatasetError, match="--cameras") as refused:
        open_source(folder, tolerate_damage=False)
    assert str(refused.value).count("--skip-damaged") == 1
    with pytest.raises(DatasetError, match="--cameras") as refused:
        open_source(folder, skip_damaged=True)
    assert "--skip-damaged" not in str(refused.value)


def test_an_unreadable_video_hides_no_other_fault(v3: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut_short(v3 / "videos/observation.images.front", "*.mp4")
    code, kinds, _ = checked(v3, capsys)
    assert code == 1
    assert {(f["episode"], f["where"]) for f in kinds["unreadable"]} == {(i, "front") for i in range(3)}
    assert [f["episode"] for f in kinds["odd_instruction"]] == [2]
    source = open_source(v3, tolerate_damage=True, to_look=True)
    with pytest.raises(ConfigError, match="--cameras with the others alone"):
        fix(source, v3.parent / "fixed", FixConfig(restamp=True))


def test_tasks_that_contradict_all_episodes_are_findings(
    v3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_table(v3 / "meta/tasks.parquet", task=[f"other {i}" for i in range(3)])
    code, kinds, _ = checked(v3, capsys)
    assert code == 1
    assert len(kinds["missing"]) == 3
    assert all("tasks.parquet: task_index" in f["message"] for f in kinds["missing"])
    with pytest.raises(DatasetError, match="Every episode"):
        open_source(v3, skip_damaged=True)


def test_actions_that_the_layout_holds_are_one_note(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "lift.hdf5", lengths=(30, 30))
    with h5py.File(path, "r+") as file:
        for number in (2, 10):
            actions = cast(h5py.Dataset, file[f"data/demo_{number}/actions"])
            actions[3:9, 0] = 1.7
    kinds = check(open_source(path, instruction="lift it"), NUMBERS).kinds
    assert "action_out_of_range" not in kinds
    (note,) = kinds["held_action"]
    assert note.severity == "note"
    assert "12 of 60 actions lie beyond the range and were executed at its end" in note.message
