"""Meta-World (package metaworld 3.1.1): one task, its scripted policy, its success.

Scenes are drawn the way Meta-World draws them itself (``_get_state_rand_vec`` of a seeded generator), as in
the published evaluations of vision-language-action policies: a new scene each episode. The camera
``corner2`` hangs upside down and is moved to [0.75, 0.075, 0.7], as in these evaluations (Seo et al. 2022,
arXiv 2206.14244, appendix); its pictures are turned by half a turn here.

Labels for training (``Observation.aux``; a policy is shown none): where the task's first object is and where
it shall go, in space and in the picture, as the observation that the scripted policies read has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import metaworld  # pyright: ignore[reportMissingImports]
import mujoco
import numpy as np
from metaworld.policies import ENV_POLICY_MAP  # pyright: ignore[reportMissingImports]

PACKAGES = ("metaworld", "mujoco", "gymnasium", "numpy")
#: Raise by one whenever this module changes what an episode is or how it looks.
REVISION = 2
CAMERA, CAMERA_POSITION = "corner2", (0.75, 0.075, 0.7)
#: Tasks of the bare hand: what it shall reach is the target, whatever lies about.
HAND_TASKS = ("reach-v3", "reach-wall-v3", "hand-insert-v3")
AT_TARGET_M = 0.06  # the hand is there, by the phase label


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
        self._bare_hand, self._camera = task in HAND_TASKS, camera
        self._renderers: dict[int, mujoco.Renderer] = {}
        self._obs = np.zeros(39)
        self.facts = {"revision": REVISION, "max_steps": int(env.max_path_length)}

    def reset(self, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
        self._env.seed(seed)
        self._env.reset()
        # Meta-World moves the scene's bodies and marks the goal without telling the simulator: the first
        # picture and observation would be of where everything was before
        mujoco.mj_forward(self._env.model, self._env.data)
        self._obs = self._env._get_obs()
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
            "aux": self._labels(),
            "instruction": self._instruction,
            "success": bool(info["success"]),
            "reward": reward,
            "terminated": False,
            "truncated": truncated,
        }

    def _labels(self) -> dict[str, np.ndarray]:
        """The keys of ``vla.interfaces.AUX_KEYS`` that concern one camera and one instruction, float32."""
        goal = np.asarray(self._env._target_pos, float)
        target, goal = (goal, np.full(3, np.nan)) if self._bare_hand else (self._obs[4:7], goal)
        uv = self._uv(np.stack([target, goal]))
        away = float(np.linalg.norm(self._obs[:3] - target)) > AT_TARGET_M
        labels = {
            "target_position": target,
            "goal_position": goal,
            "front_target_uv": uv[0],
            "front_goal_uv": uv[1],
            "phase": [0.0 if away else 1.0],
        }
        return {name: np.array(value, np.float32) for name, value in labels.items()}

    def _uv(self, points: np.ndarray) -> np.ndarray:
        """Where world points [n 3] are in the picture: [n 2] in [-1, 1], right and down; NaN outside."""
        data = self._env.data
        local = (points - data.cam_xpos[self._camera]) @ data.cam_xmat[self._camera].reshape(3, 3)
        depth = np.where(local[:, 2:] < -1e-6, -local[:, 2:], np.nan)
        half_width = math.tan(math.radians(float(self._env.model.cam_fovy[self._camera])) / 2) * depth
        uv = local[:, :2] * (-1.0, 1.0) / half_width
        return np.where((np.abs(uv) <= 1).all(1, keepdims=True), uv, np.nan)


def open_world(*, task: str, instruction: str, image_size: int) -> MetaWorld:
    """See ``loop.Worlds``."""
    return MetaWorld(task, instruction, image_size)
