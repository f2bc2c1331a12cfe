"""Binned tokens: every entry of the chunk is one of ``num_bins`` values, told one after the other.

As in RT-2 (arXiv:2307.15818): entry by entry, action by action. Values beyond ``bin_limit`` fall into the
outermost bins.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.autoregressive import TokenDecoder, pick
from vla.models.heads.interface import HeadConfig, Memory, masked_mean


class BinnedHead(nn.Module):
    """Masked cross-entropy."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = TokenDecoder(config, config.num_bins, config.horizon * config.action_dim)

    def encode_prefix(self, prefix: PrefixFeatures, state: Tensor) -> Memory:
        """Once an observation."""
        return self.decoder.encode(prefix, state)

    def bins(self, actions: Tensor) -> Tensor:
        """int64, of the shape of ``actions``."""
        limit, count = self.config.bin_limit, self.config.num_bins
        return ((actions / limit + 1) * (count / 2)).floor().clamp(0, count - 1).long()

    def centres(self, ids: Tensor) -> Tensor:
        """Right inverse of :meth:`bins`: the middle of each bin."""
        return ((ids.float() + 0.5) * (2 / self.config.num_bins) - 1) * self.config.bin_limit

    def loss(
        self, prefix: PrefixFeatures, state: Tensor, actions: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        ids, there = self.bins(actions.where(mask, 0.0)).flatten(1), mask.flatten(1)
        # what is masked here is made up at inference; whoever reads it must learn that it says nothing
        made_up = torch.randint(self.config.num_bins, ids.shape, generator=generator, device=ids.device)
        ids = ids.where(there, made_up)
        logits = self.decoder(ids, self.encode_prefix(prefix, state)).float()
        return masked_mean(F.cross_entropy(logits.transpose(1, 2), ids, reduction="none"), there)

    def sample(
        self, prefix: PrefixFeatures, state: Tensor, *, num_steps: int, generator: torch.Generator | None
    ) -> Tensor:
        """``generator`` None: the likeliest bin each time, else draws. ``num_steps`` has no meaning here."""
        memory, past, made = self.encode_prefix(prefix, state), None, []
        ids = self.decoder.start(memory)
        for place in range(self.decoder.length):
            logits, past = self.decoder.step(ids, place, memory, past)
            ids = pick(logits, generator)
            made.append(ids)
        chunk = self.centres(torch.stack(made, dim=1)).to(state.dtype)
        return chunk.unflatten(1, (self.config.horizon, self.config.action_dim))
