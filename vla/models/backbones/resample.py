"""Pillow's picture resize in torch, to the last bit: what nearly every vision encoder was trained behind.

Torch's own antialiased resize differs from it by a level of 256 here and there, and has no Lanczos filter.
Weights have 22 fractional bits, and each pass rounds to 8 bits. Columns come before rows, as in every Pillow
before 13 (which turns the order where the height shrinks more than the width).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_BITS = 22


def _box(x: float) -> float:
    return float(-0.5 < x <= 0.5)


def _bilinear(x: float) -> float:
    return max(0.0, 1 - abs(x))


def _hamming(x: float) -> float:
    if x == 0:
        return 1.0
    return (
        0.0 if abs(x) >= 1 else math.sin(math.pi * x) / (math.pi * x) * (0.54 + 0.46 * math.cos(math.pi * x))
    )


def _bicubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def _lanczos(x: float) -> float:
    return float(np.sinc(x) * np.sinc(x / 3)) if -3 <= x < 3 else 0.0


#: Name -> weight of a distance in pixels, and how far it reaches.
FILTERS: dict[str, tuple[Callable[[float], float], float]] = {
    "lanczos": (_lanczos, 3.0),
    "bilinear": (_bilinear, 1.0),
    "bicubic": (_bicubic, 2.0),
    "box": (_box, 0.5),
    "hamming": (_hamming, 1.0),
}


@lru_cache(maxsize=256)
def _weights(size_in: int, size_out: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """int64 [K size_out] places to read, int32 [K size_out] their weights."""
    weigh, reach = FILTERS[name]
    scale = size_in / size_out
    wide = max(scale, 1.0)
    centres = (np.arange(size_out) + 0.5) * scale
    firsts = np.maximum(0, (centres - reach * wide + 0.5).astype(np.int64))
    counts = np.minimum(size_in, (centres + reach * wide + 0.5).astype(np.int64)) - firsts
    places, weights = (
        np.zeros((counts.max(), size_out), np.int64),
        np.zeros((counts.max(), size_out), np.int32),
    )
    for i, (centre, first, count) in enumerate(zip(centres.tolist(), firsts, counts, strict=True)):
        raw = [weigh((int(first) + j - centre + 0.5) / wide) for j in range(count)]
        total = sum(raw) or 1.0
        places[:count, i] = np.arange(first, first + count)
        weights[:count, i] = [int(w / total * 2**_BITS + math.copysign(0.5, w)) for w in raw]
    return places, weights


def _taps(size_in: int, size_out: int, name: str, device: str) -> tuple[Tensor, Tensor]:
    places, weights = _weights(size_in, size_out, name)
    return torch.from_numpy(places).to(device), torch.from_numpy(weights).to(device)


# What torch.compiler.assume_constant_result does, which besides imports the compiler and with it Triton.
_taps._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _resize_rows(x_NCHW: Tensor, height: int, name: str) -> Tensor:
    """int32 [N C H W] -> int32 [N C height W], in 0..255."""
    places, weights = _taps(int(x_NCHW.shape[2]), height, name, str(x_NCHW.device))
    shape = (*x_NCHW.shape[:2], height, x_NCHW.shape[3])
    total = torch.full(shape, 1 << (_BITS - 1), dtype=torch.int32, device=x_NCHW.device)
    for place, weight in zip(places, weights, strict=True):
        total = total.addcmul_(x_NCHW.index_select(2, place), weight[:, None])
    return (total >> _BITS).clamp_(0, 255)


def resize(x_NCHW: Tensor, height: int, width: int, name: str) -> Tensor:
    """uint8 [N C H W] -> uint8 [N C height width], as ``PIL.Image.resize`` with the filter ``name``."""
    height, width = int(height), int(width)  # tensors, while a graph is traced
    if x_NCHW.shape[2:] == (height, width):
        return x_NCHW
    x = x_NCHW.int()
    if x.shape[3] != width:
        x = _resize_rows(x.transpose(2, 3).contiguous(), width, name).transpose(2, 3).contiguous()
    if x.shape[2] != height:
        x = _resize_rows(x.contiguous(), height, name)
    return x.to(torch.uint8)
