"""What every action head offers, and the chunk decoder that the heads share.

Shapes: B batch, P prefix tokens, S state tokens, D width, H horizon, A active action entries, G = B * k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vla.models.backbones.interface import PrefixFeatures
from vla.models.layers import DecoderBlock, KeysValues


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Sizes of a head.

    Args:
        width: D, must equal the prefix width.
        horizon: H, actions a chunk.
        action_dim: A, entries an action.
        num_blocks, num_heads, feed_ratio: of the decoder.
        num_noise: noise samples per encoded observation in training (flow only).
    """

    width: int = 128
    horizon: int = 8
    action_dim: int = 5
    num_blocks: int = 2
    num_heads: int = 4
    feed_ratio: int = 2
    num_noise: int = 4


@runtime_checkable
class Head(Protocol):
    """Reads prefix features and emits a chunk of normalised actions; a ``torch.nn.Module``."""

    def loss(
        self, prefix: PrefixFeatures, state: Tensor, actions: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Scalar; entries where ``mask`` [b h a] is false count for nothing.

        Args:
            prefix: features [b p d].
            state: state tokens [b s d].
            actions: normalised [b h a].
            mask: bool [b h a].
            generator: source of the noise, if any.
        """
        ...

    def sample(
        self, prefix: PrefixFeatures, state: Tensor, *, num_steps: int, generator: torch.Generator | None
    ) -> Tensor:
        """Normalised actions [b h a]; ``generator`` None: deterministic."""
        ...

    def state_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, eq=False)
class Memory:
    """Keys and values of prefix and state, one pair a block, and the mask: computed once an observation."""

    keys_values: tuple[KeysValues, ...]
    mask: Tensor | None
    batch: int


class ChunkDecoder(nn.Module):
    """One token an action of the chunk; blocks of self-attention and cross-attention to the prefix."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(config.horizon, config.width) * 0.1)
        self.blocks = nn.ModuleList(
            DecoderBlock(config.width, config.num_heads, config.feed_ratio) for _ in range(config.num_blocks)
        )
        self.norm_memory, self.norm_out = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, config.action_dim)

    def encode(self, prefix: PrefixFeatures, state_BSD: Tensor) -> Memory:
        """Everything that depends on neither noise nor denoising step."""
        memory_BMD = self.norm_memory(torch.cat([prefix.features, state_BSD], dim=1))
        mask = prefix.mask
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(state_BSD.shape[:2])], dim=1)
        keys_values = tuple(block.cross_attention.encode(memory_BMD) for block in self._blocks())
        return Memory(keys_values, mask, len(state_BSD))

    def forward(self, x_GHD: Tensor, memory: Memory) -> Tensor:
        """[G H D] -> [G H A]; G is the memory's batch, or a multiple of it (rows repeated in place)."""
        x_GHD = x_GHD + self.places
        for block, keys_values in zip(self._blocks(), memory.keys_values, strict=True):
            x_GHD = block(x_GHD, keys_values, memory.mask)
        return self.out(self.norm_out(x_GHD))

    def _blocks(self) -> list[DecoderBlock]:
        return [block for block in self.blocks if isinstance(block, DecoderBlock)]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask``; zero, with zero gradient, where nothing is."""
    weight = mask.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1.0)
