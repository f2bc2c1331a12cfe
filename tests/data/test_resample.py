"""Resampling conserves motion: deltas add up, rotations compose, pictures and grippers are never blended."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.data.memory import INSTRUCTION, describe, memory_source
from tests.data.worlds import make_arm
from vla.data.mapped import MappedSource
from vla.data.readers.memory import MemoryDataset, MemoryEpisode
from vla.data.resample import ResampledSource
from vla.embodiment import Field
from vla.errors import DatasetError, EmbodimentError


def field(name: str, size: int, slot: str, mode: str, rotation: str = "none") -> Field:
    return Field(
        name=name, size=size, unit="1", frame="world", mode=mode, low=(-1,) * size, high=(1,) * size,
        slot=f"arm0.{slot}", rotation_format=rotation,
    )  # fmt: skip


def source_of(values: np.ndarray, member: Field, time_s: np.ndarray | None = None) -> MappedSource:
    """One episode at 10 Hz whose only action field has these values."""
    arm = replace(make_arm("gamma"), cameras=(), action=(member,))
    columns = {"state": np.zeros((len(values), arm.state_dim), np.float32), "action": values}
    episode = MemoryEpisode(columns=columns, time_s=time_s, instruction=INSTRUCTION)
    return MappedSource(MemoryDataset([episode]), describe(arm))


def test_deltas_add_up_and_their_range_grows_with_the_step():
    source = memory_source(length=21)
    slow = ResampledSource(source, 5.0)
    old, new = source.column(0, "action"), slow.column(0, "action")
    assert len(new) == slow.episodes[0].length == 11
    np.testing.assert_allclose(new[:10, :4], old[:20, :4].reshape(10, 2, 4).sum(axis=1), atol=1e-6)
    np.testing.assert_allclose(new[:, :4].sum(axis=0), old[:, :4].sum(axis=0), atol=1e-5)
    np.testing.assert_array_equal(new[:10, 4], old[1:20:2, 4])  # the gripper's last command
    arm = slow.embodiments["gamma"]
    assert (arm.control_hz, arm.action[0].high[0], arm.action[2].high[0]) == (5.0, pytest.approx(0.06), 1.0)


def test_states_and_pictures_are_those_of_the_moment():
    source = memory_source(length=21)
    slow = ResampledSource(source, 5.0)
    np.testing.assert_allclose(slow.column(0, "state"), source.column(0, "state")[::2], atol=1e-6)
    np.testing.assert_allclose(slow.column(0, "time_s"), np.arange(11) / 5)
    ours, theirs = np.empty((20, 20, 3), np.uint8), np.empty((20, 20, 3), np.uint8)
    slow.frame_reader(0, "front").read(7, ours)
    source.frame_reader(0, "front").read(14, theirs)
    np.testing.assert_array_equal(ours, theirs)


def test_the_same_rate_changes_nothing():
    source = memory_source()
    again = ResampledSource(source, 10.0)
    for name in ("state", "action", "executed"):
        np.testing.assert_allclose(again.column(1, name), source.column(1, name), atol=1e-6)


def test_rotation_vectors_are_composed_not_added(rng):
    turns = rng.normal(scale=0.4, size=(12, 3))
    member = field("turn", 3, "tcp_rotation_delta", "delta", "rotvec")
    new = ResampledSource(source_of(turns, member), 10 / 3).column(0, "action")
    for k in range(4):
        whole = Rotation.identity()
        for vector in turns[3 * k : 3 * k + 3]:
            whole = Rotation.from_rotvec(vector) * whole
        np.testing.assert_allclose(new[k], whole.as_rotvec(), atol=1e-6)


def test_absolute_rotations_stay_rotations_and_reach_the_same_end(rng):
    matrices = Rotation.random(9, rng=rng).as_matrix()
    values = np.swapaxes(matrices[:, :, :2], 1, 2).reshape(-1, 6)
    new = ResampledSource(
        source_of(values, field("tool", 6, "tcp_rotation", "absolute", "matrix_6d")), 4.0
    ).column(0, "action")
    np.testing.assert_allclose(np.linalg.norm(new.reshape(-1, 2, 3), axis=2), 1, atol=1e-6)
    np.testing.assert_allclose(new[-1], values[-1], atol=1e-6)


def test_velocities_are_averaged():
    speeds = np.arange(10.0)[:, None] / 10
    new = ResampledSource(source_of(speeds, field("speed", 1, "joint_velocity", "velocity")), 5.0)
    np.testing.assert_allclose(new.column(0, "action")[:, 0], [0.05, 0.25, 0.45, 0.65, 0.85], atol=1e-6)


def test_uneven_time_stamps_become_even_and_motion_is_kept(rng):
    time_s = np.cumsum(rng.uniform(0.05, 0.15, 40))
    moves = rng.uniform(-1, 1, (40, 3))
    source = source_of(moves, field("move", 3, "tcp_position_delta", "delta"), time_s)
    even = ResampledSource(source, 10.0)
    np.testing.assert_allclose(np.diff(even.column(0, "time_s")), 0.1)
    np.testing.assert_allclose(even.column(0, "action").sum(axis=0), moves.sum(axis=0), atol=1e-5)
    with pytest.raises(DatasetError, match=r"at step 3, it must rise.*--restamp"):
        ResampledSource(source_of(moves[:4], source.embodiments["gamma"].action[0], time_s[[0, 1, 2, 2]]), 10)


def test_deltas_faster_than_they_were_given_are_refused():
    with pytest.raises(EmbodimentError, match="at 20 Hz nobody knows"):
        ResampledSource(memory_source(), 20.0)


@pytest.mark.parametrize(
    ("late", "why"),
    [
        (5.0, r"Episode 0 of .*: 5\.1 s from step 9 to step 10, usually 0\.1 s: .*fix --cut time_gap"),
        (1.7e9, "from step 9 to step 10"),
        (0.09, "from step 9 to step 10"),
    ],
)
def test_a_gap_in_time_is_refused_and_no_steps_are_invented(late: float, why: str):
    time_s = np.arange(40) / 10 + np.where(np.arange(40) < 10, 0, late)
    member = field("move", 3, "tcp_position_delta", "delta")
    with pytest.raises(DatasetError, match=why):
        ResampledSource(source_of(np.zeros((40, 3)), member, time_s), 5.0)


@pytest.mark.parametrize("factor", [1e3, 1e9, 1e-6])
def test_time_stamps_in_another_unit_are_refused(factor: float):
    member = field("move", 3, "tcp_position_delta", "delta")
    with pytest.raises(DatasetError, match="in another unit"):
        ResampledSource(source_of(np.zeros((40, 3)), member, np.arange(40) / 10 * factor), 5.0)
