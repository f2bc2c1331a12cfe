"""Privileged quantities: where what was asked for is, in space and in both pictures, and the phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from vla.interfaces import NUM_THINGS
from vla_envs.tabletop.cameras import camera_name, camera_uv
from vla_envs.tabletop.names import ALL_COLORS
from vla_envs.tabletop.tasks import Goal, Task
from vla_envs.tabletop.tasks.base import NOWHERE as NO_POINT
from vla_envs.tabletop.world import World

#: Target and goal position, m, world; NaN where there is none.
Where = tuple[np.ndarray, np.ndarray]
NOWHERE: Where = (NO_POINT, NO_POINT)


def where(task: Task, goal: Goal, world: World) -> Where:
    """Positions of the thing to act on and of where it shall go, now."""
    points = task.target_position(goal, world), task.goal_position(goal, world)
    return np.asarray(points[0], np.float32), np.asarray(points[1], np.float32)


def locate(points: Where, world: World, prefix: str) -> dict[str, np.ndarray]:
    """The entries of ``vla.interfaces.AUX_KEYS`` for these points; ``prefix`` is empty or ``other_``."""
    names = ("target", "goal")
    aux = {
        f"{prefix}{name}_position": np.asarray(p, np.float32) for name, p in zip(names, points, strict=True)
    }
    for view in ("front", "wrist"):
        uv = camera_uv(world.model, world.data, camera_name(view), np.stack(points))
        aux.update({f"{view}_{prefix}{name}_uv": uv[i] for i, name in enumerate(names)})
    return aux


def name_things(task: Task, goals: Sequence[Goal]) -> dict[str, Callable[[World], np.ndarray]]:
    """Everything in the scene that a colour and a kind name, and where it is, m, world."""
    things: dict[str, Callable[[World], np.ndarray]] = {}
    for goal in goals:
        things.setdefault(goal.target_words, partial(task.target_position, goal))
        if goal.destination_words is not None:
            things.setdefault(goal.destination_words, partial(_destination, task, goal))
    named = {words: place for words, place in things.items() if words.split()[0] in ALL_COLORS}
    return dict(list(named.items())[:NUM_THINGS])


def _destination(task: Task, goal: Goal, world: World) -> np.ndarray:
    """Where the thing called the destination is: where the target shall go, unless that is beside it."""
    if goal.beside:
        assert goal.destination is not None
        return world.position(goal.destination)
    return task.goal_position(goal, world)


def locate_things(things: Mapping[str, Callable[[World], np.ndarray]], world: World) -> dict[str, np.ndarray]:
    """Where things are in both pictures, padded with NaN."""
    aux = {}
    points = np.full((NUM_THINGS, 3), np.nan)
    for i, place in enumerate(things.values()):
        points[i] = place(world)
    for view in ("front", "wrist"):
        aux[f"{view}_things_uv"] = camera_uv(world.model, world.data, camera_name(view), points).reshape(-1)
    return aux


def phase(task: Task, goal: Goal, world: World) -> int:
    """0 approach the target, 1 at it, 2 transport, 3 release and retreat."""
    target, destination = where(task, goal, world)
    if task.achieved(goal, world):
        return 3
    if world.held(goal.target):
        at_goal = np.isfinite(destination).all() and np.linalg.norm(target[:2] - destination[:2]) < 0.03
        return 3 if at_goal else 2
    return 0 if np.linalg.norm(world.tcp - target) > 0.04 else 1
