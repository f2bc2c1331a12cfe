"""A model that looks at the picture decides what is done; nothing is done because nobody looked."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from tests.eval.fake_suite import PointSuite
from vla.errors import ConfigError
from vla.planning import PlanError
from vla.planning.judge import JudgedRobot
from vla.robots.sim import SimRobot


class Looker:
    """Answers as told, and keeps what it was shown."""

    def __init__(self, reply: str | PlanError) -> None:
        self.reply, self.shown = reply, []

    def answer(self, task: str, said: str, image: np.ndarray | None = None) -> str:
        self.shown.append((said, image))
        if isinstance(self.reply, PlanError):
            raise self.reply
        return self.reply


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.01)


def judged(reply: str | PlanError) -> tuple[JudgedRobot, Looker]:
    suite = PointSuite()
    env = suite.make(suite.tasks[0], suite.embodiments[0])
    looker = Looker(reply)
    return JudgedRobot(SimRobot(env, seed=0), looker, pause_s=0.001), looker


def test_a_yes_is_success_of_the_sentence_that_it_was_asked_about():
    robot, looker = judged("Yes.")
    sentence = robot.connect().observation.instruction
    until(lambda: robot.read().info["success"])
    said, image = looker.shown[0]
    assert sentence in said
    assert image is not None
    assert image.dtype == np.uint8
    looker.reply = "No."
    robot.set_instruction("reach the blue dot")
    before = len(looker.shown)
    until(lambda: len(looker.shown) > before + 3)
    assert not robot.read().info["success"]
    robot.close()


@pytest.mark.parametrize("reply", ["Perhaps", "", PlanError("no endpoint")])
def test_what_is_no_yes_is_no_success_and_a_failure_is_told(reply: str | PlanError):
    robot, looker = judged(reply)
    robot.connect()
    until(lambda: len(looker.shown) > 2)
    reading = robot.command(np.zeros(robot.embodiment.action_dim, np.float32))
    assert not reading.info["success"]
    assert reading.info["judge_error"] == (str(reply) if isinstance(reply, PlanError) else "")
    robot.close()


def test_a_camera_that_is_not_there_is_refused():
    suite = PointSuite()
    robot = SimRobot(suite.make(suite.tasks[0], suite.embodiments[0]), seed=0)
    with pytest.raises(ConfigError, match="'moon'"):
        JudgedRobot(robot, Looker("yes"), camera="moon")
    robot.close()
