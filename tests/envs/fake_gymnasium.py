"""A gymnasium environment as others write them: registered by a file, driven and drawn in its own way."""

from __future__ import annotations

import gymnasium
import numpy as np


class Cart(gymnasium.Env):
    """A cart on a line; the observation is a Dict, the picture is wide, success stands in ``info``."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, goal: float = 0.5) -> None:
        self.render_mode, self._goal, self._x = render_mode, goal, 0.0
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        place = gymnasium.spaces.Box(-9, 9, (3,), np.float64)
        self.observation_space = gymnasium.spaces.Dict({"arm": gymnasium.spaces.Dict({"place": place})})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._x = float(self.np_random.uniform(-0.5, 0.0))
        return self._see(), {}

    def step(self, action):
        self._x += 0.1 * float(action[0])
        near = abs(self._x - self._goal) < 0.06
        return self._see(), float(near), False, False, {"there": near, "says": "Roll to the mark"}

    def render(self):
        picture = np.zeros((40, 60, 3), np.uint8)
        picture[:, int(np.clip((self._x + 1) * 30, 0, 59))] = 255
        return picture

    def _see(self):
        return {"arm": {"place": np.array([7.0, 100 * self._x, 0.0])}}


gymnasium.register("fake/Cart-v0", entry_point=Cart, max_episode_steps=30)
gymnasium.register("fake/Levers-v0", entry_point=lambda render_mode=None: Levers())


class Levers(Cart):
    """Takes no Box."""

    def __init__(self) -> None:
        super().__init__("rgb_array")
        self.action_space = gymnasium.spaces.Discrete(3)
