"""A small world for data tests: a point that must reach a coloured square, seen by two cameras.

Importable by spawned workers as ``tests.data.worlds:ReachSuite``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla.embodiment import Camera, Embodiment, Field
from vla.errors import EnvError
from vla.interfaces import AUX_KEYS
from vla.types import ActionChunk, Episode, Observation, Step

FINGERPRINT = "first build"
OTHER = "reach the blue square"
COLOURS = {"red": (210, 40, 40), "blue": (40, 60, 220)}


def make_arm(name: str = "alpha", *, image_size: int = 64, wrist: bool = True, joints: int = 7) -> Embodiment:
    """A tabletop arm with the usual fields."""

    def part(field: str, size: int, slot: str, low: float, high: float, **more: Any) -> Field:
        given = {"unit": "m", "frame": "world", "mode": "absolute", **more}
        return Field(
            name=field, size=size, low=(low,) * size, high=(high,) * size, slot=f"arm0.{slot}", **given
        )

    cameras = [Camera(name="front", role="front", height=image_size, width=image_size)]
    if wrist:
        cameras.append(Camera(name="hand", role="wrist", height=image_size, width=image_size))
    return Embodiment(
        name=name,
        cameras=tuple(cameras),
        state=(
            part("tcp_position", 3, "tcp_position", -0.5, 0.5),
            part("joint_position", joints, "joint_position", -3.0, 3.0, unit="rad", frame="joint"),
            part("gripper_opening", 1, "gripper_opening", 0.0, 1.0, unit="1", frame="none"),
        ),
        action=(
            part("tcp_position_delta", 3, "tcp_position_delta", -0.03, 0.03, unit="m/step", mode="delta"),
            part(
                "tcp_yaw_delta", 1, "tcp_rotation_delta", -0.15, 0.15, unit="rad/step", mode="delta",
                rotation_format="yaw", slot_start=2,
            ),
            part("gripper", 1, "gripper", -1, 1, unit="1", frame="none", gripper_sign="positive_closes"),
        ),
        control_hz=10.0,
    )  # fmt: skip


def make_episode(
    rng: np.random.Generator,
    arm: Embodiment,
    *,
    length: int = 12,
    instruction: str = "reach the red square",
    provenance: Mapping[str, Any] | None = None,
    perturbed: Sequence[int] = (),
) -> Episode:
    """A random but smooth-looking episode; steps in ``perturbed`` execute another action."""
    steps = []
    for t in range(length):
        images = {c.name: _picture(rng.uniform(-1, 1, 2), (0, 0), "red", c.height) for c in arm.cameras}
        aux = {key: rng.normal(size=size).astype(np.float32) for key, size in AUX_KEYS.items()}
        aux["phase"] = np.array([0.0 if t < length // 2 else 1.0], np.float32)
        aux["other_instruction"] = np.array([0.0 if t % 2 else np.nan], np.float32)
        state = {f.name: rng.uniform(f.low, f.high).astype(np.float32) for f in arm.state}
        seen = Observation(
            images=images, state=state, instruction=instruction, embodiment=arm.name, time_s=t / 10, aux=aux
        )
        action = rng.uniform(arm.action_low, arm.action_high).astype(np.float32)
        executed = arm.action_high.copy() if t in perturbed else action.copy()
        if t in perturbed:
            action = arm.action_low.copy()
        steps.append(Step(observation=seen, action=action, executed=executed))
    return Episode(
        steps=tuple(steps),
        instruction=instruction,
        embodiment=arm.name,
        success=True,
        provenance={"other_instructions": [OTHER], **(provenance or {"task": "reach", "seed": 0})},
    )


class ReachEnv:
    """The point starts near the middle; the instruction names the square to reach."""

    def __init__(self, task: str, embodiment: str, image_size: int) -> None:
        self.embodiment = make_arm(embodiment, image_size=image_size, wrist=embodiment == "alpha")
        self.task, self.size, self.max_steps = task, image_size, 40
        self.fingerprint = FINGERPRINT

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        rng = np.random.default_rng(seed)
        self._places = {colour: rng.uniform(-0.2, 0.2, 2) for colour in COLOURS}
        self._target = {"base": "red", "swapped": "blue"}[(options or {}).get("variant", "base")]
        self._unlucky = self.task == "fails" or (self.task == "slips" and rng.random() < 0.3)
        self._tcp, self._steps = rng.uniform(-0.05, 0.05, 3), 0
        return self._seen()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self._tcp = self._tcp + action[:3]
        self._steps += 1
        obs, info = self._seen()
        return obs, 0.0, False, self._steps >= self.max_steps, info

    def save_state(self) -> dict[str, Any]:
        return {"tcp": self._tcp, "steps": self._steps}

    def restore_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        self._tcp, self._steps = state["tcp"], state["steps"]
        return self._seen()[0]

    def close(self) -> None:
        pass

    @property
    def to_target(self) -> np.ndarray:
        return np.append(self._places[self._target], 0.0) - self._tcp

    def _seen(self) -> tuple[dict[str, Any], dict[str, Any]]:
        distance = np.linalg.norm(self.to_target)
        aux = {key: np.full(size, np.nan, np.float32) for key, size in AUX_KEYS.items()}
        aux["target_position"] = np.append(self._places[self._target], 0).astype(np.float32)
        aux["phase"] = np.array([distance < 0.05], np.float32)
        place, tcp = self._places[self._target] * 4, self._tcp[:2] * 4
        state = {f.name: np.zeros(f.size, np.float32) for f in self.embodiment.state}
        state["tcp_position"] = self._tcp.astype(np.float32)
        instruction = f"reach the {self._target} square"
        images = {c.name: _picture(place, tcp, self._target, self.size) for c in self.embodiment.cameras}
        info = {
            "success": bool(distance < 0.02) and not self._unlucky,
            "instruction": instruction,
            "aux": aux,
        }
        return {"images": images, "state": state, "instruction": instruction}, info


class ReachExpert:
    """Goes straight to the target."""

    contract = None

    def __init__(self, env: ReachEnv) -> None:
        self._env = env

    def reset(self) -> None:
        pass

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        move = np.clip(self._env.to_target, -0.03, 0.03)
        action = np.concatenate([move, [0.0, -1.0]]).astype(np.float32)
        return [ActionChunk(actions=action[None], control_hz=10.0) for _ in observations]


class ReachSuite:
    name = "reach"
    tasks = ("reach", "slips", "fails", "breaks")
    embodiments = ("alpha", "beta")

    def make(self, task: str, embodiment: str, **kwargs: Any) -> ReachEnv:
        if task == "breaks":
            raise EnvError("this task cannot be built")
        return ReachEnv(task, embodiment, kwargs["image_size"])

    def expert(self, env: ReachEnv) -> ReachExpert:
        return ReachExpert(env)


def _picture(square: Any, dot: Any, colour: str, size: int) -> np.ndarray:
    grid = np.linspace(-1, 1, size)
    y, x = np.meshgrid(grid, grid, indexing="ij")
    image = np.stack([90 + 40 * x, 110 + 30 * y, 120 + 20 * x * y], axis=-1)
    image[np.maximum(abs(x - square[0]), abs(y - square[1])) < 0.2] = COLOURS[colour]
    image[np.hypot(x - dot[0], y - dot[1]) < 0.1] = (240, 240, 240)
    return image.astype(np.uint8)
