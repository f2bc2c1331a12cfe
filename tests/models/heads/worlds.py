"""Toy problems and small heads for the tests of all heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.models.nets import noise
from vla.models.backbones import PrefixFeatures
from vla.models.heads import HeadConfig, build_head
from vla.models.heads.action_codec import ActionCodec

NAMES = ("flow", "diffusion", "epsilon", "regression", "binned", "fast", "cvae")
MODAL = ("flow", "diffusion", "binned", "fast")  # those that must keep two modes apart
WIDTH, HORIZON, ACTIONS = 32, 3, 2


def codec() -> dict[str, Any]:
    chunks = torch.randn(200, HORIZON, ACTIONS, generator=noise(5)).clamp(-1, 1)
    chunks[:100] = 0.7
    chunks[100:150] = -0.7
    return ActionCodec.fit(chunks.numpy(), scale=5.0, vocabulary=40).to_json()


def make_head(name: str, **changes: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "width": WIDTH, "horizon": HORIZON, "action_dim": ACTIONS, "num_blocks": 1, "num_noise": 2,
        "num_bins": 32, "latent_dim": 4, "codec": codec() if name == "fast" else None,
    }  # fmt: skip
    if name == "epsilon":
        name, changes = "diffusion", {"prediction": "epsilon", **changes}
    return build_head(name, HeadConfig(**(values | changes)))


def seen(batch: int = 4, tokens: int = 5, *, seed: int = 1) -> tuple[PrefixFeatures, Tensor]:
    source = noise(seed)
    features = torch.randn(batch, tokens, WIDTH, generator=source)
    return PrefixFeatures(features, None), torch.randn(batch, 1, WIDTH, generator=source)


def labels(batch: int = 4) -> tuple[Tensor, Tensor]:
    actions = torch.rand(batch, HORIZON, ACTIONS, generator=noise(2)) * 1.6 - 0.8
    return actions, torch.ones(batch, HORIZON, ACTIONS, dtype=torch.bool)


def fit(head: torch.nn.Module, batches, steps: int, rate: float = 3e-3) -> tuple[float, float]:
    """Mean loss of the first and the last ten steps; ``batches(step)`` gives what ``loss`` takes."""
    optimizer, source, losses = torch.optim.AdamW(head.parameters(), rate), noise(), []
    for step in range(steps):
        loss = head.loss(*batches(step), source)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return sum(losses[:10]) / 10, sum(losses[-10:]) / 10
