"""A tiny benchmark: a point is to be moved to a goal. Served by this same Python; misbehaves on demand."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

PACKAGES = ("numpy", "msgpack")


class PointWorld:
    """A point in a square of 2, seen as a hand in a square of 0.2 m; action 1 moves it by 0.1, so 0.01 m."""

    def __init__(self, task: str, size: int) -> None:
        if task == "unbuildable":
            raise ValueError("this world cannot be built")
        self.facts = {"max_steps": 40}
        self._task, self._size = task, size
        self._point = self._goal = np.zeros(2)
        self._steps = 0

    def reset(self, seed: int, options: dict) -> dict:
        rng = np.random.default_rng(seed)
        self._point, self._goal = rng.uniform(-1, 1, 2), rng.uniform(-1, 1, 2)
        self._steps = 0
        return self._seen()

    def step(self, action: np.ndarray) -> dict:
        if self._task == "raises":
            raise ZeroDivisionError("the benchmark divided by zero")
        if self._task == "dies":
            print("last words of the benchmark", file=sys.stderr, flush=True)
            os._exit(7)
        if self._task == "hangs":
            time.sleep(60)
        self._point = self._point + np.clip(action, -1, 1)[:2] * 0.1
        self._steps += 1
        return self._seen()

    def images(self) -> dict:
        picture = np.zeros((self._size, self._size, 3), np.uint8)
        x, y = ((self._point + 2) / 4 * self._size).astype(int).clip(0, self._size - 1)
        picture[y, x] = (255, self._steps, 0)
        return {"front": picture}

    def frame(self, size: int) -> np.ndarray:
        return np.full((size, size, 3), self._steps, np.uint8)

    def expert(self) -> np.ndarray:
        towards = np.clip((self._goal - self._point) / 0.1, -1, 1)
        return np.array([*towards, 0, -1], np.float32)

    def close(self) -> None:
        pass

    def _seen(self) -> dict:
        near = bool(np.linalg.norm(self._goal - self._point) < 0.02)
        return {
            "state": {
                "tcp_position": np.array([0.1 * self._point[0], 0.7 + 0.1 * self._point[1], 0], np.float32),
                "gripper_opening": np.array([1], np.float32),
            },
            "aux": {"goal_position": np.array([0.1 * self._goal[0], 0.7 + 0.1 * self._goal[1], 0])},
            "instruction": "Move the point to the goal",
            "success": near and self._steps > 0,
            "reward": float(near),
            "terminated": False,
            "truncated": self._steps >= 40,
        }


def open_world(*, task: str, size: int) -> PointWorld:
    return PointWorld(task, size)
