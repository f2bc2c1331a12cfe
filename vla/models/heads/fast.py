"""FAST tokens (arXiv:2501.09747): the chunk's cosine coefficients, byte-pair coded, one token after another.

Decoding cannot fail: tokens that stand for more coefficients than are left are never chosen, and the chunk is
complete when all are told.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.errors import ConfigError
from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.action_codec import ActionCodec, hold
from vla.models.heads.autoregressive import TokenDecoder, pick
from vla.models.heads.interface import HeadConfig, Memory, masked_mean

_IGNORE = -100


class FASTHead(nn.Module):
    """Cross-entropy on the tokens of the chunk; masked entries are held at their last known value."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        if config.codec is None:
            raise ConfigError(
                "The fast head needs the codec of its training actions (`codec`: JSON of an ActionCodec). "
                "Training fits one; by hand: ActionCodec.fit(chunks).to_json()."
            )
        self.config, self.codec = config, ActionCodec.from_json(config.codec)
        if (self.codec.horizon, self.codec.action_dim) != (config.horizon, config.action_dim):
            raise ConfigError(
                f"The codec was fitted to chunks of {self.codec.horizon} x {self.codec.action_dim}; "
                f"this head makes {config.horizon} x {config.action_dim}."
            )
        self.decoder = TokenDecoder(config, self.codec.vocabulary, config.horizon * config.action_dim)
        sizes = torch.tensor([len(symbols) for symbols in self.codec.expansions])
        self.register_buffer("sizes", sizes, persistent=False)

    sizes: Tensor

    def encode_prefix(self, prefix: PrefixFeatures, state: Tensor) -> Memory:
        """Once an observation."""
        return self.decoder.encode(prefix, state)

    def tokens(self, actions: Tensor, mask: Tensor) -> Tensor:
        """int64 [b t], -100 behind the last token of a chunk."""
        chunks = hold(actions.detach().double().cpu().numpy(), mask.cpu().numpy())
        rows = self.codec.encode(chunks)
        ids = np.full((len(rows), max(map(len, rows))), _IGNORE)
        for place, row in zip(ids, rows, strict=True):
            place[: len(row)] = row
        return torch.from_numpy(ids).to(actions.device)

    def loss(
        self, prefix: PrefixFeatures, state: Tensor, actions: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        ids = self.tokens(actions, mask)
        logits = self.decoder(ids.clamp(min=0), self.encode_prefix(prefix, state)).float()
        loss = F.cross_entropy(logits.transpose(1, 2), ids, reduction="none", ignore_index=_IGNORE)
        return masked_mean(loss, (ids != _IGNORE) & mask.flatten(1).any(1)[:, None])

    def sample(
        self, prefix: PrefixFeatures, state: Tensor, *, num_steps: int, generator: torch.Generator | None
    ) -> Tensor:
        """``generator`` None: the likeliest token, else draws. ``num_steps`` has no meaning here."""
        memory, past, made = self.encode_prefix(prefix, state), None, []
        ids = self.decoder.start(memory)
        left = torch.full((memory.batch,), self.decoder.length, device=ids.device)
        while bool((left > 0).any()):
            logits, past = self.decoder.step(ids, len(made), memory, past)
            too_long = (self.sizes > left[:, None]) & (left > 0)[:, None]
            ids = pick(logits.masked_fill(too_long, float("-inf")), generator)
            made.append(ids.where(left > 0, -1))
            left = (left - self.sizes[ids]).clamp(min=0)
        rows = [[i for i in row if i >= 0] for row in torch.stack(made, dim=1).tolist()]
        return torch.from_numpy(self.codec.decode(rows)).to(state)
