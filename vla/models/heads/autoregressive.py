"""A causal decoder over discrete tokens that reads prefix and state; keys and values are cached.

Shapes: B batch, T tokens, V vocabulary, D width, n heads, h width per head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.interface import HeadConfig, Memory
from vla.models.layers import CrossAttention, FeedForward, KeysValues, merge_heads, split_heads


class CausalBlock(nn.Module):
    """Causal self-attention, cross-attention to a precomputed memory, then feed-forward."""

    def __init__(self, width: int, num_heads: int, ratio: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_self, self.norm_cross, self.norm_feed = (nn.LayerNorm(width) for _ in range(3))
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.cross_attention = CrossAttention(width, num_heads)
        self.feed = FeedForward(width, ratio)

    def forward(
        self, x_BTD: Tensor, memory: KeysValues, mask_BM: Tensor | None, past: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        """All tokens at once (``past`` None), or one more token behind those of ``past``."""
        q, k, v = self.query_key_value(self.norm_self(x_BTD)).chunk(3, dim=-1)
        q, k, v = (split_heads(t, self.num_heads) for t in (q, k, v))
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        read = F.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        x_BTD = x_BTD + self.out(merge_heads(read))
        x_BTD = x_BTD + self.cross_attention(self.norm_cross(x_BTD), memory, mask_BM)
        return x_BTD + self.feed(self.norm_feed(x_BTD)), (k, v)


class TokenDecoder(nn.Module):
    """Logits of the next token; at most ``length`` tokens."""

    def __init__(self, config: HeadConfig, vocabulary: int, length: int) -> None:
        super().__init__()
        self.vocabulary, self.length = vocabulary, length
        self.words = nn.Embedding(vocabulary + 1, config.width)  # the last one begins the sequence
        nn.init.normal_(self.words.weight, std=0.5)
        self.places = nn.Parameter(torch.randn(length, config.width) * 0.1)
        self.blocks = nn.ModuleList(
            CausalBlock(config.width, config.num_heads, config.feed_ratio) for _ in range(config.num_blocks)
        )
        self.norm_memory, self.norm_out = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, vocabulary)

    def encode(self, prefix: PrefixFeatures, state_BSD: Tensor) -> Memory:
        """Keys and values of prefix and state, once an observation."""
        memory_BMD = self.norm_memory(torch.cat([prefix.features, state_BSD], dim=1))
        mask = prefix.mask
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(state_BSD.shape[:2])], dim=1)
        keys_values = tuple(block.cross_attention.encode(memory_BMD) for block in self.each_block())
        return Memory(keys_values, mask, len(state_BSD))

    def forward(self, ids_BT: Tensor, memory: Memory) -> Tensor:
        """Logits [B T V] of each token of ``ids`` given those before it."""
        begin = torch.full_like(ids_BT[:, :1], self.vocabulary)
        return self._decode(torch.cat([begin, ids_BT[:, :-1]], dim=1), 0, memory, None)[0]

    def step(
        self, ids_B: Tensor, place: int, memory: Memory, past: list[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        """Logits [B V] of the token at ``place`` after ``ids``, the token before it, and the longer cache."""
        logits_B1V, cache = self._decode(ids_B[:, None], place, memory, past)
        return logits_B1V[:, 0], cache

    def start(self, memory: Memory) -> Tensor:
        """What comes before the first token: int64 [B]."""
        return torch.full((memory.batch,), self.vocabulary, device=self.places.device)

    def _decode(
        self, ids_BT: Tensor, place: int, memory: Memory, past: list[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        x_BTD = self.words(ids_BT) + self.places[place : place + ids_BT.shape[1]]
        cache = []
        for i, (block, pair) in enumerate(zip(self.each_block(), memory.keys_values, strict=True)):
            x_BTD, kept = block(x_BTD, pair, memory.mask, None if past is None else past[i])
            cache.append(kept)
        return self.out(self.norm_out(x_BTD)), cache

    def each_block(self) -> list[CausalBlock]:
        return [block for block in self.blocks if isinstance(block, CausalBlock)]


def pick(logits_BV: Tensor, generator: torch.Generator | None) -> Tensor:
    """int64 [B]: the likeliest token, or a draw."""
    if generator is None:
        return logits_BV.argmax(-1)
    return torch.multinomial(logits_BV.float().softmax(-1), 1, generator=generator)[:, 0]
