"""Our side's policy of bench_eval.py: the shared network behind the policy protocol."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from bench_eval_net import BenchNet

from vla.types import ActionChunk, Observation

#: Meta-World's arm at 80 Hz; its ``tcp_position_delta`` of 0.01 m is Meta-World's action of 1.
CONTROL_HZ, SCALE = 80.0, np.array([0.01, 0.01, 0.01, 1.0], np.float32)


class BenchPolicy:
    """A fixed network, made for no arm in particular: it costs what a small policy costs."""

    contract = None

    def __init__(self, horizon: int) -> None:
        torch.set_num_threads(1)
        self.net = BenchNet(horizon)

    def reset(self) -> None:
        """Nothing is remembered."""

    @torch.inference_mode()
    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        pictures = torch.from_numpy(np.stack([seen.images["front"] for seen in observations]))
        picture = pictures.permute(0, 3, 1, 2).contiguous().float().div_(255)
        state = [np.r_[seen.state["tcp_position"], seen.state["gripper_opening"]] for seen in observations]
        chunks = self.net(picture, torch.from_numpy(np.stack(state))).numpy() * SCALE
        return [ActionChunk(actions=chunk, control_hz=CONTROL_HZ) for chunk in chunks]


def make(horizon: int = 1) -> BenchPolicy:
    return BenchPolicy(int(horizon))
