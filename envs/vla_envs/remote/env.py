"""A world of a benchmark as an environment like any other (``vla.interfaces.Env``)."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import cv2
import gymnasium
import numpy as np

from vla.embodiment import Embodiment
from vla.errors import EnvError, UnknownNameError
from vla.interfaces import Variant, Wording
from vla.pictures import UndrawnPictures
from vla.types import ActionChunk, Observation
from vla_envs.remote.process import BenchmarkProcess
from vla_envs.tabletop.gym_spaces import observation_space

_FRAME = 384  # px, of pictures for people
#: Benchmarks' sentences have other characters than ours.
_CHARACTERS = frozenset(map(chr, (*range(32, 127), *range(160, 384), *range(0x2010, 0x2027))))


class RemoteEnv(gymnasium.Env):
    """See :class:`vla.interfaces.Env`. A saved state is the seed and the actions since: it is replayed.

    Args:
        process: the benchmark; shared by its envs.
        embodiment: what it is driven as.
        settings: of ``open_world`` in the module that hosts the benchmark.
        render: False leaves ``images`` empty.
        action_scale: what the benchmark is given is the action divided by this; float [action_dim].
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    #: A benchmark states one task and one wording of it.
    variants: tuple[Variant, ...] = ("base",)
    wordings: tuple[Wording, ...] = ("train",)

    def __init__(
        self,
        process: BenchmarkProcess,
        embodiment: Embodiment,
        settings: Mapping[str, Any],
        *,
        render: bool = True,
        action_scale: Sequence[float] | None = None,
    ) -> None:
        self.embodiment = embodiment
        self.render_mode = None
        self._process, self._settings, self._render = process, dict(settings), render
        self.draws_on_demand = False
        self._moments = 0  # counts observations: pictures of an earlier one cannot be drawn any more
        self._scale = np.array(action_scale or np.ones(embodiment.action_dim), np.float64)
        self._world = self._generation = -1
        self._facts: dict[str, Any] = {}
        self._seed: int | None = None
        self._actions: list[np.ndarray] = []
        self._info: dict[str, Any] = {}
        self.action_space = gymnasium.spaces.Box(embodiment.action_low, embodiment.action_high)
        self.observation_space = observation_space(embodiment, render)
        self.observation_space["instruction"] = gymnasium.spaces.Text(1000, min_length=1, charset=_CHARACTERS)
        self._open()

    # --- gymnasium

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """An episode drawn from ``seed``; the only variant is ``base``, the only wording ``train``."""
        self._check_options(options or {})
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(1 << 31))
        self._open()
        seen = self._process.call("reset", world=self._world, seed=seed, options={}, look=self._looks)
        self._seed, self._actions = seed, []
        return self._take(seen, clipped=0), self._info

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step; what lies outside the range is clipped and counted in ``info["clipped"]``."""
        if self._seed is None:
            raise EnvError("step() before reset(): call env.reset(seed=...) first.")
        wanted = self.embodiment.check_action(action)
        if wanted.shape != (self.embodiment.action_dim,):
            raise EnvError(f"One action of shape ({self.embodiment.action_dim},), not {wanted.shape}.")
        clean = np.clip(wanted, self.embodiment.action_low, self.embodiment.action_high)
        clipped = int((np.abs(clean - wanted) > 1e-6).sum())
        self._must_be_there()
        given = (clean / self._scale).astype(np.float32)
        seen = self._process.call("step", world=self._world, action=given, look=self._looks)
        self._actions.append(given)
        obs = self._take(seen, clipped)
        success = self._info["success"]
        ended = bool(seen["terminated"]) or success
        return obs, float(seen["reward"]), ended, bool(seen["truncated"]) and not ended, self._info

    def render(self) -> np.ndarray:  # type: ignore[override]
        """uint8 [384 384 3] picture of the scene."""
        return self.render_frame(_FRAME)

    def render_frame(self, size: int = _FRAME) -> np.ndarray:
        """uint8 [size size 3] picture of the scene, for people."""
        self._must_be_there()
        frame = self._process.call("frame", world=self._world, size=size)
        if frame.shape[:2] != (size, size):
            frame = cv2.resize(frame, (size, size), interpolation=cv2.INTER_CUBIC)
        return frame

    def close(self) -> None:
        if self._is_there():
            with contextlib.suppress(EnvError):  # it died: there is nothing to close
                self._process.call("close", world=self._world)
        self._generation = -1

    # --- beyond gymnasium

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the benchmark says of this world: its time limit and whatever else."""
        return self._facts

    def current_info(self) -> dict[str, Any]:
        """What ``info`` said last."""
        return self._info

    @property
    def fingerprint(self) -> str:
        """Hash of the benchmark's versions, of its settings and of what is done to its actions."""
        facts = [self._process.versions, self._settings, self._facts, self._scale.tolist()]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def save_state(self) -> dict[str, Any]:
        """The seed and every action since."""
        if self._seed is None:
            raise EnvError("save_state() before reset(): call env.reset(seed=...) first.")
        dim = self.embodiment.action_dim
        return {"seed": self._seed, "actions": np.array(self._actions, np.float32).reshape(-1, dim)}

    def restore_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Continue from a saved state (of the same task); quick where the way there leads through here."""
        self._open()
        seed, actions = int(state["seed"]), np.array(state["actions"], np.float32)
        self._seed = None
        where = {"world": self._world, "seed": seed, "options": {}}
        seen = self._process.call("replay", **where, actions=actions, look=self._looks)
        self._seed, self._actions = seed, list(actions)
        return self._take(seen, clipped=0)

    def expert_action(self) -> np.ndarray:
        """float32 [action_dim]: what the benchmark's scripted policy does here, inside the ranges.

        Raises:
            EnvError: the benchmark has none.
        """
        self._must_be_there()
        given = self._process.call("expert", world=self._world)
        if given is None:
            raise EnvError(
                f"The benchmark {self._process.benchmark!r} has no scripted policy for {self._settings}."
            )
        arm = self.embodiment
        return np.clip(given * self._scale, arm.action_low, arm.action_high).astype(np.float32)

    # --- inside

    def _is_there(self) -> bool:
        return self._generation == self._process.generation and self._process.is_running

    def _must_be_there(self) -> None:
        if not self._is_there():
            self._seed = None
            raise EnvError(f"The process of {self._process.benchmark!r} has ended; reset() starts it again.")

    def _open(self) -> None:
        if self._is_there():
            return
        opened = self._process.call("open", settings=self._settings, render=self._render)
        self._world, self._facts = opened["world"], opened["facts"]
        self._generation = self._process.generation

    def _check_options(self, options: Mapping[str, Any]) -> None:
        known = {"variant": (self.variants, Variant), "wording": (self.wordings, Wording)}
        for name, value in options.items():
            if name not in known:
                raise UnknownNameError("reset option of a benchmark", name, known)
            there, all_of = known[name]
            if value not in there:
                reason = "which benchmarks do not have" if value in get_args(all_of) else "which is unknown"
                raise UnknownNameError(f"{name} ({reason})", str(value), there)

    def _take(self, seen: Mapping[str, Any], clipped: int) -> dict[str, Any]:
        self._moments += 1
        self._info = {
            "success": bool(seen["success"]),
            "wrong": False,
            "instruction": seen["instruction"],
            "clipped": clipped,
            "aux": {name: np.asarray(value, np.float32) for name, value in seen.get("aux", {}).items()},
        }
        state = {f.name: np.asarray(seen["state"][f.name], np.float32) for f in self.embodiment.state}
        images = self._undrawn() if self._render and self.draws_on_demand else seen["images"]
        return {"images": images, "state": state, "instruction": seen["instruction"]}

    @property
    def _looks(self) -> bool:
        """Whether pictures come with every observation."""
        return not self.draws_on_demand

    def _undrawn(self) -> UndrawnPictures:
        """The pictures of the present moment; all of them come with the first that is looked at."""
        now, drawn = self._moments, {}

        def draw(camera: str) -> np.ndarray:
            if not drawn:
                drawn.update(self._process.call("look", world=self._world))
            return drawn[camera]

        names = [camera.name for camera in self.embodiment.cameras]
        return UndrawnPictures(names, draw, lambda: self._moments == now and self._is_there())


class RemoteExpert:
    """The benchmark's own scripted policy: reads the simulator that its env stands in."""

    def __init__(self, env: RemoteEnv) -> None:
        self._env = env

    def reset(self) -> None:
        """Nothing to forget: it begins anew with its env."""

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """One action; the observation is not looked at."""
        if len(observations) != 1:
            raise EnvError(f"A scripted policy acts in one env, not on {len(observations)} observations.")
        action = self._env.expert_action()
        return [ActionChunk(actions=action[None], control_hz=self._env.embodiment.control_hz)]
