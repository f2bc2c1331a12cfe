"""From camera pictures to what a vision encoder reads: resize, normalise, tile; the same on every device.

Shapes: N pictures, S side in px, T 1 + tiles * tiles views of a picture (the whole first, then its tiles
row by row).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Fit = Literal["squash", "crop"]

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How a family was shown pictures when it was trained.

    Args:
        mean, std: per colour (RGB), of values in 0..1.
        fit: ``squash`` to the square, or resize the shorter side and ``crop`` the centre.
        mode: interpolation, always antialiased. (Lanczos, which Idefics 3 and SmolVLM were trained with, is
            not in torch; bicubic stands in.)
    """

    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    fit: Fit = "squash"
    mode: Literal["bicubic", "bilinear"] = "bicubic"


def resize_square(images_NHW3: Tensor, side: int, fit: Fit, mode: str) -> Tensor:
    """uint8 [N H W 3] -> float32 [N 3 side side], whole numbers in 0..255 (what an 8-bit resize gives)."""
    x = images_NHW3.permute(0, 3, 1, 2).float()
    height, width = x.shape[2:]
    target = (side, side)
    if fit == "crop":
        short = min(height, width)
        target = (side * height // short, side * width // short)
    if (height, width) != target:
        x = F.interpolate(x, target, mode=mode, antialias=True).round().clamp(0, 255)
    top, left = (target[0] - side) // 2, (target[1] - side) // 2
    return x[:, :, top : top + side, left : left + side]


def prepare(images_NHW3: Tensor, side: int, tiles: int, pixels: Pixels) -> Tensor:
    """uint8 [N H W 3] -> normalised float32 [N T 3 S S]; ``tiles`` 0: the whole picture alone (T is 1)."""
    views = [resize_square(images_NHW3, side, pixels.fit, pixels.mode)[:, None]]
    if tiles:
        large = resize_square(images_NHW3, side * tiles, pixels.fit, pixels.mode)
        rows = large.unflatten(3, (tiles, side)).unflatten(2, (tiles, side))  # N 3 rows S columns S
        views.append(rows.permute(0, 2, 4, 1, 3, 5).flatten(1, 2))
    x = torch.cat(views, dim=1)
    mean, std = (x.new_tensor(values)[:, None, None] for values in (pixels.mean, pixels.std))
    return (x / 255 - mean) / std


def merge_order_patches(pixels_N3SS: Tensor, patch: int, merge: int, frames: int) -> Tensor:
    """Patches in the order of Qwen-VL (arXiv:2409.12191): blocks of merge * merge neighbours in turn.

    [N 3 S S] -> [N * (S / patch)^2, 3 * frames * patch * patch]; a still is shown ``frames`` times.
    """
    n, _, side, _ = pixels_N3SS.shape
    grid = side // patch // merge
    x = pixels_N3SS[:, :, None].expand(-1, -1, frames, -1, -1)
    x = x.reshape(n, 3, frames, grid, merge, patch, grid, merge, patch)
    return x.permute(0, 3, 6, 4, 7, 1, 2, 5, 8).reshape(n * (grid * merge) ** 2, 3 * frames * patch * patch)


def row_order_patches(pixels_N3SS: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Patches row by row, colours last (Gemma 4): [N, (S / patch)^2, patch * patch * 3] and where each lies,
    (x, y) int64 [N, (S / patch)^2, 2].
    """
    n, _, side, _ = pixels_N3SS.shape
    grid = side // patch
    x = pixels_N3SS.reshape(n, 3, grid, patch, grid, patch).permute(0, 2, 4, 3, 5, 1)
    places = torch.arange(grid * grid, device=x.device)
    where = torch.stack([places % grid, places // grid], dim=-1)
    return x.reshape(n, grid * grid, -1), where.expand(n, -1, -1)
