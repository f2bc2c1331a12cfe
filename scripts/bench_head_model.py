"""The network of ``bench_head.py``: a head of the reference size, and a vision-language prefix before it.

The prefix is of a small model's kind: 12 layers of width 384 over two views of 128 px in patches of 16, then
8 gated layers over 160 tokens (128 of pictures, 32 of words). Weights are random: only sizes matter here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.flow import FlowHead
from vla.models.heads.interface import HeadConfig
from vla.models.layers import EncoderBlock, SelfAttention

WIDTH, BLOCKS, HEADS, RATIO = 384, 6, 6, 4
CHUNK, ACTION, PREFIX, STEPS = 16, 32, 160, 10
VIEWS, SIDE, PATCH, LAYERS, GATED_LAYERS = 2, 128, 16, 12, 8


@dataclass(frozen=True)
class Inputs:
    prefix: PrefixFeatures
    state: Tensor
    noise: Tensor
    pictures: Tensor
    words: Tensor


def build(block: str) -> tuple[FlowHead, VisionPrefix, Inputs]:
    torch.manual_seed(0)
    sizes = {"width": WIDTH, "num_blocks": BLOCKS, "num_heads": HEADS, "feed_ratio": RATIO}
    head = FlowHead(HeadConfig(**sizes, horizon=CHUNK, action_dim=ACTION, block=block)).eval()
    mask = torch.rand(1, PREFIX) > 0.2
    seen = PrefixFeatures(torch.randn(1, PREFIX, WIDTH), mask)
    state, noise = torch.randn(1, 1, WIDTH), torch.randn(1, CHUNK, ACTION)
    pictures, vision = torch.rand(VIEWS, 3, SIDE, SIDE), VisionPrefix().eval()
    words = torch.randn(1, PREFIX - VIEWS * (SIDE // PATCH) ** 2, WIDTH)
    return head, vision, Inputs(seen, state, noise, pictures, words)


class VisionPrefix(nn.Module):
    """Pictures [VIEWS 3 SIDE SIDE] and embedded words [1 L D] -> features [1 PREFIX D]."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.places = nn.Parameter(torch.randn((SIDE // PATCH) ** 2, WIDTH) * 0.02)
        self.vision = nn.Sequential(*(EncoderBlock(WIDTH, HEADS, RATIO) for _ in range(LAYERS)))
        self.project = nn.Linear(WIDTH, WIDTH)
        self.language = nn.Sequential(*(GatedBlock() for _ in range(GATED_LAYERS)))

    def forward(self, pictures: Tensor, words_1LD: Tensor) -> Tensor:
        seen = self.vision(self.patches(pictures).flatten(2).transpose(1, 2) + self.places)
        joined = torch.cat([self.project(seen).flatten(0, 1)[None], words_1LD], 1)
        return F.layer_norm(self.language(joined), (WIDTH,))


class GatedBlock(nn.Module):
    """Pre-norm self-attention, then a gated MLP (arXiv:2002.05202)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = SelfAttention(WIDTH, HEADS)
        self.opening, self.content = (nn.Linear(WIDTH, RATIO * WIDTH) for _ in range(2))
        self.closing = nn.Linear(RATIO * WIDTH, WIDTH)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.norm_attention(x_BTD))
        h_BTD = self.norm_feed(x_BTD)
        return x_BTD + self.closing(F.silu(self.opening(h_BTD)) * self.content(h_BTD))
