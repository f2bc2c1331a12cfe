"""The scene that a session plays in: one in which what a person says can be followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla.errors import VlaError
from vla.interfaces import Suite
from vla.planning import PlanError, Scene
from vla.planning.rules import RulePlanner
from vla.robots.sim import Describing, Instructable, SimRobot, sim_robot

#: Scenes that are looked at for one in which every part of a long instruction can be followed.
TRIES = 60


def lay(
    suite: Suite, arm: str, said: str, task: str, seed: int, make_kwargs: Mapping[str, Any], *, plans: bool
) -> SimRobot:
    """The arm before a scene in which the sentence can be followed; without one, one of the task.

    Of a long instruction (``plans``) every part should be possible there; where no scene can do all, the
    first part decides, and where not even that names a thing (``clear the table``), it is one of the task.
    """
    if not said:
        return SimRobot(suite.make(task, arm, **make_kwargs), seed=seed)
    parts = parts_of(said) if plans else (said,)
    if not parts:
        return SimRobot(suite.make(task, arm, **make_kwargs), seed=seed)
    first = robot = sim_robot(suite, arm, parts[0], seed=seed, **make_kwargs)
    for _ in range(TRIES):
        if all(_possible(robot, part) for part in parts[1:]):
            break
        following = sim_robot(suite, arm, parts[0], seed=robot.seed + 1, **make_kwargs)
        if robot is not first:
            robot.close()
        robot = following
    else:
        robot.close()
        return first
    if robot is not first:
        first.close()
    return robot


def parts_of(said: str) -> tuple[str, ...]:
    """Parts of a long instruction as far as its words tell; none where it takes a look at the scene."""
    try:
        return RulePlanner().plan(said, Scene())
    except PlanError:
        return ()


def scene_of(robot: SimRobot) -> Scene:
    """What is on the table, as far as the simulation can tell."""
    if not isinstance(robot.env, Describing):
        return Scene()
    return Scene(things=tuple(robot.env.things()), sentences=tuple(robot.env.sentences()))


def _possible(robot: SimRobot, sentence: str) -> bool:
    if not isinstance(robot.env, Instructable):
        return False
    try:
        robot.env.set_instruction(sentence)
    except VlaError:
        return False
    return True
