"""Flow matching: noise flows to the chunk along a learned velocity (arXiv:2210.02747).

``x_t = (1 - t) noise + t actions``, ``v = actions - noise``; sampling integrates v from t = 0 to 1
with Euler steps of the configured schedule. The prefix's keys and values are computed once and shared
by all noise samples (training) and all denoising steps (inference).

With ``prefix_delay`` the head also learns to go on from actions that will be executed while it thinks
(real-time chunking by training, arXiv:2512.05964): in each draw the first d actions, d uniform in 0 ..
prefix_delay, are given as they are, at time 1, and only the others count. Sampling then puts the frozen
actions there in every step; no gradient is needed. Where more are frozen than it has learned, guidance
(``heads.guidance``) does it as ever.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.denoiser import Denoiser
from vla.models.heads.guidance import Continuation
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
        if self.config.prefix_delay:
            given = self.given(time, generator)
            x, mask = torch.where(given[..., None], actions, x), mask[:, None] & ~given[..., None]
            time = torch.where(given, 1.0, time[..., None])
        return self.error(self.encode_prefix(prefix, state), x, time, actions - noise, mask)

    def given(self, time_Bk: Tensor, generator: torch.Generator) -> Tensor:
        """bool [B k H]: the first actions of each draw, 0 .. prefix_delay of them."""
        count = torch.randint(
            self.config.prefix_delay + 1, time_Bk.shape, generator=generator, device=time_Bk.device
        )
        return torch.arange(self.config.horizon, device=time_Bk.device) < count[..., None]

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

    def continued(
        self,
        prefix: PrefixFeatures,
        state: Tensor,
        plan: Continuation,
        *,
        num_steps: int,
        generator: torch.Generator | None,
    ) -> Tensor:
        """A chunk [B H A] that goes on from frozen actions as it was trained to; else by guidance."""
        if not 0 < int(plan.frozen.sum(1).max()) <= self.config.prefix_delay:
            return super().continued(prefix, state, plan, num_steps=num_steps, generator=generator)
        with torch.no_grad():
            memory, x = self.encode_prefix(prefix, state), self.start(state, generator)
            for now, then in pairwise(self.times(num_steps)):
                x = torch.where(plan.frozen, plan.actions, x)
                time = torch.where(plan.frozen[..., 0], 1.0, now)
                x = x + self.predict(memory, x, time) * (then - now)
            return torch.where(plan.frozen, plan.actions, x)
