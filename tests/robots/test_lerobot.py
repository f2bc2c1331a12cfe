"""lerobot both ways, without lerobot: the flat keys and units of its robots (the real ones: a script)."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import vla.testing
from tests.robots.servo_arms import driver
from vla.embodiment import Camera
from vla.errors import ActionError, ConfigError, RobotError, UnknownNameError
from vla.robots.actions import joint_embodiment
from vla.robots.lerobot import LerobotArm, LerobotView
from vla.robots.so101 import JOINTS, so101_kinematics
from vla_envs.counterparts.process import ServoCounterpart
from vla_envs.tabletop.arms import load_arm
from vla_envs.tabletop.embodiments import tabletop_embodiment


class Follower:
    """What lerobot's followers look like from outside; its joints are where they were sent."""

    def __init__(self) -> None:
        keys = [*(f"{name}.pos" for name in JOINTS), "gripper.pos"]
        self.position = dict.fromkeys(keys, 0.0) | {"gripper.pos": 100.0}
        self.action_features: dict[str, Any] = dict.fromkeys(keys, float)
        self.observation_features: dict[str, Any] = {**self.action_features, "front": (24, 32, 3)}
        self.is_connected = False
        self.broken = False
        self.late = 0

    def connect(self, calibrate: bool = True) -> None:
        assert not calibrate  # it would ask questions
        if self.late:
            self.late -= 1
            raise ConnectionError("Could not connect on port")
        self.is_connected = True

    def get_observation(self) -> dict[str, Any]:
        if self.broken:
            raise ConnectionError("Failed to sync read 'Present_Position'.")
        return {**self.position, "front": np.full((24, 32, 3), 9, np.uint8)}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        assert set(action) == set(self.action_features)
        self.position.update(action)
        return action

    def disconnect(self) -> None:
        self.is_connected = False


def wrapped(follower: Follower, **changes) -> LerobotArm:
    kinematics = so101_kinematics()
    camera = Camera(name="front", role="front", height=24, width=32)
    embodiment = joint_embodiment(
        "so101", kinematics.low, kinematics.high, kinematics.home_q, cameras=(camera,), control_hz=50.0
    )
    given = {"joints": JOINTS, "gripper": "gripper", "kinematics": kinematics, "embodiment": embodiment}
    return LerobotArm(follower, **{**given, "deadman_s": 0.2, **changes})


def test_a_lerobot_robot_keeps_the_contract_of_robots():
    vla.testing.check_robot(wrapped(Follower()), settle_s=0.1)


def test_radians_are_degrees_and_a_closed_gripper_is_zero_there():
    follower = Follower()
    arm = wrapped(follower)
    arm.connect()
    reading = arm.command(np.array([0.1, 0, 0, 0, 0, 1.0], np.float32))
    arm.close()
    assert follower.position["shoulder_pan.pos"] == pytest.approx(np.rad2deg(0.1))
    assert follower.position["gripper.pos"] == 0.0
    assert reading.observation.state["gripper_opening"][0] == 0.0
    assert reading.observation.images["front"].shape == (24, 32, 3)


def test_what_lerobot_raises_is_an_error_of_ours():
    follower = Follower()
    arm = wrapped(follower)
    arm.connect()
    follower.broken = True
    with pytest.raises(RobotError, match="lerobot says: Failed to sync read"):
        arm.read()
    follower.broken = False
    arm.close()


@pytest.mark.parametrize(("late", "connects"), [(2, True), (3, False)])
def test_a_late_answer_is_no_lost_arm_but_three_are(late: int, connects: bool):
    follower = Follower()
    follower.late = late
    arm = wrapped(follower)
    if connects:
        arm.connect()
    else:
        with pytest.raises(RobotError, match="Could not connect"):
            arm.connect()
    arm.close()
    assert not follower.is_connected


def test_joints_that_lerobot_does_not_have_are_named():
    with pytest.raises(UnknownNameError, match=r"elbow\.pos"):
        wrapped(Follower(), joints=("elbow", *JOINTS[1:]))


def test_ours_in_lerobots_words_sends_what_the_envelope_allows(feetech: ServoCounterpart):
    with driver(feetech) as robot:
        view = LerobotView(robot, JOINTS)
        assert view.observation_features["front"] == (24, 32, 3)
        view.connect()
        seen = view.get_observation()
        near = {key: seen[key] + (2.0 if key != "gripper.pos" else 0.0) for key in view.action_features}
        sent = view.send_action(near)
        assert sent["elbow_flex.pos"] == pytest.approx(near["elbow_flex.pos"], abs=0.01)
        far = view.send_action({**near, "elbow_flex.pos": 500.0})
        assert far["elbow_flex.pos"] < 90.0  # cut by the envelope, and said
        with pytest.raises(ActionError, match="lacks"):
            view.send_action({"elbow_flex.pos": 0.0})
        view.disconnect()
        assert not view.is_connected


def test_only_joint_driven_arms_are_shown_to_lerobot(feetech: ServoCounterpart):
    with driver(feetech) as robot:
        robot.embodiment = replace(tabletop_embodiment(load_arm("so101"), 24))
        with pytest.raises(ConfigError, match="lerobot drives joints"):
            LerobotView(robot, JOINTS)
