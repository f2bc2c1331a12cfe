"""The solver finds conventions that are there, invents none, and refuses where there is nothing to see."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.solve.arm import dataset, motions, robot
from vla.data.mapped import MappedSource
from vla.data.readers.memory import MemoryDataset, MemoryEpisode
from vla.data.solve import solve
from vla.errors import DatasetError, UnknownNameError

MADE = motions()
MODEL = robot()


def solved(**changes):
    return solve(dataset(MADE, **changes), model=MODEL)


def test_nothing_is_invented_on_clean_data():
    solution = solved()
    assert solution.value("position") == {
        "column": "state",
        "start": 0,
        "axes": [0, 1, 2],
        "signs": [1, 1, 1],
    }
    assert solution.value("rotation") == {"column": "state", "start": 3, "format": "quat_xyzw"}
    assert solution.value("joints") == {"column": "state", "start": 7, "size": 6}
    units = ("position_unit", "rotation_unit", "joint_unit", "action_unit", "action_rotation_unit")
    assert [solution.value(q) for q in units] == ["m", "rad", "rad", "m/step", "rad/step"]
    moves = ("action_mode", "action_frame", "action_lag", "control_hz")
    assert [solution.value(q) for q in moves] == ["delta", "world", 0, 10.0]
    assert solution.value("gripper_action") == {"column": "action", "start": 6, "open": -1.0, "closed": 1.0}
    assert solution.value("gripper_state")["open"] > solution.value("gripper_state")["closed"]
    assert solution.refused == ()


@pytest.mark.parametrize(
    "written", ["quat_wxyz", "rotvec", "euler_xyz", "euler_zyx", "euler_XYZ", "euler_ZYX"]
)
def test_the_rotation_format_of_the_state_is_found(written):
    assert solved(rotation=written).value("rotation")["format"] == written


def test_degrees_are_found_in_rotations_and_joints():
    solution = solved(rotation="euler_xyz", angle=np.pi / 180, joint_angle=np.pi / 180)
    assert (solution.value("rotation_unit"), solution.value("joint_unit")) == ("deg", "deg")


def test_millimetres_are_found():
    solution = solved(length=1e-3, action_length=1e-3)
    assert (solution.value("position_unit"), solution.value("action_unit")) == ("mm", "mm/step")


def test_swapped_axes_are_found():
    assert solved(axes=(1, 0, 2)).value("position")["axes"] == [1, 0, 2]


@pytest.mark.parametrize("mode", ["absolute", "velocity"])
def test_what_the_action_means_is_found(mode):
    assert solved(mode=mode).value("action_mode") == mode


def test_the_tool_frame_is_found():
    assert solved(frame="tool").value("action_frame") == "tool"


@pytest.mark.parametrize("lag", [1, 3])
def test_late_actions_are_found(lag):
    assert solved(lag=lag).value("action_lag") == lag


def test_inverted_grippers_are_found():
    solution = solved(gripper=-1.0, command=-1.0)
    assert solution.value("gripper_action")["open"] == 1.0
    assert solution.value("gripper_state")["open"] < solution.value("gripper_state")["closed"]


def test_contradicting_rates_are_refused():
    assert "contradict" in solved(hz=20.0).answers["control_hz"].refused


def test_no_rate_is_refused():
    assert solved(hz=None, stamps=False).value("control_hz") is None


def test_the_action_shows_position_and_rotation_without_a_robot_model():
    raw = dataset(MADE, rotation="euler_xyz", joints=False, lag=1)
    solution = solve(raw)
    assert solution.value("position")["start"] == 0
    assert solution.value("rotation") == {"column": "state", "start": 3, "format": "euler_xyz"}
    assert (solution.value("action_mode"), solution.value("action_lag")) == ("delta", 1)


def test_an_arm_at_rest_shows_nothing():
    solution = solve(dataset(motions(size=0.0)), model=MODEL)
    for question in ("position", "rotation", "action_mode", "action_frame"):
        assert solution.value(question) is None


def test_a_few_steps_are_not_enough():
    solution = solve(dataset(motions(num=1, length=6)), model=MODEL)
    for question in ("joints", "rotation", "action_lag", "gripper_action"):
        assert solution.value(question) is None


def test_noise_shows_nothing():
    rng = np.random.default_rng(0)
    noise = [
        MemoryEpisode(columns={"state": rng.normal(size=(50, 14)), "action": rng.normal(size=(50, 7))})
        for _ in range(10)
    ]
    for model in (None, MODEL):
        solution = solve(MemoryDataset(noise, control_hz=10.0), model=model)
        assert {q for q, a in solution.answers.items() if not a.refused} == {"control_hz"}


def test_the_embodiment_file_undoes_what_was_planted():
    raw = dataset(MADE, rotation="quat_wxyz", length=1e-3, axes=(1, 0, 2), lag=2, gripper=-1.0, command=-1.0)
    source = MappedSource(raw, solve(raw, model=MODEL).description())
    arm, truth = next(iter(source.embodiments.values())), MADE[3]
    state, action, steps = source.column(3, "state"), source.column(3, "action"), source.episodes[3].length
    assert steps == len(truth.position) - 2
    np.testing.assert_allclose(state[:, :3], truth.position[:steps], atol=1e-5)
    turned = state[:, arm.field_slice("tcp_rotation", of="state")]
    np.testing.assert_allclose(turned[:, :3], truth.turned.as_matrix()[:steps, :, 0], atol=1e-5)
    np.testing.assert_allclose(action[:-1, :3], np.diff(truth.position, axis=0)[: steps - 1], atol=1e-5)
    np.testing.assert_allclose(action[:, -1], truth.command[:steps])


def test_the_embodiment_file_turns_moves_out_of_the_tool_frame():
    raw = dataset(MADE, frame="tool")
    source = MappedSource(raw, solve(raw, model=MODEL).description())
    np.testing.assert_allclose(
        source.column(0, "action")[:-1, :3], np.diff(MADE[0].position, axis=0), atol=1e-5
    )


def test_refused_answers_are_listed_and_can_be_given():
    raw = dataset(MADE, hz=None, stamps=False)
    with pytest.raises(DatasetError, match="control_hz"):
        solve(raw, model=MODEL).description()
    assert solve(raw, model=MODEL, given={"control_hz": 5.0}).description().embodiment.control_hz == 5.0


def test_an_answer_to_no_question_raises():
    with pytest.raises(UnknownNameError, match="control_hz"):
        solve(dataset(MADE), model=MODEL, given={"control_rate": 5.0})


def test_data_without_actions_are_refused_politely():
    raw = MemoryDataset([MemoryEpisode(columns={"states": np.zeros((9, 5))})])
    with pytest.raises(DatasetError, match="no action column"):
        solve(raw)


def test_every_answer_has_evidence_or_a_reason():
    for answer in solved().answers.values():
        assert answer.evidence or answer.refused
    assert "euler" not in solved().table()


def test_columns_that_are_not_finite_say_nothing():
    clean = dataset(MADE)
    holes = [
        MemoryEpisode(
            columns={
                **{name: clean.column(e.index, name) for name in clean.columns},
                "labels": np.full((e.length, 3), np.nan),
            },
            time_s=clean.time_s(e.index),
        )
        for e in clean.episodes
    ]
    solution = solve(MemoryDataset(holes, control_hz=clean.control_hz), model=MODEL)
    assert solution.value("position") == solved().value("position")
    assert solution.value("rotation") == solved().value("rotation")
