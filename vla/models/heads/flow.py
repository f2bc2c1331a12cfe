"""Flow matching: noise flows to the chunk along a learned velocity (arXiv:2210.02747).

``x_t = (1 - t) noise + t actions``, ``v = actions - noise``; sampling integrates v from t = 0 to 1
with Euler steps of the configured schedule. The prefix's keys and values are computed once and shared
by all noise samples (training) and all denoising steps (inference).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.interface import ChunkDecoder, HeadConfig, Memory, masked_mean
from vla.models.heads.schedules import time_grid
from vla.models.layers import sinusoids


class FlowHead(nn.Module):
    """Masked mean squared error on the velocity."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = ChunkDecoder(config)
        self.action_in = nn.Linear(config.action_dim, config.width)
        self.time_in = nn.Sequential(
            nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, config.width)
        )

    def encode_prefix(self, prefix: PrefixFeatures, state: Tensor) -> Memory:
        """Once an observation; feed the result to :meth:`velocity`."""
        return self.decoder.encode(prefix, state)

    def velocity(self, memory: Memory, x_GHA: Tensor, time_G: Tensor) -> Tensor:
        """One denoising step's velocity [G H A]; G is the memory's batch or a multiple of it."""
        time_GD = self.time_in(sinusoids(time_G, self.config.width).to(x_GHA.dtype))
        return self.decoder(self.action_in(x_GHA) + time_GD[:, None], memory, time_GD)

    def loss(
        self, prefix: PrefixFeatures, state: Tensor, actions: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        batch, count = len(actions), self.config.num_noise
        actions = actions.where(mask, 0.0)
        noise = torch.randn(batch, count, *actions.shape[1:], generator=generator, device=actions.device)
        # one time in each of `count` equal bands: the same expectation, less variance
        band = torch.arange(count, device=actions.device)
        time = (band + torch.rand(batch, count, generator=generator, device=actions.device)) / count
        t = time[..., None, None]
        target = actions[:, None] - noise
        x = ((1 - t) * noise + t * actions[:, None]).flatten(0, 1)
        velocity = self.velocity(self.encode_prefix(prefix, state), x, time.flatten()).float()
        error = (velocity.unflatten(0, (batch, count)) - target).square()
        return masked_mean(error, mask[:, None].expand_as(error))

    def sample(
        self, prefix: PrefixFeatures, state: Tensor, *, num_steps: int, generator: torch.Generator | None
    ) -> Tensor:
        """``generator`` None starts from zero noise (the mode-seeking default), else from a draw."""
        shape = (len(state), self.config.horizon, self.config.action_dim)
        x = torch.zeros(shape, device=state.device, dtype=state.dtype)
        if generator is not None:
            x = torch.randn(shape, generator=generator, device=state.device, dtype=state.dtype)
        memory = self.encode_prefix(prefix, state)
        uniform = self.config.schedule == "uniform"
        for now, then in pairwise(time_grid(self.config.schedule, num_steps)):
            time = torch.full((len(state),), now, device=state.device)
            velocity = self.velocity(memory, x, time)
            x = x + (velocity / num_steps if uniform else velocity * (then - now))
        return x
