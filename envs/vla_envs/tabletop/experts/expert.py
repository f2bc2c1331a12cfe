"""The expert policy: looks up the skill for what the env is asked to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vla.errors import EnvError
from vla.types import ActionChunk, Observation
from vla_envs.tabletop.experts import skills
from vla_envs.tabletop.tasks.base import Goal
from vla_envs.tabletop.world import World

if TYPE_CHECKING:
    from vla_envs.tabletop.env import TabletopEnv

_SKILLS: Mapping[str, Callable[[World, Goal], np.ndarray]] = {
    "pick": skills.pick,
    "place": skills.place,
    "push": skills.push,
    "stack": skills.stack,
    "knock": skills.knock,
    "open": skills.slide_drawer,
    "close": skills.slide_drawer,
    "press": skills.press,
    "clockwise": skills.turn,
    "counterclockwise": skills.turn,
    "slide_left": skills.slide_knob,
    "slide_right": skills.slide_knob,
    "insert": skills.insert,
    "left_of": skills.beside,
    "right_of": skills.beside,
    "behind": skills.beside,
    "in_front_of": skills.beside,
    "unstack": skills.pick,
}


class Expert:
    """A policy bound to one env, whose simulator state it reads; one action per chunk."""

    contract = None  # it answers for any arm of its env

    def __init__(self, env: TabletopEnv) -> None:
        self._env = env

    def reset(self) -> None:
        pass

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """The expert's action for the env's present state, whatever was observed."""
        env = self._env
        if len(observations) != 1:
            raise EnvError(f"An expert is bound to one env, got {len(observations)} observations.")
        if env.goal is None:
            raise EnvError("The expert was asked before env.reset(seed=...).")
        action = _SKILLS[env.goal.verb](env.world, env.goal)
        action = np.clip(action, env.embodiment.action_low, env.embodiment.action_high)
        return [ActionChunk(actions=action[None], control_hz=env.embodiment.control_hz)]
