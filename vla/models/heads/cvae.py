"""CVAE chunk head (ACT, arXiv:2304.13705): what the prefix leaves open is a latent, zero at inference.

actions, mask, state ─► encoder ─► mean, variance ─► z ─┐            (training only)
prefix, state ─► memory ────────────────────────────────┴► chunk decoder ─► actions
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.interface import ChunkDecoder, HeadConfig, Memory, masked_mean
from vla.models.layers import EncoderBlock


class CVAEHead(nn.Module):
    """Masked mean absolute error, plus ``kl_weight`` times the latent's divergence from a unit Gaussian."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.decoder = ChunkDecoder(config)
        self.latent_in = nn.Linear(config.latent_dim, width)
        self.action_in = nn.Linear(2 * config.action_dim, width)  # values, and which there are
        self.places = nn.Parameter(torch.randn(config.horizon, width) * 0.1)
        self.summary = nn.Parameter(torch.randn(width) * 0.1)
        self.encoder = EncoderBlock(width, config.num_heads, config.feed_ratio)
        self.latent_out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * config.latent_dim))

    def encode_prefix(self, prefix: PrefixFeatures, state: Tensor) -> Memory:
        """Once an observation."""
        return self.decoder.encode(prefix, state)

    def posterior(self, state: Tensor, actions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance [b z] of the latent that explains a chunk."""
        seen = torch.cat([actions.where(mask, 0.0), mask.to(actions.dtype)], dim=-1)
        chunk = self.action_in(seen) + self.places
        tokens = torch.cat([self.summary.expand(len(state), 1, -1), state, chunk], dim=1)
        mean, log_variance = self.latent_out(self.encoder(tokens, None)[:, 0]).float().chunk(2, dim=-1)
        return mean, log_variance.clamp(-10, 10)

    def predict(self, memory: Memory, latent: Tensor) -> Tensor:
        """Chunk [b h a] for a latent [b z]."""
        start = self.latent_in(latent)[:, None].expand(-1, self.config.horizon, -1)
        return self.decoder(start, memory)

    def loss(
        self, prefix: PrefixFeatures, state: Tensor, actions: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        mean, log_variance = self.posterior(state, actions, mask)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        latent = mean + (0.5 * log_variance).exp() * noise
        made = self.predict(self.encode_prefix(prefix, state), latent.to(state.dtype)).float()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        there = mask.flatten(1).any(1)
        error = masked_mean((made - actions.where(mask, 0.0)).abs(), mask)
        return error + self.config.kl_weight * masked_mean(divergence, there)

    def sample(
        self, prefix: PrefixFeatures, state: Tensor, *, num_steps: int, generator: torch.Generator | None
    ) -> Tensor:
        """``generator`` None: the latent's mean, zero; else a draw."""
        shape = (len(state), self.config.latent_dim)
        latent = torch.zeros(shape, device=state.device, dtype=state.dtype)
        if generator is not None:
            latent = torch.randn(shape, generator=generator, device=state.device, dtype=state.dtype)
        return self.predict(self.encode_prefix(prefix, state), latent)
