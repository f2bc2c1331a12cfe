"""What counts mean: round trips, files, and the guided calibration done by a scripted person."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.robots.servo_arms import STILL, embodiment, make_bus
from vla.errors import UnknownNameError
from vla.robots.calibrating import SO101, calibrate
from vla.robots.calibration import ArmCalibration, CalibrationError, ServoCalibration, from_lerobot
from vla.robots.servo_arm import ServoArm
from vla.robots.servo_bus import RAD_PER_COUNT
from vla.robots.so101 import so101_kinematics
from vla_envs.counterparts.instruments import PlantCamera
from vla_envs.counterparts.process import ServoCounterpart


def servo(**changes) -> ServoCalibration:
    given = {
        "name": "elbow", "servo": 3, "model": "sts3215", "direction": -1, "zero_count": 2000,
        "homing_offset": -17, "min_count": 900, "max_count": 3100,
    }  # fmt: skip
    return ServoCalibration(**{**given, **changes})


@given(st.integers(900, 3100), st.sampled_from([-1, 1]))
def test_counts_and_angles_are_inverse_inside_the_range(count: int, direction: int):
    joint = servo(direction=direction)
    assert joint.count(joint.angle(count)) == count
    assert joint.opening_count(joint.opening(count)) == count


@given(st.floats(-10, 10))
def test_no_angle_leaves_the_range(angle: float):
    joint = servo()
    assert joint.min_count <= joint.count(angle) <= joint.max_count
    low, high = joint.limits
    assert low < high


def test_a_calibration_is_the_same_after_its_file(tmp_path: Path):
    arm = ArmCalibration(arm="so101", joints=(servo(), servo(name="wrist", servo=4)), gripper=None)
    arm.save(tmp_path / "arm.json")
    assert ArmCalibration.load(tmp_path / "arm.json") == arm


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 7}, "version 7"),
        ({"joints": [{"name": "a"}]}, "lacks"),
        ({"surplus": 1}, "surplus"),
    ],
)
def test_a_damaged_calibration_is_refused(tmp_path: Path, change, says: str):
    arm = ArmCalibration(arm="so101", joints=(servo(),), gripper=None)
    (tmp_path / "arm.json").write_text(json.dumps({**arm.to_json(), **change}))
    with pytest.raises((CalibrationError, UnknownNameError), match=says):
        ArmCalibration.load(tmp_path / "arm.json")


def test_a_missing_calibration_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(CalibrationError, match="vla robot calibrate"):
        ArmCalibration.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "change", [{"direction": 0}, {"min_count": 3000, "max_count": 100}, {"max_count": 5000}]
)
def test_impossible_numbers_are_refused(change):
    with pytest.raises(CalibrationError):
        servo(**change)


def test_lerobots_calibration_is_read_with_zero_in_the_middle(tmp_path: Path):
    motor = {"id": 1, "drive_mode": 0, "homing_offset": -300, "range_min": 1000, "range_max": 3000}
    (tmp_path / "so.json").write_text(json.dumps({"shoulder_pan": motor, "gripper": {**motor, "id": 6}}))
    arm = from_lerobot(tmp_path / "so.json", arm="so101", model="sts3215")
    assert arm.joints[0].angle(2000) == 0.0
    assert arm.joints[0].angle(3000) == pytest.approx(1000 * RAD_PER_COUNT)
    assert arm.gripper is not None
    assert arm.gripper.servo == 6


class ScriptedPerson:
    """Does what the guide asks with the arm of a counterpart; ``lazy`` moves no joint through its range."""

    def __init__(
        self, scene: ServoCounterpart, low: np.ndarray, high: np.ndarray, *, lazy: bool = False
    ) -> None:
        self._scene, self._low, self._high, self._lazy = scene, low, high, lazy
        self._joint = 0
        self.asked: list[str] = []

    def do(self, what: str) -> None:
        self.asked.append(what)
        pose = (self._low + self._high) / 2
        if "positive" in what or "by about 20 degrees" in what:
            pose = pose.copy()
            pose[self._joint] += 0.35
            self._joint += 1
        self._scene.push(pose)

    def doing(self, what: str) -> Callable[[], bool]:
        self.asked.append(what)
        ends = iter([] if self._lazy else [self._low, self._high])

        def moved_on() -> bool:
            end = next(ends, None)
            if end is not None:
                self._scene.push(end)
            return end is None

        return moved_on


@pytest.mark.parametrize("protocol", ["feetech", "dynamixel"])
def test_the_guided_calibration_finds_how_every_servo_is_mounted(protocol, tmp_path: Path):
    with ServoCounterpart(protocol, calibrated=False, clock="stepped") as scene:
        low, high = np.array([-1.9, -1.7, -1.6, -1.6, -2.7, -0.02]), np.array([1.9, 1.7, 1.6, 1.6, 2.8, 0.9])
        person = ScriptedPerson(scene, low, high)
        bus = make_bus(scene)
        arm = calibrate(bus, SO101, "so101", person)
        bus.close()
        arm.save(tmp_path / "arm.json")
        assert "limp" in person.asked[0]
        scene.power_cycle()  # what was found is there for good
        for found, truth in zip(arm, scene.state()["servos"], strict=True):
            assert found.direction == truth["direction"]
            assert (found.homing_offset, found.min_count, found.max_count) == (
                truth["homing_offset"], truth["min_count"], truth["max_count"],
            )  # fmt: skip
        robot = ServoArm(
            make_bus(scene),
            ArmCalibration.load(tmp_path / "arm.json"),
            so101_kinematics(),
            embodiment(arm),
            cameras={"front": PlantCamera(scene, "front")},
            config=STILL,
        )
        measured = robot.connect().observation.state["joint_position"]
        straight = [0, 1, 2, 3]  # the fifth turns without stops: its zero is where it was put by hand
        np.testing.assert_allclose(measured[straight], scene.state()["angles"][straight], atol=0.004)
        robot.close()


def test_a_joint_that_was_not_moved_is_named():
    with ServoCounterpart("feetech", calibrated=False, clock="stepped") as scene:
        low, high = np.full(6, -1.0), np.full(6, 1.0)
        bus = make_bus(scene)
        with pytest.raises(CalibrationError, match="shoulder_pan"):
            calibrate(bus, SO101, "so101", ScriptedPerson(scene, low, high, lazy=True))
        bus.close()
