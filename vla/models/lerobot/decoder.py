"""What the decoders of SmolVLA (Llama) and of pi0 and pi0.5 (Gemma) share, with keys and values as tensors.

transformers' norms and MLPs, but attention of our own: a cache object that grows in place and is cropped
cannot be captured as a graph. Here a prefix is encoded once into plain tensors and every denoising step
reads them. Query heads of one key/value head are folded into the length, so that keys are never repeated.

Shapes: B batch, P prefix tokens, T chunk tokens, S keys (P + T), D width, H heads, K key/value heads,
G = H / K, d head size, L expert layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROPE_BASE = 10_000.0  # both families; SmolVLA ignores its language model's own rope_theta


class Prefix(NamedTuple):
    """Everything about one observation that does not change from one denoising step to the next.

    Args:
        keys, values: of each expert layer, [B K P d].
        mask: bool [B 1 G*T S], what the chunk's tokens may read of prefix and chunk.
        cross_mask: bool [B 1 1 P], what they may read of the prefix alone.
        cos, sin: [B 1 T d/2], rotation of the chunk's tokens.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    cross_mask: Tensor
    cos: Tensor
    sin: Tensor


class Projections(nn.Module):
    """q, k, v and o, without a bias; ``heads`` splits a projection, ``attend`` joins it again."""

    def __init__(self, width: int, num_heads: int, num_kv: int, size: int, source: int | None = None) -> None:
        super().__init__()
        self.size, self.num_kv, self.groups = size, num_kv, num_heads // num_kv
        self.q_proj = nn.Linear(width, num_heads * size, bias=False)
        self.k_proj = nn.Linear(source or width, num_kv * size, bias=False)
        self.v_proj = nn.Linear(source or width, num_kv * size, bias=False)
        self.o_proj = nn.Linear(num_heads * size, width, bias=False)

    def queries(self, x_BTD: Tensor) -> Tensor:
        return self._split(self.q_proj(x_BTD))

    def keys(self, x_BTD: Tensor) -> Tensor:
        return self._split(self.k_proj(x_BTD))

    def values(self, x_BTD: Tensor) -> Tensor:
        return self._split(self.v_proj(x_BTD))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.size)).transpose(1, 2)

    def attend(self, q_BHTd: Tensor, k_BKSd: Tensor, v_BKSd: Tensor, mask: Tensor) -> Tensor:
        """[B T D]; ``mask`` bool [B 1 G*T S] (see :func:`fold`) or [B 1 1 S]."""
        batch, _, length, _ = q_BHTd.shape
        folded = q_BHTd.reshape(batch, self.num_kv, self.groups * length, self.size)
        out = F.scaled_dot_product_attention(folded, k_BKSd, v_BKSd, attn_mask=mask)
        out = out.reshape(batch, self.num_kv * self.groups, length, self.size)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Named as in Llama and Gemma, so that their weights load as they are."""

    def __init__(self, attention: Projections, mlp: nn.Module, norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.self_attn, self.mlp = attention, mlp
        self.input_layernorm, self.post_attention_layernorm = norm(), norm()


def fold(mask_BTS: Tensor, groups: int) -> Tensor:
    """bool [B T S] -> [B 1 G*T S], for queries whose heads are folded into the length."""
    return mask_BTS[:, None].repeat(1, 1, groups, 1)


def rotation(positions_BT: Tensor, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine [B 1 T d/2] of rotary embeddings (arXiv:2104.09864), angles in float32 or better."""
    work = torch.promote_types(dtype, torch.float32)
    half = torch.arange(size // 2, device=positions_BT.device, dtype=work)
    angle = positions_BT[:, None, :, None].to(work) / ROPE_BASE ** (half * (2.0 / size))
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x_BHTd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate halves, not neighbours."""
    a, b = x_BHTd.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def positions_of(mask_BP: Tensor) -> Tensor:
    """int64 [B P]: places counted over valid tokens only (padding repeats the last one)."""
    return mask_BP.cumsum(1) - 1


def encode(
    layers: Iterable[nn.Module], x_BPD: Tensor, mask_BPP: Tensor, positions_BP: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Rotated keys and values of every layer, [B K P d]; the last layer's output is not computed."""
    layers = list(layers)
    first = layers[0].self_attn
    cos, sin = rotation(positions_BP, first.size, x_BPD.dtype)  # type: ignore[arg-type]
    mask = fold(mask_BPP, first.groups)  # type: ignore[arg-type]
    keys, values = [], []
    for i, layer in enumerate(layers):
        attention: Projections = layer.self_attn  # type: ignore[assignment]
        normal = layer.input_layernorm(x_BPD)  # type: ignore[operator]
        keys.append(rotate(attention.keys(normal), cos, sin))
        values.append(attention.values(normal))
        if i + 1 == len(layers):
            break
        query = rotate(attention.queries(normal), cos, sin)
        x_BPD = x_BPD + attention.attend(query, keys[-1], values[-1], mask)
        x_BPD = x_BPD + layer.mlp(layer.post_attention_layernorm(x_BPD))  # type: ignore[operator]
    return keys, values


def time_features(time_N: Tensor, width: int, low: float, high: float) -> Tensor:
    """[N width] float64: sines, then cosines, of periods ``low`` to ``high`` (openpi's time embedding)."""
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=time_N.device)
    rate = 2 * math.pi / (low * (high / low) ** fraction)
    angle = time_N[:, None].double() * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)
