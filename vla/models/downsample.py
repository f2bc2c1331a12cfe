"""MobileVLM's light down-sampling connectors: a quarter of the visual tokens at almost no cost.

``ldp`` (arXiv:2312.16886): two layers, then depthwise-separable convolutions, the second of stride 2.
``ldpv2`` (arXiv:2402.03766): two layers, 2 x 2 mean, and a depthwise convolution that adds positions.

Shapes: N pictures, P patches (a square, row by row), V width of the vision encoder, D of the language model.
"""

from __future__ import annotations

from math import isqrt
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vla.errors import ConfigError, UnknownNameError

ConnectorName = Literal["own", "ldp", "ldpv2"]


def build_connector(name: str, width_in: int, width_out: int) -> nn.Module:
    """A connector by name: [N P V] -> [N P/4 D]."""
    known = {"ldp": LightDownsample, "ldpv2": LightDownsampleV2}
    if name not in known:
        raise UnknownNameError("connector", name, known)
    return known[name](width_in, width_out)


def _to_map(x_NPD: Tensor) -> Tensor:
    side = isqrt(x_NPD.shape[1])
    if side * side != x_NPD.shape[1] or side % 2:
        raise ConfigError(f"Down-sampling needs an even square of patches, not {x_NPD.shape[1]}.")
    return x_NPD.transpose(1, 2).unflatten(2, (side, side))


class SeparableBlock(nn.Module):
    """Depthwise 3 x 3, squeeze and excitation, pointwise; with a residual where nothing shrinks."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.depthwise = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=width, bias=False)
        self.norm1 = nn.GroupNorm(1, width)
        self.squeeze, self.excite = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.norm2 = nn.GroupNorm(1, width)

    def forward(self, x_NDyx: Tensor) -> Tensor:
        y = F.hardswish(self.norm1(self.depthwise(x_NDyx)))
        scale = F.hardsigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        y = self.norm2(self.pointwise(y * scale))
        return y + x_NDyx if self.stride == 1 else y


class LightDownsample(nn.Module):
    """LDP: [N P V] -> [N P/4 D]."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width_in, width_out), nn.GELU(), nn.Linear(width_out, width_out))
        self.blocks = nn.Sequential(SeparableBlock(width_out, 1), SeparableBlock(width_out, 2))

    def forward(self, x_NPV: Tensor) -> Tensor:
        return self.blocks(_to_map(self.mlp(x_NPV))).flatten(2).transpose(1, 2)


class LightDownsampleV2(nn.Module):
    """LDPv2: [N P V] -> [N P/4 D]."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width_in, width_out), nn.GELU(), nn.Linear(width_out, width_out))
        self.places = nn.Conv2d(width_out, width_out, 3, padding=1, groups=width_out)

    def forward(self, x_NPV: Tensor) -> Tensor:
        x = F.avg_pool2d(_to_map(self.mlp(x_NPV)), 2)
        return (x + self.places(x)).flatten(2).transpose(1, 2)
