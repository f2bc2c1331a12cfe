"""What looks like a convention and is none is refused, with the reason; what is given is gone on from."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.data.solve.arm import HZ, changed, dataset, motions, robot
from vla.data.readers.memory import MemoryDataset, MemoryEpisode
from vla.data.solve import Solution, solve
from vla.errors import DatasetError, UnknownNameError

MADE = motions()
MODEL = robot()
ARM = {"action_position", "action_mode", "action_frame", "action_unit", "action_rotation"}
GRIPPER = {"gripper_action", "gripper_state"}


def answered(solution: Solution) -> set[str]:
    return {q for q, a in solution.answers.items() if not a.refused}


def reason(solution: Solution, question: str) -> str:
    return solution.answers[question].refused


def ends(count: int) -> np.ndarray:
    return (np.arange(count) >= count - 3).astype(float)


@pytest.mark.parametrize("model", [None, MODEL], ids=["alone", "model"])
def test_a_flag_at_the_end_is_no_gripper(model):
    raw = changed(dataset(MADE), lambda s, a: (s[:, :-1], np.column_stack([a[:, :-1], ends(len(a))])))
    solution = solve(raw, model=model)
    assert not GRIPPER & answered(solution)
    assert "at the ends of episodes" in reason(solution, "gripper_action")


def test_a_flag_at_the_end_does_not_hide_the_gripper():
    solution = solve(
        changed(dataset(MADE), lambda s, a: (s, np.column_stack([ends(len(a)), a]))), model=MODEL
    )
    assert solution.value("gripper_action")["start"] == 7


def test_an_entry_that_switches_and_moves_nothing_is_no_gripper():
    solution = solve(changed(dataset(MADE), lambda s, a: (s[:, :-1], a)), model=MODEL)
    assert not GRIPPER & answered(solution)
    assert "a flag looks the same" in reason(solution, "gripper_action")


def test_a_joint_that_goes_along_with_the_gripper_is_not_its_state():
    def along(state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slow = np.sin(np.pi * (np.arange(len(state)) / len(state) - 0.5))
        return np.column_stack([state[:, :-1], slow]), action

    solution = solve(changed(dataset(MADE), along), model=MODEL)
    assert "best correlation 0.8" in solution.answers["gripper_state"].evidence
    assert not GRIPPER & answered(solution)


def test_a_gripper_that_never_moves_is_refused():
    def still(state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.column_stack([state[:, :-1], np.ones(len(state))]), action

    assert not GRIPPER & answered(solve(changed(dataset(MADE), still), model=MODEL))


def two_arms() -> MemoryDataset:
    """The second arm does what the first does in the next episode, beside it."""
    one = dataset(MADE)
    episodes = []
    for e in one.episodes:
        columns = {}
        for name in ("state", "action"):
            other = one.column((e.index + 1) % len(one.episodes), name)
            columns[name] = np.hstack([one.column(e.index, name), other])
        episodes.append(MemoryEpisode(columns=columns, time_s=one.time_s(e.index), instruction="do it"))
    return MemoryDataset(episodes, control_hz=HZ)


@pytest.mark.parametrize("model", [None, MODEL], ids=["alone", "model"])
def test_of_two_like_arms_none_is_taken_for_the_arm(model):
    solution = solve(two_arms(), model=model)
    assert answered(solution) == {"control_hz"}
    assert "two grippers" in reason(solution, "gripper_action")
    if model is not None:
        assert "two arms" in reason(solution, "joints")
        assert "two arms" in reason(solution, "action_position")


def test_a_given_position_says_which_of_two_arms_is_meant():
    solution = solve(two_arms(), model=MODEL, given={"position": {"column": "state", "start": 14}})
    assert solution.value("joints")["start"] == 21
    assert solution.value("action_position")["start"] == 7


@pytest.mark.parametrize("scaling", ["range", "deviation"])
@pytest.mark.parametrize("actions_too", [False, True])
def test_scaled_positions_are_not_metres(scaling, actions_too):
    raw = dataset(MADE, rotation="euler_xyz", joints=False)
    seen = np.concatenate([raw.column(e.index, "state")[:, :3] for e in raw.episodes]).astype(float)
    middle, half = (seen.max(0) + seen.min(0)) / 2, (seen.max(0) - seen.min(0)) / 2
    if scaling == "deviation":
        middle, half = seen.mean(0), seen.std(0)

    def scaled(state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        state[:, :3] = (state[:, :3] - middle) / half
        if actions_too:
            action[:, :3] /= half
        return state, action

    solution = solve(changed(raw, scaled))
    assert not {"position_unit", *ARM} & answered(solution)
    assert "scaled" in solution.answers["position_unit"].evidence or solution.value("position") is None


@pytest.mark.parametrize("model", [None, MODEL], ids=["alone", "model"])
def test_motion_along_one_axis_shows_no_axes(model):
    def along_x(state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        state[:, 1:3], action[:, 1:3] = state[:1, 1:3] * 0 + 0.3, 0
        return state, action

    solution = solve(changed(dataset(MADE, rotation="euler_xyz"), along_x), model=model)
    assert not {"position", *ARM} & answered(solution)


@pytest.mark.parametrize("mode", ["pose", "joints"])
def test_actions_that_repeat_the_state_are_no_commands(mode):
    def copy(state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return state, np.array(state[:, :7] if mode == "pose" else state[:, 7:])

    solution = solve(changed(dataset(MADE), copy), model=MODEL)
    assert not {*ARM, *GRIPPER, "joint_action", "action_lag"} & answered(solution)
    question = "action_position" if mode == "pose" else "joint_action"
    assert "repeats the state" in reason(solution, question)


def test_actions_that_explain_no_joints_are_refused_for_that_reason():
    rng = np.random.default_rng(5)
    noise = changed(dataset(MADE), lambda state, action: (state, rng.normal(size=action.shape)))
    solution = solve(noise, model=MODEL)
    for question in ("joint_action", "joint_action_unit", "action_lag"):
        assert "explain how the joints move" in reason(solution, question)


@pytest.mark.parametrize("model", [None, MODEL], ids=["alone", "model"])
def test_a_quaternion_that_never_changes_is_no_orientation(model):
    def constant(state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        state[:, 3:7] = Rotation.from_euler("x", 1.0).as_quat()
        return state, action

    solution = solve(changed(dataset(MADE), constant), model=model)
    assert not {"rotation", "action_rotation"} & answered(solution)


@pytest.mark.parametrize("model", [None, MODEL], ids=["alone", "model"])
def test_random_walks_under_random_switches_show_nothing(model):
    rng, episodes = np.random.default_rng(3), []
    for _ in range(20):
        state = 0.02 * np.cumsum(rng.normal(size=(60, 14)), axis=0)
        action = np.hstack([rng.normal(size=(60, 6)), rng.choice([-1.0, 1.0], (60, 1))])
        episodes.append(MemoryEpisode(columns={"state": state, "action": action}))
    assert answered(solve(MemoryDataset(episodes, control_hz=HZ), model=model)) == {"control_hz"}


def test_from_a_given_position_the_solver_goes_on_without_a_robot_model():
    raw = dataset(MADE)
    given = {"position": {"column": "state", "start": 0}}
    assert solve(raw, given={}).value("action_position") is not None
    turned_off = changed(raw, lambda s, a: (np.hstack([s[:, :3], s[:, 7:]]), a))
    assert solve(turned_off).value("position") is None
    solution = solve(turned_off, given=given)
    assert solution.value("action_position")["start"] == 0
    found = [solution.value(q) for q in ("position_unit", "action_mode", "action_unit", "action_lag")]
    assert found == ["m", "delta", "m/step", 0]


def test_a_given_place_that_is_not_there_raises():
    with pytest.raises(UnknownNameError, match="state"):
        solve(dataset(MADE), given={"position": {"column": "stat", "start": 0}})
    with pytest.raises(DatasetError, match="starts at 12"):
        solve(dataset(MADE), given={"position": {"column": "state", "start": 12}})


def test_everything_that_was_refused_stands_in_the_list():
    with pytest.raises(DatasetError) as raised:
        solve(dataset(MADE, hz=None, stamps=False, joints=False)).description()
    for questions in ("control_hz", "joints, joint_unit", "joint_action, joint_action_unit"):
        assert f"\n  - {questions}: " in str(raised.value)


def test_an_orientation_that_targets_leave_unconfirmed_is_not_said_to_be_missing():
    solution = solve(dataset(MADE, mode="absolute"))
    assert not {"position", "rotation", *ARM} & answered(solution)
    for question in ("position", "rotation", "action_position"):
        assert "no orientation" not in reason(solution, question)
        assert not reason(solution, question).endswith("an orientation beside")


def test_a_given_position_without_a_unit_is_said_so_once():
    raw = changed(dataset(MADE), lambda s, a: (np.hstack([1e5 * s[:, :3], s[:, 3:]]), a))
    solution = solve(raw, given={"position": {"column": "state", "start": 0}})
    assert reason(solution, "action_unit").count("unit of the position is unknown") == 1
