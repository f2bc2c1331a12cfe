"""Diffusion: a cosine noise schedule in continuous time, sampled with DDIM (arXiv:2010.02502, 2102.09672).

``x_t = alpha(t) actions + sigma(t) noise`` with ``alpha = cos(pi t / 2)``, ``sigma = sin(pi t / 2)``. The net
predicts the noise (``epsilon``) or ``v = alpha noise - sigma actions`` (arXiv:2202.00512, the default).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.interface import ChunkDecoder, HeadConfig, Memory, masked_mean
from vla.models.layers import sinusoids

_LAST = 0.98  # time that sampling starts from: at 1 the actions have no weight in x and epsilon says nothing
_LIMIT = 4.0  # of the estimated actions while sampling; normalised actions lie well within


class DiffusionHead(nn.Module):
    """Masked mean squared error on what is predicted."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = ChunkDecoder(config)
        self.action_in = nn.Linear(config.action_dim, config.width)
        self.time_in = nn.Sequential(
            nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, config.width)
        )

    def encode_prefix(self, prefix: PrefixFeatures, state: Tensor) -> Memory:
        """Once an observation; feed the result to :meth:`predict`."""
        return self.decoder.encode(prefix, state)

    def predict(self, memory: Memory, x_GHA: Tensor, time_G: Tensor) -> Tensor:
        """Epsilon or v [G H A]; G is the memory's batch or a multiple of it."""
        time_GD = self.time_in(sinusoids(time_G, self.config.width).to(x_GHA.dtype))
        return self.decoder(self.action_in(x_GHA) + time_GD[:, None], memory, time_GD)

    def loss(
        self, prefix: PrefixFeatures, state: Tensor, actions: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        batch, count = len(actions), self.config.num_noise
        actions = actions.where(mask, 0.0)[:, None]
        noise = torch.randn(batch, count, *actions.shape[2:], generator=generator, device=actions.device)
        band = torch.arange(count, device=actions.device)  # one time in each band: less variance
        time = (band + torch.rand(batch, count, generator=generator, device=actions.device)) / count * _LAST
        alpha, sigma = _weights(time[..., None, None])
        x = (alpha * actions + sigma * noise).flatten(0, 1)
        target = noise if self.config.prediction == "epsilon" else alpha * noise - sigma * actions
        made = self.predict(self.encode_prefix(prefix, state), x, time.flatten()).float()
        error = (made.unflatten(0, (batch, count)) - target).square()
        return masked_mean(error, mask[:, None].expand_as(error))

    def sample(
        self, prefix: PrefixFeatures, state: Tensor, *, num_steps: int, generator: torch.Generator | None
    ) -> Tensor:
        """DDIM; ``generator`` None starts from zero noise, else from a draw."""
        shape = (len(state), self.config.horizon, self.config.action_dim)
        x = torch.zeros(shape, device=state.device, dtype=state.dtype)
        if generator is not None:
            x = torch.randn(shape, generator=generator, device=state.device, dtype=state.dtype)
        memory = self.encode_prefix(prefix, state)
        times = torch.linspace(_LAST, 0.0, num_steps + 1, device=state.device)
        for now, then in pairwise(times):
            (alpha, sigma), (next_alpha, next_sigma) = _weights(now), _weights(then)
            made = self.predict(memory, x, now.expand(len(x)))
            if self.config.prediction == "epsilon":
                actions = (x - sigma * made) / alpha
            else:
                actions = alpha * x - sigma * made
            actions = actions.clamp(-_LIMIT, _LIMIT)
            noise = (x - alpha * actions) / sigma
            x = next_alpha * actions + next_sigma * noise
        return x


def _weights(time: Tensor) -> tuple[Tensor, Tensor]:
    """Of actions and of noise."""
    angle = time * (torch.pi / 2)
    return angle.cos(), angle.sin()
