"""A suite in plain numpy: a point moves in the plane, two coloured dots, "reach the red dot".

Small and exact, so that evaluation, control and reports are tested without a physics engine. Its
env is a full one: two variants, wordings, saved states, pictures a policy can read.
"""

from __future__ import annotations

import os
import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from vla.embodiment import Camera, Embodiment, Field
from vla.errors import ConfigError, EnvError, ObservationError, UnknownNameError
from vla.types import ActionChunk, Observation

HALF_M, STEP_M, REACH_M, MAX_STEPS, HEIGHT_M = 0.2, 0.03, 0.03, 25, 0.1
COLORS = {"red": (220, 40, 40), "blue": (40, 60, 220)}
KNOWN_WORDS = ("reach", "the", "red", "blue", "dot")
WORDS = {"train": "reach the {} dot", "heldout": "go over to the {} dot"}


def point_embodiment(name: str = "point", image_size: int = 32) -> Embodiment:
    meters: Any = {"size": 3, "unit": "m", "frame": "world", "mode": "absolute"}
    meters |= {"low": (-HALF_M,) * 3, "high": (HALF_M,) * 3}
    return Embodiment(
        name=name,
        cameras=(Camera(name="front", role="front", height=image_size, width=image_size),),
        state=(
            Field(name="tcp_position", slot="arm0.tcp_position", **meters),
            Field(name="tcp_error", slot="arm0.tcp_error", **meters),
        ),
        action=(
            Field(
                name="tcp_position_delta", size=3, unit="m/step", frame="world", mode="delta",
                low=(-STEP_M,) * 3, high=(STEP_M,) * 3, slot="arm0.tcp_position_delta",
            ),
            Field(
                name="gripper", size=1, unit="1", frame="none", mode="absolute", low=(-1,), high=(1,),
                slot="arm0.gripper", gripper_sign="positive_closes",
            ),
        ),
        control_hz=10.0,
        workspace_low=(-HALF_M, -HALF_M, 0.0),
        workspace_high=(HALF_M, HALF_M, HALF_M),
    )  # fmt: skip


class PointEnv(gymnasium.Env):
    """Task ``reach``; ``raises`` fails at odd seeds; ``dies`` takes the process with it at seed 1."""

    def __init__(self, task: str, embodiment: str, image_size: int = 32) -> None:
        self.task, self.embodiment = task, point_embodiment(embodiment, image_size)
        self.action_space = gymnasium.spaces.Box(self.embodiment.action_low, self.embodiment.action_high)
        size = (image_size, image_size, 3)
        vector = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "images": gymnasium.spaces.Dict({"front": gymnasium.spaces.Box(0, 255, size, np.uint8)}),
                "state": gymnasium.spaces.Dict({"tcp_position": vector, "tcp_error": vector}),
                "instruction": gymnasium.spaces.Text(100, charset=string.printable),
            }
        )
        self.dots: dict[str, np.ndarray] = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        options = {"variant": "base", "wording": "train", **(options or {})}
        for name in options:
            if name not in ("variant", "wording"):
                raise UnknownNameError("reset option", name, ("variant", "wording"))
        if options["variant"] not in ("base", "swapped"):
            raise UnknownNameError("variant", options["variant"], ("base", "swapped"))
        seed = seed or 0
        self._misbehave(seed)
        rng = np.random.default_rng(seed)
        names = list(rng.permutation(list(COLORS)))
        self.dots = {name: np.array([*rng.uniform(-0.15, 0.15, 2), HEIGHT_M]) for name in names}
        self.dots[names[1]][0] = self.dots[names[0]][0] + (0.15 if self.dots[names[0]][0] < 0 else -0.15)
        self.target = names[0] if options["variant"] == "base" else names[1]
        self.instruction = WORDS[options["wording"]].format(self.target)
        self.tcp, self.steps = np.array([0.0, 0.19, HEIGHT_M]), 0
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> Any:
        value = self.embodiment.check_action(action)
        if value.shape != (4,):
            raise EnvError(f"One action of shape (4,), not {value.shape}.")
        self.tcp = np.clip(self.tcp + np.clip(value[:3], -STEP_M, STEP_M), -HALF_M, HALF_M)
        self.steps += 1
        info = self._info()
        over = self.steps >= MAX_STEPS and not info["success"]
        return self._observe(), 0.0, info["success"], over, info

    def set_instruction(self, text: str) -> None:
        named = [name for name in COLORS if name in text.split()]
        if len(named) != 1:
            raise ConfigError(f"{text!r} names no dot. There are: {', '.join(COLORS)}.")
        self.target, self.instruction = named[0], text

    def save_state(self) -> dict[str, Any]:
        dots = {name: dot.copy() for name, dot in self.dots.items()}
        return {"tcp": self.tcp.copy(), "dots": dots, "now": [self.target, self.instruction, self.steps]}

    def restore_state(self, state: Any) -> dict[str, Any]:
        self.tcp, self.dots = state["tcp"].copy(), {name: dot.copy() for name, dot in state["dots"].items()}
        self.target, self.instruction, self.steps = state["now"]
        return self._observe()

    def near(self, name: str) -> bool:
        return bool(np.linalg.norm(self.tcp - self.dots[name]) < REACH_M)

    def _info(self) -> dict[str, Any]:
        wrong = any(self.near(name) for name in self.dots if name != self.target)
        target = self.dots[self.target].astype(np.float32)
        phase = np.array([1.0 if np.linalg.norm(self.tcp - target) < 0.1 else 0.0], np.float32)
        aux = {"target_position": target, "goal_position": np.full(3, np.nan, np.float32), "phase": phase}
        return {
            "success": self.near(self.target),
            "wrong": wrong,
            "instruction": self.instruction,
            "aux": aux,
        }

    def _observe(self) -> dict[str, Any]:
        size = self.embodiment.cameras[0].height
        image = np.zeros((size, size, 3), np.uint8)
        for name, dot in self.dots.items():
            row, column = ((dot[:2] + HALF_M) / (2 * HALF_M) * (size - 1)).round().astype(int)
            image[row, column] = COLORS[name]
        state = {"tcp_position": self.tcp.astype(np.float32), "tcp_error": np.zeros(3, np.float32)}
        return {"images": {"front": image}, "state": state, "instruction": self.instruction}

    def _misbehave(self, seed: int) -> None:
        if self.task == "raises" and seed % 2:
            raise EnvError("the motor smokes")
        if self.task == "dies" and seed == 1:
            marker = os.environ.get("FAKE_SUITE_DIES_ONCE")
            if marker is None or not Path(marker).exists():
                if marker is not None:
                    Path(marker).touch()
                os._exit(9)


class PointExpert:
    """Straight to the target; bound to its env."""

    contract = None

    def __init__(self, env: PointEnv) -> None:
        self.env = env

    def reset(self) -> None:
        pass

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        action = towards(self.env.dots[self.env.target], self.env.tcp)
        return [ActionChunk(actions=action[None], control_hz=10.0) for _ in observations]


class Seer:
    """Finds the dot in the picture, says where it thinks it is, plans four steps."""

    class Contract:
        image_size, execution_horizon = 32, 2

        def __init__(self, weights_sha256: str) -> None:
            self.weights_sha256 = weights_sha256

    def __init__(self, refuses: str = "", size: int = 0) -> None:
        self.size = size  # px it insists on when it looks, although it accepts every arm
        weights = os.environ.get("FAKE_SUITE_WEIGHTS", "abc")
        self.contract, self.refuses, self.calls = self.Contract(weights), refuses, 0

    def check(self, embodiment: Embodiment) -> None:
        if embodiment.name == self.refuses:
            raise ConfigError(f"not made for {embodiment.name}")

    def reset(self) -> None:
        pass

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        self.calls += 1
        return [self._chunk(observation) for observation in observations]

    def _chunk(self, observation: Observation) -> ActionChunk:
        named = [color for name, color in COLORS.items() if name in observation.instruction]
        color = named[0] if named else (-1, -1, -1)  # told nothing, it goes nowhere
        image = observation.images["front"]
        if self.size and len(image) != self.size:
            raise ObservationError(f"{len(image)} px, not {self.size}")
        rows, columns = np.nonzero((image == color).all(-1))
        tcp = observation.state["tcp_position"]
        if not len(rows):
            return ActionChunk(actions=np.zeros((4, 4), np.float32), control_hz=10.0)
        plane = np.array([rows[0], columns[0]]) / (len(image) - 1) * 2 * HALF_M - HALF_M
        target = np.array([*plane, HEIGHT_M], np.float32)
        actions = []
        for _ in range(4):
            actions.append(towards(target, tcp))
            tcp = tcp + actions[-1][:3]
        unknown = tuple(w for w in observation.instruction.split() if w not in KNOWN_WORDS)
        info = {"target_position": target, "unknown_words": unknown}
        return ActionChunk(actions=np.stack(actions), control_hz=10.0, info=info)


def towards(target: np.ndarray, tcp: np.ndarray) -> np.ndarray:
    gap = target - tcp
    step = gap * min(1.0, 0.02 / max(float(np.linalg.norm(gap)), 1e-9))
    return np.array([*step, -1.0], np.float32)


class PointSuite:
    name = "point_suite"
    tasks: tuple[str, ...] = ("reach", "raises", "dies")
    embodiments: tuple[str, ...] = ("point", "dot")

    def make(self, task: str, embodiment: str, **kwargs: Any) -> PointEnv:
        for kind, given, known in (("task", task, self.tasks), ("arm", embodiment, self.embodiments)):
            if given not in known:
                raise UnknownNameError(kind, given, known)
        return PointEnv(task, embodiment, **kwargs)

    def expert(self, env: Any) -> PointExpert:
        return PointExpert(env)

    def env_for_instruction(
        self, text: str, embodiment: str, seed: int, **kwargs: Any
    ) -> tuple[PointEnv, int]:
        env = self.make("reach", embodiment, **kwargs)
        env.reset(seed=seed)
        env.set_instruction(text)
        return env, seed


def make_seer(*, refuses: str = "", size: int = 0) -> Seer:
    return Seer(refuses, size)


class Crowd(Seer):
    """A seer swayed a little by whom else it is shown, and by the row."""

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        places = np.array([seen.state["tcp_position"][:2] for seen in observations])
        sway = 1e-3 * len(places) + 0.1 * places.mean(0)
        chunks = super().act(observations)
        return [
            replace(chunk, actions=chunk.actions + np.array([*sway * (1 + row), 0, 0], np.float32) * 0.01)
            for row, chunk in enumerate(chunks)
        ]


def make_crowd() -> Crowd:
    return Crowd()
