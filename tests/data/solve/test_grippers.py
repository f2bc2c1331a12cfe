"""What is taken for a gripper: not what moves the arm, and not a record of the command."""

from __future__ import annotations

import numpy as np
import pytest

from vla.data.readers.memory import MemoryDataset, MemoryEpisode
from vla.data.solve import solve

QUESTIONS = ("gripper_action", "gripper_state")


def keyboard(seed: int) -> MemoryDataset:
    """Three axes driven at full speed for a while, one after the other, always the same way; no gripper."""
    rng, episodes = np.random.default_rng(seed), []
    for _ in range(30):
        action, down, side = np.zeros((60, 3)), rng.integers(12, 25), rng.integers(10, 20)
        action[:down, 2] = -0.02
        action[down : down + side, 0] = action[down : down + side + 5, 1] = 0.02
        moved = np.cumsum(np.vstack([np.zeros(3), action[:-1]]), axis=0) * 0.95
        state = np.hstack(
            [moved + [0.4, 0, 0.4] + rng.normal(size=3) * 0.01, rng.normal(size=(60, 1)) * 1e-3]
        )
        columns = {"observation.state": state.astype(np.float32), "action": action.astype(np.float32)}
        episodes.append(
            MemoryEpisode(columns=columns, pictures={}, time_s=np.arange(60) / 10, instruction="push")
        )
    return MemoryDataset(episodes, control_hz=10.0)


def grasping(seed: int) -> MemoryDataset:
    """An arm that goes down, closes on things of many sizes and lifts; its state repeats the last command."""
    rng, episodes = np.random.default_rng(seed), []
    for _ in range(30):
        close, width, length = int(rng.integers(12, 20)), rng.uniform(0.1, 0.7), 40
        action = rng.normal(size=(length, 4)) * 0.004
        action[:close, 2] -= 0.02
        action[close + 4 :, 2] += 0.02
        action[:, 3] = np.where(np.arange(length) < close, 1.0, -1.0)
        place = np.cumsum(np.vstack([np.zeros(3), action[:-1, :3]]), axis=0) + [0.4, 0.0, 0.5]
        opening = np.interp(np.arange(length), [close, close + 4], [1.0, width])
        before = np.concatenate([action[:1, 3], action[:-1, 3]])
        state = np.column_stack([place, before, opening + rng.normal(size=length) * 1e-3])
        columns = {"observation.state": state.astype(np.float32), "action": action.astype(np.float32)}
        episodes.append(
            MemoryEpisode(columns=columns, pictures={}, time_s=np.arange(length) / 10, instruction="pick")
        )
    return MemoryDataset(episodes, control_hz=10.0)


@pytest.mark.parametrize("seed", range(4))
def test_axes_driven_from_end_to_end_are_no_gripper(seed: int) -> None:
    solution = solve(keyboard(seed))
    assert all(solution.answers[question].refused for question in QUESTIONS)


@pytest.mark.parametrize("seed", range(3))
def test_a_record_of_the_command_is_not_the_fingers(seed: int) -> None:
    solution = solve(grasping(seed))
    state = solution.answers["gripper_state"]
    assert state.refused or state.value["start"] == 4
    assert not solution.answers["gripper_action"].refused
    assert solution.value("gripper_action")["open"] == 1.0
