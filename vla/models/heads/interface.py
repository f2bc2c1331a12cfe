"""What every action head offers, and the chunk decoder that the heads share.

Shapes: B batch, P prefix tokens, S state tokens, D width, H horizon, A active action entries, G = B * k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vla.errors import ConfigError, UnknownNameError
from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.schedules import SCHEDULES
from vla.models.layers import DecoderBlock, KeysValues
from vla.models.parallel_block import ParallelBlock

#: Kinds of decoder block by name; same parameters to build and call.
BLOCKS: dict[str, type[DecoderBlock] | type[ParallelBlock]] = {
    "sequential": DecoderBlock,
    "parallel": ParallelBlock,
}


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Sizes of a head.

    Args:
        width: D, must equal the prefix width.
        horizon: H, actions a chunk.
        action_dim: A, entries an action.
        num_blocks, num_heads, feed_ratio: of the decoder.
        num_noise: noise samples per encoded observation in training (flow and diffusion).
        block: ``sequential`` (self-attention, cross-attention, feed-forward in turn) or ``parallel`` (all
            at once behind one norm that the time modulates; the ``fast`` preset).
        schedule: of the flow's steps: ``uniform``, ``early`` or ``late``, see ``heads.schedules``.
        prefix_delay: of the flow head: in training it is also given the first 0 .. prefix_delay actions of a
            chunk as they are, to go on from (``heads.flow``); 0: never. Sequential blocks only.
        prediction: of the diffusion head: ``v`` or ``epsilon``.
        num_bins, bin_limit: of the binned head: bins between -bin_limit and bin_limit.
        latent_dim, kl_weight: of the CVAE head.
        codec: of the fast head: JSON of an ``ActionCodec`` fitted to the training actions.
    """

    width: int = 128
    horizon: int = 8
    action_dim: int = 5
    num_blocks: int = 2
    num_heads: int = 4
    feed_ratio: int = 2
    num_noise: int = 4
    block: str = "sequential"
    schedule: str = "uniform"
    prefix_delay: int = 0
    prediction: str = "v"
    num_bins: int = 256
    bin_limit: float = 1.0
    latent_dim: int = 32
    kl_weight: float = 1.0
    codec: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for kind, given, known in (
            ("decoder block", self.block, BLOCKS),
            ("flow schedule", self.schedule, SCHEDULES),
            ("diffusion prediction", self.prediction, ("v", "epsilon")),
        ):
            if given not in known:
                raise UnknownNameError(kind, given, known)
        if not 0 <= self.prefix_delay < self.horizon or (self.prefix_delay and self.block != "sequential"):
            raise ConfigError(
                f"prefix_delay is {self.prefix_delay} with horizon {self.horizon} and {self.block!r} blocks; "
                "expected 0, or less than the horizon with 'sequential' blocks (the others modulate a whole "
                "chunk by one time)."
            )
        if self.num_bins < 2 or self.bin_limit <= 0 or self.latent_dim < 1 or self.kl_weight < 0:
            raise ConfigError(
                "num_bins >= 2, bin_limit > 0, latent_dim >= 1 and kl_weight >= 0 expected: "
                f"{self.num_bins}, {self.bin_limit}, {self.latent_dim}, {self.kl_weight}."
            )


#: Settings of single kinds of head: what ``PolicyNetConfig.head_settings`` may hold.
HEAD_SETTINGS = tuple(
    f.name
    for f in fields(HeadConfig)
    if f.name
    not in ("width", "horizon", "action_dim", "num_blocks", "num_heads", "feed_ratio", "num_noise", "block")
)


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
            BLOCKS[config.block](config.width, config.num_heads, config.feed_ratio)
            for _ in range(config.num_blocks)
        )
        self.norm_memory, self.norm_out = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, config.action_dim)

    def encode(self, prefix: PrefixFeatures, state_BSD: Tensor) -> Memory:
        """Everything that depends on neither noise nor denoising step."""
        memory_BMD = self.norm_memory(torch.cat([prefix.features, state_BSD], dim=1))
        mask = prefix.mask
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(state_BSD.shape[:2])], dim=1)
        keys_values = tuple(block.encode(memory_BMD) for block in self.each_block())
        return Memory(keys_values, mask, len(state_BSD))

    def forward(self, x_GHD: Tensor, memory: Memory, condition_GD: Tensor | None = None) -> Tensor:
        """[G H D] -> [G H A]; G is the memory's batch, or a multiple of it (rows repeated in place).

        ``condition``: the embedded time, for blocks that modulate their norm.
        """
        x_GHD = x_GHD + self.places
        for block, keys_values in zip(self.each_block(), memory.keys_values, strict=True):
            x_GHD = block(x_GHD, keys_values, memory.mask, condition_GD)
        return self.out(self.norm_out(x_GHD))

    def each_block(self) -> list[DecoderBlock | ParallelBlock]:
        return [block for block in self.blocks if isinstance(block, DecoderBlock | ParallelBlock)]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask``; zero, with zero gradient, where nothing is."""
    weight = mask.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1.0)
