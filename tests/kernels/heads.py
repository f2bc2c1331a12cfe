"""Heads, prefixes and inputs that the kernel tests share."""

from __future__ import annotations

import torch

from vla.models.backbones import PrefixFeatures
from vla.models.heads import FlowHead, HeadConfig, RegressionHead, build_head

BLOCKS = ("sequential", "parallel")


def config(block: str, **changes) -> HeadConfig:
    sizes = {"width": 32, "horizon": 6, "action_dim": 5, "num_blocks": 2, "num_heads": 2, "num_noise": 2}
    return HeadConfig(**{**sizes, "block": block, **changes})


def make_head(name: str, block: str, **changes) -> FlowHead | RegressionHead:
    torch.manual_seed(0)
    head = build_head(name, config(block, **changes))
    with torch.no_grad():
        for value in head.parameters():  # norms that do something, modulation that modulates
            value.add_(0.1 * torch.randn(value.shape))
    return head.eval()


def prefix(tokens: int = 9, batch: int = 2, *, seed: int = 1) -> tuple[PrefixFeatures, torch.Tensor]:
    """Features and mask (some hidden, the first never), and one state token."""
    source = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, tokens, 32, generator=source)
    mask = torch.rand(batch, tokens, generator=source) > 0.3
    mask[:, 0] = True
    return PrefixFeatures(features, mask), torch.randn(batch, 1, 32, generator=source)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
