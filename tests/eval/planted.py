"""A small world in which a policy on disk can be sound or have one thing wrong with it.

Two arms see two dots with a front and a wrist camera. What stands for the network is arithmetic on the very
tensors that a network is given, so that everything around it is real: weights and contract in their files,
statistics computed from demonstrations, cameras by role, words by vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tests.eval.fake_suite import (
    COLORS,
    HALF_M,
    HEIGHT_M,
    WORDS,
    PointEnv,
    PointExpert,
    point_embodiment,
    towards,
)
from vla.contract import CONTRACT_FILE, WEIGHTS_FILE, PolicyContract
from vla.data.statistics import Normalizer, compute_statistics
from vla.data.store import EpisodeStore
from vla.embodiment import Camera, Embodiment, Field
from vla.interfaces import observation_from_gym
from vla.models.backbones.words import WordTokenizer, build_vocabulary
from vla.models.net_config import PolicyNetConfig
from vla.models.policy_net import PolicyInputs
from vla.models.saving import save_policy
from vla.spaces import ACTION_DIM
from vla.transforms import actions_in_slots
from vla.types import Episode, Step
from vla_policies.learned import LearnedPolicy

ARMS = {"point": 1.0, "dot": -1.0}  # where each one's joint stands, rad
WINDOW_M = 0.1  # half the width of what the wrist camera sees


def arm_of(name: str) -> Embodiment:
    plain = point_embodiment(name)
    given: Any = {"mode": "absolute", "frame": "world", "unit": "1"}
    return replace(
        plain,
        cameras=(*plain.cameras, Camera(name="hand", role="wrist", height=32, width=32)),
        state=(
            *plain.state,
            Field(name="yaw", size=2, low=(-1,) * 2, high=(1,) * 2, slot="arm0.tcp_yaw",
                  rotation_format="cos_sin_2yaw", **given),
            Field(name="joint", size=1, low=(-3,), high=(3,), slot="arm0.joint_position",
                  **{**given, "unit": "rad", "frame": "joint"}),
        ),
    )  # fmt: skip


class TwoViewEnv(PointEnv):
    """The point env with a wrist camera that shows the dots around the tool, a yaw and a joint."""

    def __init__(self, name: str = "point") -> None:
        super().__init__("reach", name)
        self.embodiment = arm_of(name)

    def _observe(self) -> dict[str, Any]:
        seen = super()._observe()
        hand = np.zeros((32, 32, 3), np.uint8)
        for name, dot in self.dots.items():
            place = (dot[:2] - self.tcp[:2] + WINDOW_M) / (2 * WINDOW_M) * 31
            if (place >= 0).all() and (place <= 31).all():
                hand[tuple(place.round().astype(int))] = COLORS[name]
        seen["images"]["hand"] = hand
        angle = 3 * self.tcp[0]
        seen["state"]["yaw"] = np.array([np.cos(angle), np.sin(angle)], np.float32)
        joint = ARMS[self.embodiment.name] + 0.5 * self.tcp[1]
        seen["state"]["joint"] = np.array([joint], np.float32)
        return seen


class Arithmetic(torch.nn.Module):
    """Finds the dot of the colour that it was told in its tensors and goes there.

    Knows the statistics that it was made with by heart, as trained weights do.
    """

    def __init__(self, contract: PolicyContract, trained: Normalizer) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.config = PolicyNetConfig.from_json(contract.network)
        self.words = list(contract.instruction["vocabulary"])
        self.backbone = SimpleNamespace(tokenize=WordTokenizer(self.words, 8).encode)
        self.trained, self.roles, self.arms = trained, contract.camera_roles, contract.embodiments
        self.dtype = torch.float32

    def sample(self, inputs: PolicyInputs, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        chunks = [self._chunk(inputs, row) for row in range(len(inputs.state))]
        return torch.from_numpy(np.stack(chunks)), torch.zeros(len(chunks), 2, 3)

    def _chunk(self, inputs: PolicyInputs, row: int) -> np.ndarray:
        arm = self.arms[sorted(self.arms)[int(inputs.embodiment_id[row])]]
        state = self.trained.unnormalise_state(arm.name, inputs.state[row].numpy()[arm.state_index])
        tcp, told = state[:3], {self.words[i] for i in inputs.token_ids[row].tolist()}
        usual = (
            () if set(COLORS) <= set(self.words) else ("red",)
        )  # who knows no colours does the usual thing
        color = next((COLORS[name] for name in (*COLORS, *usual) if name in (*told, *usual)), (-1, -1, -1))
        pictures = dict(zip(self.roles, inputs.images[row].numpy(), strict=True))
        target, actions = self._find(pictures, color, tcp), []
        for _ in range(4):
            actions.append(np.zeros(4, np.float32) if target is None else towards(target, tcp))
            tcp = tcp + actions[-1][:3]
        chunk, _ = actions_in_slots(np.stack(actions), arm, self.trained)
        assert chunk.shape == (4, ACTION_DIM)
        return chunk.astype(np.float32)

    @staticmethod
    def _find(pictures: dict[str, np.ndarray], color: Any, tcp: np.ndarray) -> np.ndarray | None:
        """Closely by the wrist camera where it sees the dot, else by the front one."""
        for role, half, origin in (("wrist", WINDOW_M, tcp[:2]), ("front", HALF_M, np.zeros(2))):
            places = np.argwhere((pictures[role] == color).all(-1)) if role in pictures else np.zeros((0, 2))
            if len(places):
                return np.array([*(origin + places[0] / 31 * 2 * half - half), HEIGHT_M], np.float32)
        return None


def demonstrations(where: Path) -> EpisodeStore:
    with EpisodeStore.create(where, embodiments=[arm_of(name) for name in ARMS]) as store:
        for name in ARMS:
            env = TwoViewEnv(name)
            for seed in range(1000, 1008):
                store.append(_demonstration(env, seed))
    return EpisodeStore.open(where)


def _demonstration(env: TwoViewEnv, seed: int) -> Episode:
    obs, info = env.reset(seed=seed)
    expert, steps, done = PointExpert(env), [], False
    while not done:
        seen = observation_from_gym(obs, env.embodiment, time_s=len(steps) / 10)
        action = expert.act([seen])[0].actions[0]
        steps.append(Step(observation=seen, action=action, executed=action))
        obs, _, success, over, info = env.step(action)
        done = success or over
    return Episode(
        steps=tuple(steps),
        instruction=info["instruction"],
        embodiment=env.embodiment.name,
        success=True,
        provenance={"task": "reach", "seed": seed},
    )


def save_sound_policy(directory: Path, scratch: Path) -> Normalizer:
    """Writes weights and contract; returns the statistics that it was made with."""
    arms = {name: arm_of(name) for name in ARMS}
    with demonstrations(scratch) as store:
        trained = Normalizer(arms, compute_statistics(store), state_mode="mean_std", action_mode="quantile")
    index = tuple(int(i) for i in arms["point"].action_index)
    contract = PolicyContract(
        embodiments=arms,
        normalisation=trained.to_json(),
        camera_roles=("front", "wrist"),
        image_size=32,
        horizon=4,
        execution_horizon=2,
        heads=("regression",),
        num_flow_steps=1,
        instruction={"vocabulary": build_vocabulary(WORDS["train"].format(name) for name in COLORS)},
        network=PolicyNetConfig(action_index=index, heads=("regression",), horizon=4).to_json(),
        provenance={},
    )
    save_policy(directory, Arithmetic(contract, trained).state_dict(), contract)
    return trained


def edit(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change ``policy.json`` in place."""
    path = directory / CONTRACT_FILE
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def load(directory: Path, trained: Normalizer) -> LearnedPolicy:
    contract = PolicyContract.load(directory)
    net = Arithmetic(contract, trained)
    net.load_state_dict(load_file(directory / WEIGHTS_FILE))
    return LearnedPolicy(net, contract)  # type: ignore[arg-type]
