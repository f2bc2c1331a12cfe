"""A change in one unit and a speed in another may be the same numbers: such twins are settled or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.data.solve.arm import HZ, changed, dataset, motions, robot
from vla.data.mapped import MappedSource
from vla.data.readers.memory import MemoryDataset, MemoryEpisode
from vla.data.solve import Solution, solve
from vla.data.solve.draft import write_draft
from vla.data.solve.kinematics import LENGTH_UNITS
from vla.data.solve.units import ANGLES, Rate, fit_units
from vla.errors import DatasetError

MADE = motions()
MODEL = robot()
TWINS = ("action_mode", "action_unit")
CM_PER_S = {"mode": "velocity", "action_length": 1e-2}
MM = {"action_length": 1e-3}
CHANGES = {"column": "action", "start": 0, "size": 6, "mode": "delta"}
JOINT_DEGREES = {"mode": "joint_delta", "joint_unit": np.pi / 180, "stamps": False}


def without_turns(hz: float | None = HZ, **changes: Any) -> MemoryDataset:
    """Demonstrations whose action moves the tool and the gripper alone."""
    raw, episodes = dataset(MADE, **changes), []
    for e in raw.episodes:
        action = np.delete(np.array(raw.column(e.index, "action")), slice(3, 6), axis=1)
        columns = {"state": raw.column(e.index, "state"), "action": action}
        episodes.append(MemoryEpisode(columns=columns, instruction="do it"))
    return MemoryDataset(episodes, control_hz=hz)


def solved(raw: MemoryDataset, **given: Any) -> Solution:
    return solve(raw, model=MODEL, given=given)


def values(solution: Solution, questions: tuple[str, ...] = TWINS) -> list[Any]:
    return [solution.value(question) for question in questions]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [(CM_PER_S, ["velocity", "cm/s", "rad/s"]), (MM, ["delta", "mm/step", "rad/step"])],
    ids=["cm/s", "mm/step"],
)
def test_what_turns_the_tool_tells_a_speed_from_a_change(changes, wanted):
    solution = solved(dataset(MADE, **changes))
    assert values(solution, (*TWINS, "action_rotation_unit")) == wanted
    assert "fit alike, but turns" in solution.answers["action_mode"].evidence


def scaled(raw: MemoryDataset, **divisors: float) -> MemoryDataset:
    """The same with move and turn of the action divided by scales of somebody's own."""
    by = np.ones(raw.columns["action"].size)
    by[:3], by[3:6] = divisors.get("move", 1.0), divisors.get("turn", 1.0)
    return changed(raw, lambda state, action: (state, action / by))


@pytest.mark.parametrize(
    ("changes", "turn"), [(MM, 0.07), (MM, 0.08), (MM, 0.12), (MM, 0.15), (MM, 0.19), (CM_PER_S, 0.6)]
)
def test_turns_of_a_scale_of_their_own_settle_no_twins(changes, turn):
    solution = solved(scaled(dataset(MADE, **changes), turn=turn))
    assert values(solution, (*TWINS, "action_rotation_unit")) == [None] * 3
    assert "fit alike" in solution.answers["action_unit"].refused


@pytest.mark.parametrize(("move", "turn"), [(0.08, 0.07), (0.3, 0.5), (0.03, 0.15)])
def test_scaled_numbers_fit_no_unit(move, turn):
    solution = solved(scaled(dataset(MADE), move=move, turn=turn))
    assert values(solution, ("action_unit", "action_rotation_unit")) == [None, None]
    assert solution.value("action_position") is not None


def test_numbers_that_end_at_one_are_no_metres_a_second():
    raw = dataset(MADE)
    largest = max(np.abs(raw.column(e.index, "action")[:, :3]).max() for e in raw.episodes)
    fit = fit_units(0.05, LENGTH_UNITS, Rate(hz=20.0, sure=1.0), "said")
    assert fit.only is not None  # exactly 1 m/s at 20 Hz ...
    assert fit_units(0.05, LENGTH_UNITS, Rate(hz=20.0, sure=1.0), "said", largest=1.0).only is None
    assert largest < 0.9  # ... as these numbers are


@pytest.mark.parametrize("degrees", [15, 45, 90])
@pytest.mark.parametrize("axis", ["x", "z"])
def test_axes_that_are_turned_against_the_states_are_refused(degrees, axis):
    turn = Rotation.from_euler(axis, degrees, degrees=True)

    def mounted(state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turned = np.hstack([turn.apply(action[:, :3]), turn.apply(action[:, 3:6])])
        return state, np.hstack([turned, action[:, 6:]])

    solution = solved(changed(dataset(MADE), mounted))
    assert values(solution, ("action_position", "action_frame", "action_unit")) == [None] * 3
    if degrees < 90:
        assert f"turned by {degrees} degrees" in solution.answers["action_position"].refused


def test_speeds_in_cm_are_undone():
    raw = dataset(MADE, **CM_PER_S)
    source = MappedSource(raw, solved(raw).description())
    wanted = np.diff(MADE[2].position, axis=0)
    np.testing.assert_allclose(source.column(2, "action")[:-1, :3], wanted, atol=1e-5)


@pytest.mark.parametrize("changes", [CM_PER_S, MM], ids=["cm/s", "mm/step"])
def test_twins_that_nothing_settles_are_refused_by_name(changes):
    solution = solved(without_turns(**changes))
    assert values(solution) == [None, None]
    for question in TWINS:
        why = solution.answers[question].refused
        assert "delta in mm/step" in why
        assert "velocity in cm/s at 10 Hz" in why
        assert '{"action_unit": "cm/s"} with --answers' in why or '{"action_unit": "mm/step"} with' in why
    assert solution.value("action_position") is not None


@pytest.mark.parametrize(
    ("question", "value", "wanted"),
    [
        ("action_unit", "cm/s", ["velocity", "cm/s"]),
        ("action_unit", "mm/step", ["delta", "mm/step"]),
        ("action_mode", "velocity", ["velocity", "cm/s"]),
        ("action_mode", "delta", ["delta", "mm/step"]),
        ("action_rotation_unit", "rad/s", ["velocity", "cm/s"]),
        ("control_hz", 50.0, ["delta", "mm/step"]),
    ],
)
def test_one_answer_settles_twins(question, value, wanted):
    assert values(solved(without_turns(**MM), **{question: value})) == wanted


def test_the_draft_asks_for_both(tmp_path: Path):
    path = tmp_path / "draft.json"
    assert set(TWINS) <= set(write_draft(solved(without_turns(**CM_PER_S)), path))
    assert "fit alike" in json.loads(path.read_text())["_refused"]["action_unit"]


def test_answers_that_contradict_each_other_raise():
    with pytest.raises(DatasetError, match=r"action_mode 'delta' .*action_unit 'cm/s'"):
        solved(without_turns(**MM), action_mode="delta", action_unit="cm/s")


def test_twins_in_joint_space_are_refused_and_settled_by_an_answer():
    raw = dataset(MADE, **JOINT_DEGREES, hz=50.0)
    solution = solved(raw)
    assert values(solution, ("joint_action", "joint_action_unit")) == [None, None]
    assert "delta in deg/step and velocity in rad/s at 50 Hz" in solution.answers["joint_action"].refused
    with pytest.raises(DatasetError, match="joint_action, joint_action_unit: delta in"):
        solution.description()
    settled = solved(raw, joint_action_unit="rad/s")
    assert settled.value("joint_action")["mode"] == "velocity"
    assert settled.description().embodiment.control_hz == 50.0
    assert solved(raw, joint_action=CHANGES).value("joint_action_unit") == "deg/step"


@pytest.mark.parametrize(("hz", "wanted"), [(10.0, "deg/step"), (None, None)])
def test_changes_of_joints_in_degrees_take_a_rate_to_be_told(hz, wanted):
    assert solved(dataset(MADE, **JOINT_DEGREES, hz=hz)).value("joint_action_unit") == wanted


def test_an_answer_that_takes_the_rate_is_no_surer_than_the_rate():
    stated_alone = solved(dataset(MADE, mode="velocity", stamps=False))
    sure = stated_alone.answers["control_hz"].confidence
    assert sure < 0.7
    assert [stated_alone.answers[q].confidence for q in TWINS] == [sure, sure]
    metres = solved(dataset(MADE, stamps=False))
    assert min(metres.answers[q].confidence for q in TWINS) > 0.9


def test_without_a_rate_only_changes_that_no_speed_resembles_are_found():
    assert values(solved(without_turns(hz=None))) == ["delta", "m/step"]
    solution = solved(without_turns(hz=None, **MM))
    assert values(solution) == [None, None]
    assert "velocity in cm/s at 10 Hz" in solution.answers["action_unit"].refused


def test_the_unit_of_a_speed_is_not_read_off_without_a_rate():
    solution = solved(without_turns(hz=None, mode="velocity"), action_mode="velocity")
    assert "without control_hz" in solution.answers["action_unit"].refused


@pytest.mark.parametrize("slow", [1.0, 0.9])
@pytest.mark.parametrize("hz", [3.0, 5.0, 10.0, 15.0, 20.0, 30.0])
def test_speeds_in_metres_have_no_twin_at_usual_rates(hz, slow):
    only = fit_units(slow / hz, LENGTH_UNITS, Rate(hz=hz, sure=1.0), "").only
    assert only is not None
    assert only.unit == "m/s"


@pytest.mark.parametrize(
    ("units", "gain", "hz", "twins"),
    [
        (LENGTH_UNITS, 1e-2, 100.0, {"cm/step", "m/s"}),
        (LENGTH_UNITS, 1e-3, 15.0, {"mm/step", "cm/s"}),
        (ANGLES, np.pi / 180, 60.0, {"deg/step", "rad/s"}),
        (ANGLES, 1.0, 1.0, {"rad/step", "rad/s"}),
    ],
)
def test_units_that_meet_at_a_rate_are_twins(units, gain, hz, twins):
    fit = fit_units(gain, units, Rate(hz=hz, sure=1.0), "")
    assert {meaning.unit for meaning in fit.alike} == twins
    assert fit.only is None
