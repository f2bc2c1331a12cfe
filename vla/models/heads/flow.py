"""Flow matching: noise flows to the chunk along a learned velocity (arXiv:2210.02747).

``x_t = (1 - t) noise + t actions``, ``v = actions - noise``; sampling integrates v from t = 0 to 1
with Euler steps of the configured schedule. The prefix's keys and values are computed once and shared
by all noise samples (training) and all denoising steps (inference).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.denoiser import Denoiser
from vla.models.heads.interface import Memory
from vla.models.heads.schedules import time_grid


class FlowHead(Denoiser):
    """Masked mean squared error on the velocity."""

    def velocity(self, memory: Memory, x_GHA: Tensor, time_G: Tensor) -> Tensor:
        """One denoising step's velocity [G H A]; G is the memory's batch or a multiple of it."""
        return self.predict(memory, x_GHA, time_G)

    def loss(
        self, prefix: PrefixFeatures, state: Tensor, actions: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        actions = actions.where(mask, 0.0)[:, None]
        noise, time = self.draw(actions[:, 0], generator)
        t = time[..., None, None]
        x = (1 - t) * noise + t * actions
        return self.error(self.encode_prefix(prefix, state), x, time, actions - noise, mask)

    def times(self, num_steps: int) -> tuple[float, ...]:
        return time_grid(self.config.schedule, num_steps)

    def weights(self, time: float) -> tuple[float, float]:
        return time, 1 - time

    def clean(self, memory: Memory, x_BHA: Tensor, time: float) -> Tensor:
        time_B = torch.full((len(x_BHA),), time, device=x_BHA.device)
        return x_BHA + (1 - time) * self.velocity(memory, x_BHA, time_B)

    def sample(
        self, prefix: PrefixFeatures, state: Tensor, *, num_steps: int, generator: torch.Generator | None
    ) -> Tensor:
        """``generator`` None starts from zero noise (the mode-seeking default), else from a draw."""
        x = self.start(state, generator)
        memory = self.encode_prefix(prefix, state)
        uniform = self.config.schedule == "uniform"
        for now, then in pairwise(self.times(num_steps)):
            time = torch.full((len(state),), now, device=state.device)
            velocity = self.velocity(memory, x, time)
            x = x + (velocity / num_steps if uniform else velocity * (then - now))
        return x
