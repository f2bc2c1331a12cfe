"""From camera pictures to what a vision encoder reads: resize, tile, normalise; the same on every device.

Shapes: N pictures, S side in px, T views of a picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vla.models.backbones.resample import resize

Fit = Literal["squash", "crop", "pad"]

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How a model was shown pictures when it was trained.

    Args:
        mean, std: per colour (RGB), of values times ``rescale``.
        fit: ``squash`` to the square, resize the shorter side and ``crop`` the centre, or ``pad`` to a square
            in the mean colour.
        mode: filter, of ``vla.models.backbones.resample.FILTERS``.
        rescale: what 8-bit values are multiplied by.
        margin: the shorter side before a crop, in sides of what is left.
    """

    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    fit: Fit = "squash"
    mode: str = "bicubic"
    rescale: float = 1 / 255
    margin: float = 1.0


def resize_square(x_N3HW: Tensor, side: int, pixels: Pixels) -> Tensor:
    """uint8 [N 3 H W] -> uint8 [N 3 side side]."""
    height, width = x_N3HW.shape[2:]
    target = (side, side)
    if pixels.fit == "crop":
        short, wanted = min(height, width), round(side * pixels.margin)
        target = (wanted * height // short, wanted * width // short)
    elif pixels.fit == "pad" and height != width:
        x_N3HW = _pad_square(x_N3HW, pixels)
    x = resize(x_N3HW, *target, pixels.mode)
    top, left = (target[0] - side) // 2, (target[1] - side) // 2
    return x[:, :, top : top + side, left : left + side]


def _pad_square(x_N3HW: Tensor, pixels: Pixels) -> Tensor:
    height, width = x_N3HW.shape[2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    colour = torch.tensor([int(m * 255) for m in pixels.mean], dtype=torch.uint8, device=x_N3HW.device)
    padded = colour[:, None, None].expand(len(x_N3HW), -1, side, side).clone()
    padded[:, :, top : top + height, left : left + width] = x_N3HW
    return padded


#: ``tiling(pictures uint8 [N 3 H W], side, tiles, pixels)``: views uint8 [N T 3 S S].
Tiling = Callable[[Tensor, int, int, Pixels], Tensor]


def whole(x_N3HW: Tensor, side: int, tiles: int, pixels: Pixels) -> Tensor:
    """The picture."""
    return resize_square(x_N3HW, side, pixels)[:, None]


def _cut(x_N3HW: Tensor, side: int, tiles: int) -> Tensor:
    """[N 3 side*tiles side*tiles] -> [N tiles*tiles 3 side side], row by row."""
    rows = x_N3HW.unflatten(3, (tiles, side)).unflatten(2, (tiles, side))  # N 3 rows S columns S
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def whole_and_tiles(x_N3HW: Tensor, side: int, tiles: int, pixels: Pixels) -> Tensor:
    """The picture, then the tiles of it enlarged, even where there is but one (LLaVA-NeXT)."""
    large = _cut(resize_square(x_N3HW, side * tiles, pixels), side, tiles)
    return torch.cat([whole(x_N3HW, side, 1, pixels), large], dim=1)


def tiles_and_whole(x_N3HW: Tensor, side: int, tiles: int, pixels: Pixels) -> Tensor:
    """The tiles of the enlarged picture, then the picture (InternVL, arXiv:2404.16821)."""
    if tiles == 1:
        return whole(x_N3HW, side, 1, pixels)
    large = _cut(resize_square(x_N3HW, side * tiles, pixels), side, tiles)
    return torch.cat([large, whole(x_N3HW, side, 1, pixels)], dim=1)


def tiles_and_shrunk(x_N3HW: Tensor, side: int, tiles: int, pixels: Pixels) -> Tensor:
    """The tiles of the enlarged picture, then the enlarged picture shrunk (Idefics 3, arXiv:2408.12637)."""
    if tiles == 1:
        return whole(x_N3HW, side, 1, pixels)
    large = resize_square(x_N3HW, side * tiles, pixels)
    return torch.cat([_cut(large, side, tiles), whole(large, side, 1, pixels)], dim=1)


def quarters_and_whole(x_N3HW: Tensor, side: int, tiles: int, pixels: Pixels) -> Tensor:
    """The picture's quarters, each enlarged, then the picture (Idefics 2, arXiv:2405.02246)."""
    if tiles == 1:
        return whole(x_N3HW, side, 1, pixels)
    y, x = x_N3HW.shape[2] // 2, x_N3HW.shape[3] // 2
    halves = (x_N3HW[:, :, :y], x_N3HW[:, :, y:])
    quarters = [part for half in halves for part in (half[..., :x], half[..., x:])]
    return torch.stack([resize_square(view, side, pixels) for view in (*quarters, x_N3HW)], dim=1)


def prepare(
    images_NHW3: Tensor, side: int, pixels: Pixels, *, tiles: int = 1, tiling: Tiling = whole
) -> Tensor:
    """uint8 [N H W 3] -> normalised float32 [N T 3 S S]."""
    x = tiling(images_NHW3.permute(0, 3, 1, 2), side, tiles, pixels).float()
    mean, std = (x.new_tensor(values)[:, None, None] for values in (pixels.mean, pixels.std))
    return (x * pixels.rescale - mean) / std


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
