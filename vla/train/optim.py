"""Learning rate, optimizer and moving average of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vla.train.config import OptimConfig
from vla.train.stages.parts import part_of


def learning_rate(config: OptimConfig, step: int, share: float) -> float:
    """Warm-up over the first steps, then a cosine over the share of the budget used (0..1)."""
    cosine = 0.5 * (1 + math.cos(math.pi * share))
    decayed = config.final_lr_share + (1 - config.final_lr_share) * cosine
    return config.lr * decayed * min(1.0, (step + 1) / max(1, config.warmup_steps))


def build_optimizer(net: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over all parameters that learn, fused kernels.

    Each group carries ``lr_factor``, by which the rate of :func:`learning_rate` is multiplied: backbone,
    projector (with token compression) and heads have their own (``config.backbone_lr_factor`` ...).
    """
    return torch.optim.AdamW(
        _groups(net, config),
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )


def _groups(net: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    factors = {"projector": config.projector_lr_factor, "trunk": 1.0, "heads": config.head_lr_factor}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            factor = factors.get(part_of(name, net), config.backbone_lr_factor)
            groups.setdefault(factor, []).append(parameter)
    return [{"params": p, "lr_factor": factor, "lr": config.lr * factor} for factor, p in groups.items()]


class MovingAverage:
    """Exponential moving average of parameters; the decay ramps up so that early weights are forgotten."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.names = [name for name, _ in net.named_parameters()]
        self.values = [p.detach().clone() for p in net.parameters()]

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in net.parameters()], 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.values, strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Strict."""
        if set(state) != set(self.names):
            raise KeyError(f"moving average has other names: {sorted(set(state) ^ set(self.names))[:5]}")
        for name, value in zip(self.names, self.values, strict=True):
            value.copy_(state[name])
