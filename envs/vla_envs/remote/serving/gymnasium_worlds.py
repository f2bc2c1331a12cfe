"""Any gymnasium environment with a Box action, as a description says (``vla_envs.gymnasium_suite``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from .loop import load_module

PACKAGES = ("gymnasium", "gymnasium-robotics", "mujoco", "numpy")
#: Raise by one whenever this module changes what an episode is or how it looks.
REVISION = 1


class GymnasiumWorld:
    """See ``loop.World``; everything below is a part of the description, see ``description.Description``.

    Args:
        imports: modules, or Python files, that register the environment.
        id: of the environment.
        make: arguments of ``gymnasium.make``.
        size_arguments: those of them that take the picture's size in pixels.
        image_size: px, height and width of the pictures to be had.
        cameras: camera -> ``"render"``, or keys that lead to a picture in the observation.
        state: field -> ``{"at": keys into the observation, "start": first entry, "size", "scale"}``.
        instruction: text, or ``{"info": key}``.
        success: ``{"info": key}``, ``{"terminated": true}`` or ``{"reward_at_least": number}``.
    """

    def __init__(
        self,
        *,
        imports: Sequence[str],
        id: str,
        make: Mapping[str, Any],
        size_arguments: Sequence[str],
        image_size: int,
        cameras: Mapping[str, Any],
        state: Mapping[str, Mapping[str, Any]],
        instruction: Any,
        success: Mapping[str, Any],
    ) -> None:
        for name in imports:
            load_module(name)
        sizes = dict.fromkeys(size_arguments, image_size)
        self._env: Any = gymnasium.make(id, render_mode="rgb_array", **{**make, **sizes})
        space = self._env.action_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"{id} takes {space}; only a Box of one axis is supported")
        _render_fast(self._env.unwrapped)
        self._physics = _Physics(self._env.unwrapped)
        self._env.reset(seed=0)
        self._beginning, self._before = self._physics.kept(), self._physics.kept()
        self._low, self._high = space.low, space.high
        self._size, self._cameras, self._state = image_size, cameras, state
        self._instruction, self._success = instruction, success
        self._obs: Any = None
        spec = self._env.spec
        self.facts = {
            "revision": REVISION,
            "max_steps": None if spec is None else spec.max_episode_steps,
            "action_dim": int(space.shape[0]),
        }

    def reset(self, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
        self._physics.put_back(self._beginning)
        self._obs, info = self._env.reset(seed=seed)
        return {**self._seen(info), "success": False, "reward": 0.0, "terminated": False, "truncated": False}

    def step(self, action: np.ndarray) -> dict[str, Any]:
        given = np.clip(action, self._low, self._high).astype(self._low.dtype)
        self._obs, reward, terminated, truncated, info = self._env.step(given)
        ended = {"reward": float(reward), "terminated": bool(terminated), "truncated": bool(truncated)}
        return {**self._seen(info), **ended, "success": self._succeeded(float(reward), ended, info)}

    def images(self) -> dict[str, np.ndarray]:
        return {name: resized(self._view(source), self._size) for name, source in self._cameras.items()}

    def frame(self, size: int) -> np.ndarray:
        picture = self._view("render")
        return resized(picture, min(size, *picture.shape[:2]))

    def expert(self) -> None:
        return None

    def close(self) -> None:
        self._env.close()

    def _view(self, source: Any) -> np.ndarray:
        if source != "render":
            return np.asarray(self._at(source), np.uint8)
        self._before = self._physics.kept(self._before)
        picture = np.array(self._env.render(), np.uint8)
        self._physics.put_back(self._before)
        return picture

    def _at(self, keys: Sequence[Any]) -> np.ndarray:
        value = self._obs
        for key in keys:
            value = value[key]
        return np.asarray(value)

    def _succeeded(self, reward: float, ended: Mapping[str, Any], info: Mapping[str, Any]) -> bool:
        ((kind, value),) = self._success.items()
        if kind == "info":
            return bool(np.all(info[value]))
        return ended["terminated"] if kind == "terminated" else reward >= value

    def _seen(self, info: Mapping[str, Any]) -> dict[str, Any]:
        state = {}
        for field, rule in self._state.items():
            values = self._at(rule["at"]).ravel()[rule["start"] : rule["start"] + rule["size"]]
            state[field] = (values * rule["scale"]).astype(np.float32)
        said = self._instruction
        return {"state": state, "instruction": said if isinstance(said, str) else str(info[said["info"]])}


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """uint8 [size size 3]: the square in the middle, means of blocks; never enlarged."""
    side = min(picture.shape[:2])
    if size > side:
        raise ValueError(f"pictures of {side} px cannot give {size} px: ask for a smaller image size")
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    square = picture[top : top + side, left : left + side, :3]
    if side == size:
        return np.ascontiguousarray(square)
    edges = np.arange(size) * side // size
    sums = np.add.reduceat(np.add.reduceat(square.astype(np.int64), edges, axis=0), edges, axis=1)
    counts: Any = np.diff(np.append(edges, side))
    return (sums // (counts[:, None, None] * counts[None, :, None])).astype(np.uint8)


def _render_fast(env: Any) -> None:
    """No shadows and no multisampling where MuJoCo draws: a tenth of the cost of a picture."""
    model: Any = getattr(env, "model", None)
    if hasattr(model, "vis"):
        model.vis.quality.shadowsize = model.vis.quality.offsamples = 0


class _Physics:
    """All that MuJoCo knows: kept apart from drawing, and from the episode before. Without MuJoCo, nothing.

    Some environments move things while they draw, and some leave targets of the arm or what warm-starts the
    solver as the last episode had them. Derived quantities belong to it: some read them before a step.
    """

    def __init__(self, env: Any) -> None:
        self._model, self._data = getattr(env, "model", None), getattr(env, "data", None)
        self._there = self._model is not None and hasattr(self._data, "qacc_warmstart")

    def kept(self, earlier: Any = None) -> Any:
        """A copy of it, in the place of an earlier copy where there is one."""
        if not self._there:
            return None
        import mujoco

        if earlier is None:
            earlier = mujoco.MjData(self._model)
        mujoco.mj_copyData(earlier, self._model, self._data)
        return earlier

    def put_back(self, kept: Any) -> None:
        if kept is not None:
            import mujoco

            mujoco.mj_copyData(self._data, self._model, kept)


def open_world(**settings: Any) -> GymnasiumWorld:
    """See ``loop.Worlds``."""
    return GymnasiumWorld(**settings)
