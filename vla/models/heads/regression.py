"""L1 regression: one pass, no noise. Learns the trunk faster than flow; cannot express two modes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.interface import ChunkDecoder, HeadConfig, Memory, masked_mean


class RegressionHead(nn.Module):
    """Masked mean absolute error on the chunk."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = ChunkDecoder(config)

    def encode_prefix(self, prefix: PrefixFeatures, state: Tensor) -> Memory:
        """Once an observation."""
        return self.decoder.encode(prefix, state)

    def predict(self, prefix: PrefixFeatures, state: Tensor) -> Tensor:
        """[b h a]."""
        memory = self.encode_prefix(prefix, state)
        start = state.new_zeros(memory.batch, self.config.horizon, self.config.width)
        return self.decoder(start, memory)

    def loss(
        self, prefix: PrefixFeatures, state: Tensor, actions: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        return masked_mean((self.predict(prefix, state).float() - actions).abs(), mask)

    def sample(
        self, prefix: PrefixFeatures, state: Tensor, *, num_steps: int, generator: torch.Generator | None
    ) -> Tensor:
        return self.predict(prefix, state)
