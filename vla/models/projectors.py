"""From backbone features to the policy's: width alone, or a fixed number of learned queries.

``linear`` and ``mlp`` keep every token. ``qformer`` and ``perceiver`` ask the tokens with R latents, so that
trunk and head see R tokens whatever the backbone, the number of cameras and the length of the instruction.

Shapes: B batch, P prefix tokens, V backbone width, R latents, D width.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from vla.errors import ConfigError, UnknownNameError
from vla.models.backbones.in_context import PerceiverResampler
from vla.models.backbones.interface import PrefixFeatures
from vla.models.layers import DecoderBlock

ProjectorName = Literal["linear", "mlp", "qformer", "perceiver"]
RESAMPLERS = ("qformer", "perceiver")  # give latents; the others give a token for a token


class QFormer(nn.Module):
    """BLIP-2's querying transformer (arXiv:2301.12597): latents attend to each other and to the tokens."""

    def __init__(self, width: int, num_latents: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(num_latents, width) * 0.1)
        self.blocks = nn.ModuleList(DecoderBlock(width, num_heads, 2) for _ in range(num_layers))
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x_BPD: Tensor, mask_BP: Tensor | None) -> Tensor:
        """[B P D], bool [B P] (None: all) -> [B R D]."""
        memory_BPD = self.norm_in(x_BPD)
        latents = self.latents.expand(len(x_BPD), -1, -1)
        for block in self.blocks:
            assert isinstance(block, DecoderBlock)
            latents = block(latents, block.encode(memory_BPD), mask_BP)
        return self.norm_out(latents)


class Resampler(nn.Module):
    """Width first, then R latents that read the tokens."""

    def __init__(self, width_in: int, width_out: int, query: nn.Module) -> None:
        super().__init__()
        self.width = nn.Linear(width_in, width_out)
        self.query = query

    def forward(self, x_BPV: Tensor, mask_BP: Tensor | None) -> Tensor:
        """[B P V], bool [B P] (None: all) -> [B R D]."""
        return self.query(self.width(x_BPV), mask_BP)


def build_projector(
    name: str,
    width_in: int,
    width_out: int,
    *,
    num_latents: int = 32,
    num_layers: int = 2,
    num_heads: int = 4,
) -> nn.Module:
    """A projector by name; :func:`project` applies it.

    Args:
        name: ``linear``: one layer; ``mlp``: two layers with GELU (as in LLaVA 1.5, arXiv:2310.03744);
            ``qformer`` (arXiv:2301.12597); ``perceiver`` (arXiv:2103.03206, as in Flamingo).
        width_in, width_out: V and D.
        num_latents, num_layers, num_heads: of ``qformer`` and ``perceiver``.

    Raises:
        UnknownNameError, ConfigError: no such projector; sizes that do not fit.
    """
    if name == "linear":
        return nn.Linear(width_in, width_out)
    if name == "mlp":
        return nn.Sequential(nn.Linear(width_in, width_out), nn.GELU(), nn.Linear(width_out, width_out))
    kinds: dict[str, type[nn.Module]] = {"qformer": QFormer, "perceiver": PerceiverResampler}
    if name not in kinds:
        raise UnknownNameError("projector", name, get_args(ProjectorName))
    if min(num_latents, num_layers) < 1 or width_out % num_heads:
        raise ConfigError(
            f"A {name} needs num_latents >= 1, num_layers >= 1 and num_heads that divide width {width_out}; "
            f"given: {num_latents}, {num_layers}, {num_heads}."
        )
    return Resampler(width_in, width_out, kinds[name](width_out, num_latents, num_layers, num_heads))


def project(projector: nn.Module, seen: PrefixFeatures) -> PrefixFeatures:
    """The backbone's features as the policy's; every latent of a resampler is real, so it needs no mask."""
    if isinstance(projector, Resampler):
        return PrefixFeatures(projector(seen.features, seen.mask), None, seen.auxiliary)
    return PrefixFeatures(projector(seen.features), seen.mask, seen.auxiliary, seen.visual)
