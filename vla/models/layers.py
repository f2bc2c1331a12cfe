"""Transformer pieces shared by backbones, fusion trunk and heads.

Shapes: B batch, T tokens, M memory tokens, D width, n heads, h width per head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Keys and values of a memory, [B n M h] each, computed once and read many times.
KeysValues = tuple[Tensor, Tensor]


def split_heads(x_BTD: Tensor, num_heads: int) -> Tensor:
    """[B T D] -> [B n T h]."""
    return x_BTD.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x_BnTh: Tensor) -> Tensor:
    """Inverse of :func:`split_heads`."""
    return x_BnTh.transpose(1, 2).flatten(-2)


def key_mask(mask_BM: Tensor | None) -> Tensor | None:
    """bool [B M], true where a token is real -> [B 1 1 M] for attention (None: all are)."""
    return None if mask_BM is None else mask_BM[:, None, None, :]


class SelfAttention(nn.Module):
    """Every token reads every token."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        q, k, v = self.query_key_value(x_BTD).chunk(3, dim=-1)
        q, k, v = (split_heads(t, self.num_heads) for t in (q, k, v))
        return self.out(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask(mask_BT))))

    def weights(self, x_BTD: Tensor, read_n: Tensor, mask_Bn: Tensor | None) -> Tensor:
        """How each token's attention divides over those at places ``read``: [B heads T n]; 0 where masked."""
        width = x_BTD.shape[-1]
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        q, k = F.linear(x_BTD, weight[: 2 * width], bias[: 2 * width]).chunk(2, dim=-1)
        q, k = split_heads(q, self.num_heads), split_heads(k[:, read_n], self.num_heads)
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if mask_Bn is None:
            return logits.softmax(-1)
        return logits.masked_fill(~mask_Bn[:, None, None], float("-inf")).softmax(-1).nan_to_num()


class CrossAttention(nn.Module):
    """Tokens read a memory whose keys and values are computed once by :meth:`encode`."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def encode(self, memory_BMD: Tensor) -> KeysValues:
        k, v = self.key_value(memory_BMD).chunk(2, dim=-1)
        return split_heads(k, self.num_heads), split_heads(v, self.num_heads)

    def forward(self, x_BTD: Tensor, memory: KeysValues, mask_BM: Tensor | None = None) -> Tensor:
        q = split_heads(self.query(x_BTD), self.num_heads)
        return self.out(merge_heads(F.scaled_dot_product_attention(q, *memory, attn_mask=key_mask(mask_BM))))


class FeedForward(nn.Sequential):
    """Width -> ratio * width -> width."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))


class EncoderBlock(nn.Module):
    """Pre-norm self-attention block."""

    def __init__(self, width: int, num_heads: int, ratio: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, num_heads)
        self.feed = FeedForward(width, ratio)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        x_BTD = x_BTD + self.attention(self.norm_attention(x_BTD), mask_BT)
        return x_BTD + self.feed(self.norm_feed(x_BTD))

    def attends(self, x_BTD: Tensor, read_n: Tensor, mask_Bn: Tensor | None) -> Tensor:
        """Its attention from all tokens to some, [B heads T n]; see :meth:`SelfAttention.weights`."""
        return self.attention.weights(self.norm_attention(x_BTD), read_n, mask_Bn)


class DecoderBlock(nn.Module):
    """Pre-norm self-attention, then cross-attention to a precomputed memory, then feed-forward."""

    def __init__(self, width: int, num_heads: int, ratio: int) -> None:
        super().__init__()
        self.norm_self, self.norm_cross, self.norm_feed = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention = SelfAttention(width, num_heads)
        self.cross_attention = CrossAttention(width, num_heads)
        self.feed = FeedForward(width, ratio)

    def encode(self, memory_BMD: Tensor) -> KeysValues:
        """Keys and values of the memory, computed once an observation."""
        return self.cross_attention.encode(memory_BMD)

    def forward(
        self,
        x_GTD: Tensor,
        memory: KeysValues,
        mask_BM: Tensor | None = None,
        condition_GD: Tensor | None = None,
    ) -> Tensor:
        """``x`` may hold several groups per memory row (G = B * k): they share its keys and values.

        ``condition`` is for blocks that modulate their norm; this one reads the time from ``x`` alone.
        """
        groups = x_GTD.shape[0] // memory[0].shape[0]
        x_GTD = x_GTD + self.self_attention(self.norm_self(x_GTD))
        query_BTD = self.norm_cross(x_GTD).unflatten(0, (-1, groups)).flatten(1, 2)
        read_BTD = self.cross_attention(query_BTD, memory, mask_BM)
        x_GTD = x_GTD + read_BTD.unflatten(1, (groups, -1)).flatten(0, 1)
        return x_GTD + self.feed(self.norm_feed(x_GTD))


def sinusoids(time_B: Tensor, width: int) -> Tensor:
    """float [B] in 0..1 -> [B width]: sines and cosines at periods from 4 to 0.004 (geometric)."""
    exponent = torch.linspace(0.0, 1.0, width // 2, device=time_B.device, dtype=torch.float32)
    angle = time_B.float()[:, None] * (torch.pi / 2) * torch.pow(torch.tensor(1000.0), exponent)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
