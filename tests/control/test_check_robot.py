from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.eval.fake_suite import PointEnv
from vla.embodiment import Embodiment, Field
from vla.errors import EnvError, VlaError
from vla.robots import Reading, one_action
from vla.robots.sim import SimRobot
from vla.testing import check_robot
from vla.types import Observation

ANGLES: Any = {"size": 2, "unit": "rad", "frame": "joint", "mode": "absolute", "slot": "arm0.joint_position"}


def arm(mode: str) -> Embodiment:
    """Two joints, commanded in one of the three ways."""
    measured = Field(name="joint_position", low=(-3, -3), high=(3, 3), **ANGLES)
    action = {
        "absolute": replace(measured, name="joint_target"),
        "delta": replace(
            measured,
            name="joint_delta",
            mode="delta",
            slot="arm0.joint_delta",
            low=(-0.1,) * 2,
            high=(0.1,) * 2,
        ),
        "velocity": replace(measured, name="joint_speed", mode="velocity", slot="arm0.joint_velocity"),
    }[mode]
    return Embodiment(name="arm", cameras=(), state=(measured,), action=(action,), control_hz=50.0)


class Lab:
    """Two ideal motors behind a clock that passes only while somebody sleeps."""

    def __init__(self, mode: str, *faults: str) -> None:
        self.embodiment, self.deadman_s = arm(mode), 0.1
        self.faults, self.mode = faults, mode
        self.now = self.heard = 0.0
        self.q, self.speed = np.array([1.0, -1.0]), np.zeros(2)
        self.stopped, self.cut, self.text = True, False, "rest"

    def sleep(self, duration_s: float) -> None:
        moving_s = duration_s
        if "no_deadman" not in self.faults:
            moving_s = min(duration_s, max(0.0, self.heard + self.deadman_s - self.now))
            self.cut |= moving_s < duration_s
        self.q = self.q + self.speed * moving_s
        self.now += duration_s

    def connect(self) -> Reading:
        self.stopped, self.speed, self.heard = False, np.zeros(2), self.now
        return self.read()

    def read(self) -> Reading:
        q = np.full(2, np.nan) if "blind" in self.faults else self.q
        seen = Observation(
            images={},
            state={"joint_position": q.astype(np.float32)},
            instruction="rest" if "deaf" in self.faults else self.text,
            embodiment="arm",
            time_s=self.now,
        )
        return Reading(observation=seen, info={}, done=False)

    def command(self, action: np.ndarray) -> Reading:
        if self.stopped and "runaway" not in self.faults:
            raise EnvError("stopped: connect()")
        value = np.asarray(action)[:2] if "sloppy" in self.faults else one_action(self.embodiment, action)
        self.heard = self.now
        if self.mode == "velocity":
            self.speed = value.astype(float)
        else:
            self.q = value.astype(float) if self.mode == "absolute" else self.q + value
        if "drifts" in self.faults:
            self.q = self.q + 0.01
        if "lame" in self.faults:
            self.q = np.array([1.0, -1.0])
        return self.read()

    def set_instruction(self, text: str) -> Reading:
        self.text = text
        return self.read()

    def stop(self) -> None:
        self.stopped, self.speed = True, np.zeros(2)

    def close(self) -> None:
        self.stop()


@pytest.mark.parametrize("mode", ["absolute", "delta", "velocity"])
def test_an_arm_that_keeps_the_contract_passes_however_it_is_commanded(mode: str) -> None:
    lab = Lab(mode)
    check_robot(lab, sleep=lab.sleep, was_stopped=lambda: lab.cut)


def test_a_simulated_arm_passes() -> None:
    check_robot(SimRobot(PointEnv("reach", "point"), seed=0), instruction="reach the blue dot")


@pytest.mark.parametrize(
    ("fault", "mode", "words"),
    [
        ("blind", "absolute", "not finite"),
        ("sloppy", "absolute", "another size was accepted"),
        ("lame", "absolute", "commands were to bring"),
        ("drifts", "delta", "moved .* by refused actions|commands were to bring|drifted"),
        ("no_deadman", "velocity", "still moves"),
        ("deaf", "absolute", "the reading says 'rest'"),
        ("runaway", "absolute", "before connect.. was accepted"),
    ],
)
def test_each_fault_is_found(fault: str, mode: str, words: str) -> None:
    lab = Lab(mode, fault)
    with pytest.raises((AssertionError, VlaError), match=words):
        check_robot(lab, sleep=lab.sleep)


def test_a_counterpart_that_saw_no_deadman_is_believed() -> None:
    lab = Lab("absolute", "no_deadman")
    with pytest.raises(AssertionError, match="nobody stopped the arm"):
        check_robot(lab, sleep=lab.sleep, was_stopped=lambda: lab.cut)
