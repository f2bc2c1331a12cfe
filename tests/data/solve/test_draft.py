"""Where the data do not say enough a person is left a file to fill in; a rate stated once is no proof."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.solve.arm import dataset, motions
from vla.cli.main import main
from vla.data.description import DatasetDescription
from vla.data.solve import solve

MADE = motions()


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


def test_a_published_layout_is_said_to_need_no_answers(folder: Path, monkeypatch, capsys) -> None:
    said = "no answers are needed"
    solve_it(folder)
    assert said not in capsys.readouterr().out
    monkeypatch.setattr("vla.data.readers.known.known_description", lambda raw: object())
    solve_it(folder)
    assert said in capsys.readouterr().out


def test_the_answers_that_the_manual_shows_make_an_embodiment_file() -> None:
    given = {
        "position": {"column": "state", "start": 0}, "position_unit": "m",
        "rotation": {"column": "state", "start": 3, "format": "quat_xyzw"}, "rotation_unit": "rad",
        "action_position": {"column": "action", "start": 0}, "action_mode": "delta", "action_frame": "world",
        "action_lag": 0, "action_unit": "m/step", "action_rotation": None,
        "gripper_action": {"column": "action", "start": 6, "open": -1, "closed": 1}, "gripper_state": None,
    }  # fmt: skip
    arm = solve(dataset(MADE), given=given).description().embodiment
    assert [f.name for f in arm.action] == ["tcp_position_delta", "gripper"]
