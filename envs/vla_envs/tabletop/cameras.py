"""Rendering a scene fast, and where a point of the world appears in a picture."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from vla_envs.tabletop.scene import ARM_PREFIX

_MAX_GEOMS = 400
PEOPLE_SIZE = 200


class SceneRenderer:
    """One OpenGL context per picture size, kept open; shadows and reflections off.

    The sky is drawn only in pictures for people (``PEOPLE_SIZE`` pixels and more).
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._renderers: dict[int, mujoco.Renderer] = {}
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = [1, 1, 1, 0, 0, 0]

    def render(self, data: mujoco.MjData, camera: str, size: int) -> np.ndarray:
        """uint8 [size size 3], RGB, top row first."""
        renderer = self._renderers.get(size)
        if renderer is None:
            renderer = mujoco.Renderer(self._model, size, size, max_geom=_MAX_GEOMS)
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                renderer.scene.flags[flag] = 0
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = int(size >= PEOPLE_SIZE)
            self._renderers[size] = renderer
        renderer.update_scene(data, camera, self._option)
        return renderer.render().copy()

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()


def camera_name(role: str) -> str:
    """Name in the compiled scene of the camera of that role."""
    return ARM_PREFIX + "wrist" if role == "wrist" else role


def camera_uv(model: mujoco.MjModel, data: mujoco.MjData, camera: str, points: np.ndarray) -> np.ndarray:
    """Where world points [..., 3] lie in a square picture: float32 [..., 2] in [-1, 1], x right, y down.

    NaN where a point is NaN, behind the camera or outside the picture.
    """
    index = model.camera(camera).id
    local = (np.asarray(points, float) - data.cam_xpos[index]) @ data.cam_xmat[index].reshape(3, 3)
    depth = -local[..., 2:]
    half_width = math.tan(math.radians(float(model.cam_fovy[index])) / 2) * np.where(
        depth > 1e-6, depth, np.nan
    )
    uv = (local[..., :2] * (1.0, -1.0) / half_width).astype(np.float32)
    seen = (np.abs(uv) <= 1).all(-1, keepdims=True)  # false for NaN
    return np.where(seen, uv, np.float32(np.nan))
