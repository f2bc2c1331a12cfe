"""Where the data do not say enough a person is left a file to fill in; a rate stated once is no proof."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.solve.arm import dataset, motions, robot
from vla.cli.main import main
from vla.data.description import DatasetDescription
from vla.data.readers.memory import MemoryDataset, MemoryEpisode
from vla.data.solve import solve
from vla.data.solve.draft import read_given
from vla.errors import DatasetError
from vla.text import MAX_COLUMNS

MADE = motions()
DOCUMENT = Path(__file__).parents[3] / "docs/solver.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set that cannot be solved without a robot model."""
    (tmp_path / "d").mkdir()
    monkeypatch.setattr("vla.data.readers.open_raw", lambda path, **_: dataset(MADE, mode="joint_delta"))
    return tmp_path / "d"


def solve_it(*flags: object) -> int:
    return main(["data", "solve", *map(str, flags)])


def test_what_is_missing_stands_marked_in_a_draft_and_no_embodiment_file_is_written(
    folder: Path, capsys
) -> None:
    assert solve_it(folder, "--write") == 1
    assert [path.name for path in folder.iterdir()] == ["embodiment.draft.json"]
    draft = json.loads((folder / "embodiment.draft.json").read_text())
    missing = [question for question, value in draft.items() if value == "?"]
    assert missing
    assert set(missing) == set(draft["_refused"])
    assert draft["control_hz"] == 10.0
    assert "wrote the draft" in capsys.readouterr().out
    assert solve_it(folder, "--answers", folder / "embodiment.draft.json") == 2
    said = capsys.readouterr().err
    assert "still to be answered" in said
    assert all(question in said for question in missing)


def test_a_filled_in_draft_gives_the_embodiment_file_wherever_it_is_wanted(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "elsewhere.json"
    assert solve_it(folder, "--out", out) == 1
    draft = tmp_path / "elsewhere.draft.json"
    content = json.loads(draft.read_text())
    filled = {q: v for q, v in content.items() if v != "?"} | {
        "joints": {"column": "state", "start": 7, "size": 6}, "joint_unit": "rad", "action_lag": 0,
        "joint_action": {"column": "action", "start": 0, "size": 6, "mode": "delta"},
        "joint_action_unit": "rad/step",
    }  # fmt: skip
    draft.write_text(json.dumps(filled))
    assert solve_it(folder, "--answers", draft, "--out", out) == 0
    assert DatasetDescription.load(out).embodiment.control_hz == 10.0
    assert list(folder.iterdir()) == []
    assert solve_it(folder, "--answers", draft, "--out", out) == 2  # never written over


def test_a_place_that_cannot_be_written_is_said(folder: Path, capsys) -> None:
    assert solve_it(folder, "--out", folder / "no" / "such" / "folder" / "e.json") in (1, 2)
    said = capsys.readouterr()
    assert "wrote the draft" in said.out or "--out" in said.err


def test_a_rate_that_one_source_states_is_passed_on_and_not_sure() -> None:
    alone = solve(dataset(MADE, stamps=False), model=None).answers["control_hz"]
    both = solve(dataset(MADE), model=None).answers["control_hz"]
    assert (alone.value, alone.confidence) == (10.0, pytest.approx(0.6))
    assert "nothing confirms it" in alone.evidence
    assert both.confidence > 0.8


def test_time_stamps_that_were_made_from_the_rate_confirm_nothing() -> None:
    raw = dataset(MADE)
    raw.format = "lerobot_v3"
    assert solve(raw).answers["control_hz"].confidence == pytest.approx(0.6)
    contradicted = dataset(MADE, hz=20.0)
    contradicted.format = "lerobot_v3"
    assert "contradict" in solve(contradicted).answers["control_hz"].refused


def test_a_published_layout_needs_no_answers_and_is_compared(folder: Path, monkeypatch, capsys) -> None:
    said = "no answers are needed"
    solve_it(folder)
    assert said not in capsys.readouterr().out
    known = solve(dataset(MADE), model=robot()).description()
    monkeypatch.setattr("vla.data.readers.known.known_description", lambda raw: known)
    assert solve_it(folder) == 0
    assert said in capsys.readouterr().out
    wrong = replace(known, embodiment=replace(known.embodiment, control_hz=5.0))
    monkeypatch.setattr("vla.data.readers.known.known_description", lambda raw: wrong)
    assert solve_it(folder) == 1
    assert "CONTRADICTED: control_hz" in capsys.readouterr().out


def documented_answers() -> str:
    (answers,) = re.findall(r"^```json\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    return answers


def test_the_answers_that_the_manual_shows_make_an_embodiment_file(tmp_path: Path) -> None:
    (tmp_path / "known.json").write_text(documented_answers())
    raw = dataset(MADE)
    columns = {"observation.state": "state", "action": "action"}
    episodes = [
        MemoryEpisode(
            columns={new: raw.column(e.index, old) for new, old in columns.items()},
            pictures={"observation.images.side": np.zeros((e.length, 8, 8, 3), np.uint8)},
            instruction="do it",
        )
        for e in raw.episodes
    ]
    solution = solve(MemoryDataset(episodes), given=read_given(tmp_path / "known.json"))
    arm = solution.description().embodiment
    assert [f.name for f in arm.action] == ["tcp_position_delta", "gripper"]
    assert (arm.control_hz, arm.cameras) == (5.0, ())


def test_what_is_printed_fits_the_page_and_says_each_reason_once(folder: Path, capsys) -> None:
    assert solve_it(folder) == 1
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= MAX_COLUMNS
    assert said.count("no robot model was given") == 1
    assert "joints, joint_unit: no robot model was given" in said


def test_the_draft_says_how_each_answer_is_written_and_others_are_refused(folder: Path, capsys) -> None:
    solve_it(folder, "--write")
    path = folder / "embodiment.draft.json"
    draft = json.loads(path.read_text())
    assert set(draft["_how_to_answer"]) == {q for q, value in draft.items() if value == "?"}
    assert draft["_how_to_answer"]["action_mode"] == "delta | absolute | velocity"
    path.write_text(json.dumps({"action_mode": "relative"}))
    assert solve_it(folder, "--answers", path) == 2
    assert "'relative', expected delta | absolute | velocity" in capsys.readouterr().err


def test_the_gripper_is_told_by_which_side_is_closed_and_why() -> None:
    said = solve(dataset(MADE), model=robot()).answers["gripper_action"].evidence
    assert "side is closed: of" in said
    assert "100 % begin" in said


def test_data_that_are_too_short_are_said_to_be() -> None:
    short = MemoryDataset([MemoryEpisode(columns={"state": np.zeros((2, 3)), "action": np.zeros((2, 3))})])
    with pytest.raises(DatasetError, match="has no episode of 4 steps that can be studied"):
        solve(short)


def test_an_embodiment_file_beside_the_data_is_compared_and_nothing_is_asked(folder: Path, capsys) -> None:
    known = solve(dataset(MADE, mode="joint_delta"), model=robot()).description()
    known.save(folder / "embodiment.json")
    assert solve_it(folder) == 0
    said = capsys.readouterr().out
    assert "already says what the columns mean" in said
    assert "--answers" not in said
    replace(known, embodiment=replace(known.embodiment, control_hz=5.0)).save(folder / "embodiment.json")
    assert solve_it(folder) == 1
    assert "CONTRADICTED: control_hz" in capsys.readouterr().out
