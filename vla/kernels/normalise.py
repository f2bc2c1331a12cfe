# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""The adaptive norm itself, in Triton: the tiles that products read, and its gradients.

What is normalised is stored only for a weight's gradient. Source of each formula:
:mod:`vla.kernels.reference`. Shapes as there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vla.kernels import tiles
from vla.kernels.language import tl, triton
from vla.kernels.reference import EPS


@triton.jit
def row_statistics(x, rows, there, D, x_row, eps, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr):
    """Mean and 1 / standard deviation of each row, float32."""
    total = tl.zeros([BLOCK_M], tl.float32)
    for start in range(0, D, BLOCK_K):
        cols = start + tl.arange(0, BLOCK_K)
        ok = there[:, None] & (cols < D)[None, :]
        tile = tl.load(x + rows[:, None] * x_row + cols[None, :], mask=ok, other=0.0)
        total += tl.sum(tile.to(tl.float32), axis=1)
    mean = total / D
    squares = tl.zeros([BLOCK_M], tl.float32)
    for start in range(0, D, BLOCK_K):
        cols = start + tl.arange(0, BLOCK_K)
        ok = there[:, None] & (cols < D)[None, :]
        tile = tl.load(x + rows[:, None] * x_row + cols[None, :], mask=ok, other=0.0)
        centred = tl.where(ok, tile.to(tl.float32) - mean[:, None], 0.0)
        squares += tl.sum(centred * centred, axis=1)
    return mean, 1.0 / tl.sqrt(squares / D + eps)


@triton.jit
def normalised_tile(
    x,
    scale,
    shift,
    rows,
    there,
    cols,
    mean,
    deviation,
    group,
    D,
    x_row,
    scale_row,
    shift_row,
    HAS_SCALE: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
):
    """float32 [rows cols] of ``normalise(x)``, zero outside."""
    ok = there[:, None] & (cols < D)[None, :]
    tile = tl.load(x + rows[:, None] * x_row + cols[None, :], mask=ok, other=0.0).to(tl.float32)
    h = (tile - mean[:, None]) * deviation[:, None]
    if HAS_SCALE:
        h *= tl.load(scale + group[:, None] * scale_row + cols[None, :], mask=ok, other=0.0).to(tl.float32)
    if HAS_SHIFT:
        h += tl.load(shift + group[:, None] * shift_row + cols[None, :], mask=ok, other=0.0).to(tl.float32)
    return tl.where(ok, h, 0.0)


@triton.jit
def normalise_kernel(
    x,
    scale,
    shift,
    out,
    R,
    H,
    D,
    x_row,
    scale_row,
    shift_row,
    eps,
    HAS_SCALE: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``normalise(x)`` [R D], for the weight's gradient."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    there = rows < R
    mean, deviation = row_statistics(x, rows, there, D, x_row, eps, BLOCK_M, BLOCK_K)  # pyright: ignore
    for start in range(0, D, BLOCK_K):
        cols = start + tl.arange(0, BLOCK_K)
        h = normalised_tile(
            x, scale, shift, rows, there, cols, mean, deviation, rows // H, D, x_row, scale_row, shift_row,
            HAS_SCALE, HAS_SHIFT,
        )  # fmt: skip
        ok = there[:, None] & (cols < D)[None, :]
        tl.store(out + rows[:, None] * D + cols[None, :], h.to(out.dtype.element_ty), mask=ok)


@triton.jit
def normalise_backward_kernel(
    x,
    scale,
    d_h,
    d_x,
    d_scale,
    d_shift,
    H,
    D,
    x_row,
    scale_row,
    eps,
    HAS_SCALE: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program a group: its rows one by one, the gradients of scale and shift summed on the way."""
    group = tl.program_id(0)
    cols = tl.arange(0, BLOCK_D)
    ok = cols < D
    sum_scale = tl.zeros([BLOCK_D], tl.float32)
    sum_shift = tl.zeros([BLOCK_D], tl.float32)
    factor = tl.full([BLOCK_D], 1.0, tl.float32)
    if HAS_SCALE:
        factor = tl.load(scale + group * scale_row + cols, mask=ok, other=0.0).to(tl.float32)
    for step in range(0, H):
        row = group * H + step
        value = tl.load(x + row * x_row + cols, mask=ok, other=0.0).to(tl.float32)
        mean = tl.sum(value, axis=0) / D
        centred = tl.where(ok, value - mean, 0.0)
        deviation = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / D + eps)
        h = centred * deviation
        grad = tl.load(d_h + row * D + cols, mask=ok, other=0.0).to(tl.float32)
        sum_scale += grad * h
        sum_shift += grad
        inner = grad * factor
        along = tl.sum(tl.where(ok, inner, 0.0), axis=0) / D
        against = tl.sum(inner * h, axis=0) / D
        result = deviation * (inner - along - h * against)
        tl.store(d_x + row * D + cols, result.to(d_x.dtype.element_ty), mask=ok)
    tl.store(d_scale + group * D + cols, sum_scale, mask=ok)
    tl.store(d_shift + group * D + cols, sum_shift, mask=ok)


def row_stride(value: Tensor | None) -> int:
    return 0 if value is None or len(value) == 1 else value.stride(0)


def launch_normalise(x_GHD: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    groups, horizon, width = x_GHD.shape
    out, block = torch.empty_like(x_GHD), tiles.ROW_TILES[0]
    normalise_kernel[(tiles.tiles(groups * horizon, block),)](
        x_GHD, scale if scale is not None else x_GHD, shift if shift is not None else x_GHD, out,
        groups * horizon, horizon, width, width, row_stride(scale), row_stride(shift), EPS,
        HAS_SCALE=scale is not None, HAS_SHIFT=shift is not None, BLOCK_M=block, BLOCK_K=tiles.DEPTH,
    )  # fmt: skip
    return out


def launch_normalise_backward(
    x_GHD: Tensor, scale: Tensor | None, d_h: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x [G H D], scale and shift (float32 [G D])."""
    groups, horizon, width = x_GHD.shape
    d_x = torch.empty_like(x_GHD)
    d_scale, d_shift = torch.empty(2, groups, width, device=x_GHD.device, dtype=torch.float32)
    normalise_backward_kernel[(groups,)](
        x_GHD, scale if scale is not None else x_GHD, d_h.contiguous(), d_x, d_scale, d_shift,
        horizon, width, width, row_stride(scale), EPS,
        HAS_SCALE=scale is not None, BLOCK_D=tiles.power_of_two(width),
    )  # fmt: skip
    return d_x, d_scale, d_shift


def reduce_like(gradient: Tensor, like: Tensor | None) -> Tensor | None:
    """A gradient a group, summed where the parameter was shared."""
    if like is None:
        return None
    return (gradient.sum(0, keepdim=True) if len(like) == 1 else gradient).to(like.dtype)
