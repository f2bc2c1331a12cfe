"""The solver finds conventions that are there, invents none, and refuses where there is nothing to see."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.solve.arm import dataset, motions, robot
from vla.data.mapped import MappedSource
from vla.data.readers.memory import MemoryDataset, MemoryEpisode
from vla.data.solve import solve
from vla.data.solve.joint_action import joints_explain_more
from vla.data.solve.motion import Motion
from vla.data.solve.ranges import with_measured_ranges
from vla.data.solve.tracks import Block, load_tracks
from vla.data.statistics import Normalizer, compute_statistics
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


@pytest.mark.parametrize(
    ("mode", "size", "meant", "unit"),
    [
        ("joint", 1.0, "absolute", "rad"),
        ("joint_delta", 1.0, "delta", "rad/step"),
        ("joint_delta", np.pi / 180, "delta", "deg/step"),
        ("joint_velocity", 1.0, "velocity", "rad/s"),
        ("joint_velocity", np.pi / 180, "velocity", "deg/s"),
    ],
)
def test_the_unit_of_joint_actions_is_found_and_undone(mode, size, meant, unit):
    raw = dataset(MADE, mode=mode, joint_unit=size)
    solution = solve(raw, model=MODEL)
    assert solution.value("joint_action")["mode"] == meant
    assert solution.value("joint_action_unit") == unit
    source = MappedSource(raw, solution.description())
    joints = MADE[3].joints
    wanted = joints[1:] if meant == "absolute" else np.diff(joints, axis=0)
    np.testing.assert_allclose(source.column(3, "action")[:-1, :6], wanted, atol=1e-5)


@pytest.mark.parametrize("size", [0.05, np.array([1.0, 1, 1, 1, 0.1, 1])], ids=["all", "one joint"])
def test_scaled_joint_actions_have_no_unit(size):
    raw = dataset(MADE, mode="joint_delta", joint_unit=size)
    solution = solve(raw, model=MODEL)
    assert solution.answers["joint_action_unit"].refused
    with pytest.raises(DatasetError, match="refused"):
        solution.description()


def test_speeds_of_joints_need_a_rate_to_be_told():
    raw = dataset(MADE, mode="joint_velocity", hz=None, stamps=False)
    assert solve(raw, model=MODEL).value("joint_action_unit") is None


@pytest.mark.parametrize(("mode", "wins"), [("joint_delta", True), ("joint", True), ("delta", False)])
def test_joints_that_carry_the_tool_about_are_not_taken_for_its_moves(mode, wins):
    tracks = load_tracks(dataset(MADE, mode=mode))
    action = Block(column="action", start=0 if mode == "delta" else 3, size=3)
    position = Block(column="state", start=0, size=3)
    tool = Motion(action=action, position=position, mode="delta", frame="world", lag=0, scale=1.0, score=0.53)
    assert joints_explain_more(tracks, Block(column="state", start=7, size=6), tool) == wins


def test_a_first_action_that_is_none_is_skipped_and_said():
    raw = dataset(MADE)
    episodes = []
    for e in raw.episodes:
        columns = {n: np.array(raw.column(e.index, n)) for n in raw.columns}
        columns["action"][0, :6] = 0
        episodes.append(MemoryEpisode(columns=columns, time_s=raw.time_s(e.index), instruction="do it"))
    description = solve(MemoryDataset(episodes, control_hz=10.0), model=MODEL).description()
    assert description.skip_first == 1
    assert "first action is zero" in description.evidence["skip_first"]["evidence"]
    clean = solved().description()
    assert clean.skip_first == 0
    assert "skip_first" not in clean.evidence


def test_ranges_are_those_of_the_data_and_say_so():
    description = solved().description()
    assert description.ranges == "measured"
    members = {f.name: f for f in (*description.embodiment.state, *description.embodiment.action)}
    position, step = members["tcp_position"], members["tcp_position_delta"]
    seen = np.concatenate([m.position for m in MADE])
    assert (np.array(position.low) < seen.min(axis=0)).all()
    assert (np.array(position.high) > seen.max(axis=0)).all()
    assert np.max(position.high) < 1.2 * seen.max()
    assert step.low == tuple(-x for x in step.high)
    largest = np.abs(np.concatenate([np.diff(m.position, axis=0) for m in MADE])).max(axis=0)
    assert (np.array(step.high) > largest).all()
    assert (np.array(step.high) < 1.2 * largest).all()


def test_an_outlier_does_not_widen_the_ranges():
    raw = dataset(MADE)
    episodes = []
    for e in raw.episodes:
        columns = {n: np.array(raw.column(e.index, n)) for n in raw.columns}
        columns["action"][3, 0] *= 1000 if e.index == 2 else 1
        episodes.append(MemoryEpisode(columns=columns, time_s=raw.time_s(e.index), instruction="do it"))
    known = solved().description()
    measured = with_measured_ranges(MemoryDataset(episodes, control_hz=10.0), known)
    assert measured.embodiment.action[0].high[0] < 8 * known.embodiment.action[0].high[0]


def test_noise_on_an_entry_that_rests_is_not_its_range():
    rng, raw = np.random.default_rng(0), dataset(MADE)
    episodes = []
    for e in raw.episodes:
        columns = {n: np.array(raw.column(e.index, n)) for n in raw.columns}
        columns["action"][:, 5] = 1e-9 * rng.normal(size=e.length)
        episodes.append(MemoryEpisode(columns=columns, instruction="do it"))
    measured = with_measured_ranges(MemoryDataset(episodes, control_hz=10.0), solved().description())
    turn = measured.embodiment.action[1]
    assert turn.high[2] > 0.04 * max(turn.high)
    source = MappedSource(MemoryDataset(episodes, control_hz=10.0), measured)
    scaled = Normalizer(source.embodiments, compute_statistics(source), action_mode="quantile")
    arm = measured.embodiment
    assert np.abs(scaled.normalise_action(arm.name, source.column(0, "action"))[:, 5]).max() < 1e-3


@pytest.mark.parametrize(
    "question", ["control_hz", "action_lag", "action_mode", "action_frame", "action_unit", "action_position"]
)
def test_null_for_what_every_data_set_has_is_refused(question):
    solution = solve(dataset(MADE), model=MODEL, given={question: None})
    with pytest.raises(DatasetError, match=f"{question}' was given as null"):
        solution.description()


@pytest.mark.parametrize("question", ["position", "rotation", "gripper_state", "gripper_action", "joints"])
def test_null_leaves_out_what_a_data_set_may_lack(question):
    solution = solve(dataset(MADE), model=MODEL, given={question: None})
    arm = solution.description().embodiment
    fields = {"position": "tcp_position", "rotation": "tcp_rotation", "gripper_state": "gripper_opening",
              "gripper_action": "gripper", "joints": "joint_position"}  # fmt: skip
    of = arm.action if question == "gripper_action" else arm.state
    assert fields[question] not in [f.name for f in of]


def test_joints_cannot_be_absent_where_the_action_moves_them():
    solution = solve(dataset(MADE, mode="joint_delta"), model=MODEL, given={"joints": None})
    with pytest.raises(DatasetError, match="joints' was given as null"):
        solution.description()


def test_null_for_a_joint_action_asks_for_the_tools():
    solution = solve(dataset(MADE, mode="joint_delta"), model=MODEL, given={"joint_action": None})
    with pytest.raises(DatasetError, match="action_position"):
        solution.description()


@pytest.mark.parametrize(
    ("question", "value"),
    [("control_hz", "five"), ("action_lag", -1), ("position", "state"), ("gripper_action", {"column": "a"})],
)
def test_given_answers_of_the_wrong_kind_are_refused(question, value):
    with pytest.raises(DatasetError, match=f"answer to '{question}'"):
        solve(dataset(MADE), model=MODEL, given={question: value}).description()


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


@pytest.mark.parametrize("num_joints", [3, 6, 7])
@pytest.mark.parametrize("absolute", [False, True], ids=["changes", "targets"])
def test_joints_are_not_taken_for_a_position_without_a_robot_model(num_joints, absolute):
    rng, episodes = np.random.default_rng(0), []
    for _ in range(20):
        phase, speed = rng.uniform(0, 6, num_joints), rng.uniform(3, 9, num_joints)
        joints = 0.5 * np.sin(speed * np.arange(40)[:, None] / 40 + phase)
        after = np.vstack([joints[1:], joints[-1:]])
        action = after if absolute else after - joints
        episodes.append(MemoryEpisode(columns={"xyz": joints, "action": action}))
    solution = solve(MemoryDataset(episodes, control_hz=10.0))
    assert {q for q, a in solution.answers.items() if not a.refused} == {"control_hz"}


def test_an_arm_at_rest_or_three_steps_show_nothing_without_a_robot_model():
    still = solve(dataset(motions(num=6, size=0.0), joints=False))
    assert still.value("position") is None
    assert still.value("action_position") is None
    with pytest.raises(DatasetError, match="episode of 4 steps"):
        solve(dataset(motions(num=1, length=3)))


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
