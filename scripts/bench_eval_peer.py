"""lerobot's side of bench_eval.py: its own evaluation of Meta-World; runs in lerobot's own Python.

usage: python bench_eval_peer.py '{"tasks": ["reach-v3"], "episodes": 2, "batch": 2, "horizon": 1}'

lerobot's vector environments (one process each), its rollout and its sums; no films, and processors that do
nothing. Prints JSON as its last line: seconds from making the environments to the result, episodes, steps.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from typing import Any

import torch
from bench_eval_net import BenchNet
from lerobot.envs.configs import MetaworldEnv
from lerobot.envs.utils import close_envs
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.scripts import lerobot_eval
from torch import Tensor


class BenchPolicy(PreTrainedPolicy):
    """The shared network as lerobot wants a policy: a queue of actions, asked again when it is empty."""

    config_class, name = ACTConfig, "bench"

    def __init__(self, config: ACTConfig, horizon: int) -> None:
        super().__init__(config)
        self.net, self.decisions = BenchNet(horizon), 0
        self.reset()

    def reset(self) -> None:
        self._queue: deque[Tensor] = deque()

    def get_optim_params(self) -> dict[str, Any]:
        return {}

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any] | None]:
        raise NotImplementedError("it is not trained")

    def predict_action_chunk(self, batch: dict[str, Tensor], **_: Any) -> Tensor:
        self.decisions += len(batch["observation.state"])
        return self.net(batch["observation.image"], batch["observation.state"].float())

    def select_action(self, batch: dict[str, Tensor], **_: Any) -> Tensor:
        if not self._queue:
            self._queue.extend(self.predict_action_chunk(batch).unbind(1))
        return self._queue.popleft()


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    policy = BenchPolicy(ACTConfig(device="cpu"), asked["horizon"])
    steps = []
    rollout = lerobot_eval.rollout

    def counted(*given: Any, **named: Any) -> dict[str, Tensor]:
        data = rollout(*given, **named)
        steps.extend((torch.argmax(data["done"].int(), dim=1) + 1).tolist())
        return data

    lerobot_eval.rollout = counted
    began = time.perf_counter()
    config = MetaworldEnv(task=",".join(asked["tasks"]))
    envs = config.create_envs(n_envs=asked["batch"], use_async_envs=asked["batch"] > 1)
    same = [lambda given: given] * 4
    with torch.no_grad():
        found = lerobot_eval.eval_policy_all(
            envs, policy, *same, n_episodes=asked["episodes"], start_seed=0, max_episodes_rendered=0
        )
    wall_s = time.perf_counter() - began
    close_envs(envs)
    print(
        json.dumps(
            {
                "wall_s": wall_s,
                "episodes": len(steps),
                "steps": steps,
                "decisions": policy.decisions,
                "success": found["overall"]["pc_success"],
            }
        )
    )


if __name__ == "__main__":
    main()
