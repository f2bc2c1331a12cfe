"""Meta-World (package metaworld 3.1.1): one task, its scripted policy, its success.

Scenes are drawn the way Meta-World draws them itself (``_get_state_rand_vec`` of a seeded generator), as in
the published evaluations of vision-language-action policies: a new scene each episode. The camera
``corner2`` hangs upside down and is moved to [0.75, 0.075, 0.7], as in these evaluations (Seo et al. 2022,
arXiv 2206.14244, appendix); its pictures are turned by half a turn here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import metaworld  # pyright: ignore[reportMissingImports]
import mujoco
import numpy as np
from metaworld.policies import ENV_POLICY_MAP  # pyright: ignore[reportMissingImports]

PACKAGES = ("metaworld", "mujoco", "gymnasium", "numpy")
#: Raise by one whenever this module changes what an episode is or how it looks.
REVISION = 1
CAMERA, CAMERA_POSITION = "corner2", (0.75, 0.075, 0.7)


class MetaWorld:
    """See ``loop.World``; ``facts`` has the task's time limit, steps.

    Args:
        task: e.g. ``pick-place-v3``.
        instruction: said in every episode.
        image_size: px, height and width.
    """

    def __init__(self, task: str, instruction: str, image_size: int) -> None:
        self._env: Any = metaworld.ALL_V3_ENVIRONMENTS[task]()
        env = self._env
        env._set_task_called = True  # set_task() would want a pickled scene; ours are drawn at every reset
        env._set_task_inner()
        env._freeze_rand_vec, env.seeded_rand_vec = False, True
        env._partially_observable = False  # the scripted policy is told the goal; nobody else sees it
        env.__dict__.pop("sawyer_observation_space", None)  # cached for the other case
        camera = env.model.camera(CAMERA).id
        env.model.cam_pos[camera] = CAMERA_POSITION
        # the renderer's share of a step falls by a factor of ten without shadows and multisampling
        env.model.vis.quality.shadowsize = env.model.vis.quality.offsamples = 0
        self._policy, self._instruction, self._size = ENV_POLICY_MAP[task](), instruction, image_size
        self._renderers: dict[int, mujoco.Renderer] = {}
        self._obs = np.zeros(39)
        self.facts = {"revision": REVISION, "max_steps": int(env.max_path_length)}

    def reset(self, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
        self._env.seed(seed)
        self._obs, _ = self._env.reset()
        return self._seen({"success": 0.0}, 0.0, truncated=False)

    def step(self, action: np.ndarray) -> dict[str, Any]:
        self._obs, reward, _, truncated, info = self._env.step(np.asarray(action, np.float32))
        return self._seen(info, float(reward), truncated=bool(truncated))

    def images(self) -> dict[str, np.ndarray]:
        return {"front": self.frame(self._size)}

    def frame(self, size: int) -> np.ndarray:
        renderer = self._renderers.get(size)
        if renderer is None:
            renderer = mujoco.Renderer(self._env.model, size, size)
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                renderer.scene.flags[flag] = 0
            self._renderers[size] = renderer
        renderer.update_scene(self._env.data, CAMERA)
        return np.ascontiguousarray(renderer.render()[::-1, ::-1])

    def expert(self) -> np.ndarray:
        return np.clip(np.asarray(self._policy.get_action(self._obs), np.float32), -1.0, 1.0)

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
        self._env.close()

    def _seen(self, info: Mapping[str, Any], reward: float, *, truncated: bool) -> dict[str, Any]:
        return {
            "state": {
                "tcp_position": self._obs[:3].astype(np.float32),
                "gripper_opening": self._obs[3:4].astype(np.float32),
            },
            "instruction": self._instruction,
            "success": bool(info["success"]),
            "reward": reward,
            "terminated": False,
            "truncated": truncated,
        }


def open_world(*, task: str, instruction: str, image_size: int) -> MetaWorld:
    """See ``loop.Worlds``."""
    return MetaWorld(task, instruction, image_size)
