"""Kinematics: derivatives against differences, solutions against the model, limits kept, names checked."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from vla.errors import EmbodimentError, UnknownNameError
from vla.robots.kinematics import Kinematics, rotation_error, rotation_matrix, tool_down

JOINTS = ("pan", "lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
ARM = """
<mujoco><compiler angle="radian"/><worldbody><body pos="-0.4 0 0.16">
 <joint name="pan" axis="0 0 1" range="-3 3"/><geom size="0.05"/><body>
 <joint name="lift" axis="0 1 0" range="-3 3"/><geom size="0.05"/><body pos="0 0 0.42">
 <joint name="elbow" axis="0 1 0" range="-3 3"/><geom size="0.05"/><body pos="0 0 0.39">
 <joint name="wrist_1" axis="0 1 0" range="-3 3"/><geom size="0.05"/><body pos="0 0.13 0">
 <joint name="wrist_2" axis="0 0 1" range="-3 3"/><geom size="0.05"/><body pos="0 0 0.1">
 <joint name="wrist_3" axis="0 1 0" range="-3 3"/><geom size="0.05"/><site name="tcp" pos="0 0.1 0"/>
 </body></body></body></body></body></body><body><joint name="rail" type="slide"/><geom size="0.1"/></body>
</worldbody></mujoco>
"""
BENT = np.array([0.3, 0.4, 1.2, 0.5, 0.6, -0.2])


@pytest.fixture
def arm() -> Kinematics:
    return Kinematics(mujoco.MjModel.from_xml_string(ARM), JOINTS, "tcp", home_q=BENT)


def test_the_jacobian_is_the_finite_difference(arm: Kinematics) -> None:
    jacobian, step = arm.jacobian(BENT), 1e-6
    for j in range(6):
        low, high = (arm.pose(BENT + s * step * np.eye(6)[j]) for s in (-1, 1))
        np.testing.assert_allclose(jacobian[:3, j], (high[0] - low[0]) / (2 * step), atol=1e-8)
        np.testing.assert_allclose(
            jacobian[3:, j], rotation_error(high[1] @ low[1].T) / (2 * step), atol=1e-6
        )


def test_solve_finds_the_pose_of_other_angles(arm: Kinematics) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        position, rotation = arm.pose(BENT + rng.uniform(-0.3, 0.3, 6))
        q = arm.solve(BENT, position, rotation, iterations=60)
        metres, radians = arm.error(q, position, rotation)
        assert metres < 1e-3
        assert radians < 5e-3


def test_what_is_out_of_reach_stays_inside_the_limits_and_is_said_to_be_missed(arm: Kinematics) -> None:
    q = arm.solve(BENT, np.array([3.0, 0.0, 0.5]), np.eye(3), iterations=60)
    assert (q >= arm.low).all()
    assert (q <= arm.high).all()
    assert arm.error(q, np.array([3.0, 0.0, 0.5]), np.eye(3))[0] > 1.0


def test_a_start_outside_the_limits_is_brought_in(arm: Kinematics) -> None:
    position, rotation = arm.pose(BENT)
    q = arm.solve(BENT + np.array([9.0, 0, 0, 0, 0, 0]), position, rotation)
    assert (np.abs(q) <= 3.0).all()


def test_a_light_orientation_gives_way_to_the_position() -> None:
    model = mujoco.MjModel.from_xml_string(ARM)
    loose = Kinematics(model, JOINTS[:5], "tcp", orientation_weight=0.3, home_q=BENT[:5])
    position, rotation = loose.pose(BENT[:5])
    rotation = rotation_matrix(np.array([0.0, 0.0, 0.8])) @ rotation
    q = loose.solve(BENT[:5], position, rotation, iterations=60)
    metres, radians = loose.error(q, position, rotation)
    assert metres < 2e-3
    assert radians > 0.05


def test_rotation_matrix_undoes_rotation_error() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        turn = rng.uniform(-1.7, 1.7, 3)
        np.testing.assert_allclose(rotation_error(rotation_matrix(turn)), turn, atol=1e-6)


def test_tool_down_points_down_and_turns_about_the_vertical() -> None:
    np.testing.assert_allclose(tool_down(0.0), np.diag([1.0, -1.0, -1.0]))
    np.testing.assert_allclose(rotation_error(tool_down(0.7) @ tool_down(0.2).T), [0, 0, 0.5], atol=1e-9)


def test_unknown_names_list_what_exists() -> None:
    model = mujoco.MjModel.from_xml_string(ARM)
    with pytest.raises(UnknownNameError, match="wrist_3"):
        Kinematics(model, (*JOINTS[:5], "wrist3"), "tcp")
    with pytest.raises(UnknownNameError, match="Known: tcp"):
        Kinematics(model, JOINTS, "tool0")


def test_a_joint_without_limits_and_a_wrong_posture_are_refused() -> None:
    model = mujoco.MjModel.from_xml_string(ARM)
    with pytest.raises(EmbodimentError, match="give it a range"):
        Kinematics(model, ("rail",), "tcp")
    with pytest.raises(EmbodimentError, match="6 joints"):
        Kinematics(model, JOINTS, "tcp", home_q=np.zeros(7))


def test_a_file_is_loaded_and_a_missing_one_said(tmp_path: Path) -> None:
    (tmp_path / "arm.xml").write_text(ARM)
    arm = Kinematics.load(tmp_path / "arm.xml", JOINTS, "tcp")
    assert arm.low.tolist() == [-3.0] * 6
    with pytest.raises(EmbodimentError, match=r"none\.xml"):
        Kinematics.load(tmp_path / "none.xml", JOINTS, "tcp")
