"""The robot model: which joints move the tool, and what is said where there is none."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from tests.data.solve.arm import mjcf, robot
from vla.cli.data.solve import run_solve
from vla.data.solve.robot import MujocoRobot
from vla.errors import ConfigError, DatasetError


def test_the_chain_to_the_tool_is_found():
    arm = robot()
    assert arm.num_joints == 6
    np.testing.assert_allclose(arm.limits, [[-3, 3]] * 6)


def test_turning_the_base_turns_the_tool():
    arm = robot()
    position, turned = arm.forward(np.array([[0.0] * 6, [np.pi / 2, 0, 0, 0, 0, 0]]))
    np.testing.assert_allclose(position[1], [-position[0, 1], position[0, 0], position[0, 2]], atol=1e-9)
    np.testing.assert_allclose((turned[1] * turned[0].inv()).as_rotvec(), [0, 0, np.pi / 2], atol=1e-9)


def test_a_missing_model_raises(tmp_path):
    with pytest.raises(DatasetError, match="no robot model"):
        MujocoRobot.from_mjcf(tmp_path / "arm.xml")


def test_a_damaged_model_raises(tmp_path):
    (tmp_path / "arm.xml").write_text("<robot/>")
    with pytest.raises(DatasetError, match="no MJCF"):
        MujocoRobot.from_mjcf(tmp_path / "arm.xml")


def test_a_wrong_site_lists_those_that_exist():
    with pytest.raises(DatasetError, match="tcp"):
        MujocoRobot(mujoco.MjModel.from_xml_string(mjcf()), "hand")


def test_a_suite_without_an_arm_raises(tmp_path, monkeypatch):
    monkeypatch.setattr("vla.data.readers.open_raw", lambda path, **_: None)
    with pytest.raises(ConfigError, match="--arm"):
        run_solve([str(tmp_path), "--suite", "tabletop"])
