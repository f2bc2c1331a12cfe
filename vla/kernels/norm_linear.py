# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""Adaptive norm and projection in one Triton kernel: query-key-value, GELU, or both halves of a gated MLP.

A program takes some rows and some outputs. It reads its rows for mean and variance first (they stay in
cache), then again, normalised, as the left side of the product: what is normalised is never stored. The
backward pass stores it once for the weight's gradient; matrix products there are torch's, norms and
activations are kernels.

Source of each formula: :mod:`vla.kernels.reference`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vla.errors import ConfigError
from vla.kernels import tiles
from vla.kernels.language import tl, triton
from vla.kernels.normalise import (
    launch_normalise,
    launch_normalise_backward,
    normalised_tile,
    reduce_like,
    row_statistics,
    row_stride,
)
from vla.kernels.reference import EPS


@triton.jit
def norm_linear_kernel(
    x,
    scale,
    shift,
    weight,
    bias,
    straight,
    product,
    R,
    H,
    D,
    PLAIN,
    GATED,
    x_row,
    scale_row,
    shift_row,
    eps,
    HAS_SCALE: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
    HAS_GATED: tl.constexpr,
    GELU: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Program (i, j): rows i, and outputs j of the plain part or, past those, of the gated part."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    there = rows < R
    group = rows // H
    mean, deviation = row_statistics(x, rows, there, D, x_row, eps, BLOCK_M, BLOCK_K)  # pyright: ignore
    plain_tiles = tl.cdiv(PLAIN, BLOCK_N)
    tile = tl.program_id(1)
    gated = tile >= plain_tiles
    outs = tl.where(gated, tile - plain_tiles, tile) * BLOCK_N + tl.arange(0, BLOCK_N)
    limit = tl.where(gated, GATED, PLAIN)
    first = tl.where(gated, PLAIN, 0)
    inside = outs < limit
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, D, BLOCK_K):
        cols = start + tl.arange(0, BLOCK_K)
        h = normalised_tile(
            x, scale, shift, rows, there, cols, mean, deviation, group, D, x_row, scale_row, shift_row,
            HAS_SCALE, HAS_SHIFT,
        )  # fmt: skip
        ok = (cols < D)[:, None] & inside[None, :]
        w = tl.load(weight + (first + outs)[None, :] * D + cols[:, None], mask=ok, other=0.0)
        acc = tl.dot(h.to(w.dtype), w, acc, input_precision="ieee")
    acc += tl.load(bias + first + outs, mask=inside, other=0.0).to(tl.float32)[None, :]
    ok = there[:, None] & inside[None, :]
    if HAS_GATED:
        if gated:
            second = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
            for start in range(0, D, BLOCK_K):
                cols = start + tl.arange(0, BLOCK_K)
                h = normalised_tile(
                    x, scale, shift, rows, there, cols, mean, deviation, group, D,
                    x_row, scale_row, shift_row, HAS_SCALE, HAS_SHIFT,
                )  # fmt: skip
                wide = (cols < D)[:, None] & inside[None, :]
                place = (PLAIN + GATED + outs)[None, :] * D + cols[:, None]
                w = tl.load(weight + place, mask=wide, other=0.0)
                second = tl.dot(h.to(w.dtype), w, second, input_precision="ieee")
            second += tl.load(bias + PLAIN + GATED + outs, mask=inside, other=0.0).to(tl.float32)[None, :]
            made = (acc / (1.0 + tl.exp(-acc)) * second).to(product.dtype.element_ty)
            tl.store(product + rows[:, None] * GATED + outs[None, :], made, mask=ok)
        else:
            kept = acc.to(straight.dtype.element_ty)
            tl.store(straight + rows[:, None] * PLAIN + outs[None, :], kept, mask=ok)
    else:
        if GELU:
            acc = acc * 0.5 * (1.0 + tl.erf(acc * 0.7071067811865476))
        y = acc.to(straight.dtype.element_ty)
        tl.store(straight + rows[:, None] * PLAIN + outs[None, :], y, mask=ok)


@triton.jit
def activation_backward_kernel(before, grad, out, R, F, GATED: tl.constexpr, BLOCK: tl.constexpr):
    """Gradient before a GELU [R F], or before ``silu(g) * u`` with g and u side by side [R 2F]."""
    row = tl.program_id(0)
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = cols < F
    g = tl.load(grad + row * F + cols, mask=ok, other=0.0).to(tl.float32)
    if GATED:
        opening = tl.load(before + row * 2 * F + cols, mask=ok, other=0.0).to(tl.float32)
        content = tl.load(before + row * 2 * F + F + cols, mask=ok, other=0.0).to(tl.float32)
        s = 1.0 / (1.0 + tl.exp(-opening))
        first = g * content * s * (1.0 + opening * (1.0 - s))
        second = g * opening * s
        tl.store(out + row * 2 * F + cols, first.to(out.dtype.element_ty), mask=ok)
        tl.store(out + row * 2 * F + F + cols, second.to(out.dtype.element_ty), mask=ok)
    else:
        z = tl.load(before + row * F + cols, mask=ok, other=0.0).to(tl.float32)
        inside = 0.5 * (1.0 + tl.erf(z * 0.7071067811865476))
        slope = 0.3989422804014327 * tl.exp(-0.5 * z * z)
        tl.store(out + row * F + cols, (g * (inside + z * slope)).to(out.dtype.element_ty), mask=ok)


def launch_norm_linear(
    x_GHD: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    plain: int,
    gelu: bool,
) -> tuple[Tensor, Tensor]:
    """Straight [G H plain] and product [G H (N - plain) / 2]."""
    groups, horizon, width = x_GHD.shape
    rows, gated = groups * horizon, (len(weight) - plain) // 2
    straight = x_GHD.new_empty(groups, horizon, plain)
    product = x_GHD.new_empty(groups, horizon, gated)
    block = tiles.row_tile(rows)
    grid = (tiles.tiles(rows, block), tiles.tiles(plain, tiles.COLUMNS) + tiles.tiles(gated, tiles.COLUMNS))
    norm_linear_kernel[grid](
        x_GHD, scale if scale is not None else x_GHD, shift if shift is not None else x_GHD, weight, bias,
        straight, product, rows, horizon, width, plain, gated,
        width, row_stride(scale), row_stride(shift), EPS,
        HAS_SCALE=scale is not None, HAS_SHIFT=shift is not None, HAS_GATED=gated > 0, GELU=gelu,
        BLOCK_M=block, BLOCK_N=tiles.COLUMNS, BLOCK_K=tiles.DEPTH,
        num_warps=tiles.WARPS, num_stages=tiles.STAGES,
    )  # fmt: skip
    return straight, product


def launch_activation_backward(before: Tensor, grad: Tensor, gated: bool) -> Tensor:
    size = grad.shape[-1]
    rows, out = grad.numel() // size, torch.empty_like(before)
    activation_backward_kernel[(rows, tiles.tiles(size, 256))](
        before, grad.contiguous(), out, rows, size, GATED=gated, BLOCK=256
    )
    return out


class NormLinear(torch.autograd.Function):
    """Forward is one kernel; nothing but its inputs is kept for the backward pass."""

    @staticmethod
    def forward(ctx, x_GHD, scale, shift, weight, bias, plain: int, gelu: bool):  # type: ignore[override]
        ctx.save_for_backward(x_GHD, scale, shift, weight, bias)
        ctx.plain, ctx.gelu = plain, gelu
        return launch_norm_linear(x_GHD, scale, shift, weight, bias, plain, gelu)

    @staticmethod
    def backward(ctx, d_straight, d_product):  # type: ignore[override]
        x, scale, shift, weight, bias = ctx.saved_tensors
        h = launch_normalise(x, scale, shift)
        pieces = []
        if ctx.plain:
            if ctx.gelu:
                before = torch.nn.functional.linear(h, weight[: ctx.plain], bias[: ctx.plain])
                d_straight = launch_activation_backward(before, d_straight, gated=False)
            pieces.append(d_straight)
        if len(weight) > ctx.plain:
            before = torch.nn.functional.linear(h, weight[ctx.plain :], bias[ctx.plain :])
            pieces.append(launch_activation_backward(before, d_product, gated=True))
        d_y = pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1)
        flat = d_y.flatten(0, 1)
        d_weight = flat.T @ h.flatten(0, 1) if ctx.needs_input_grad[3] else None
        d_x, d_scale, d_shift = launch_normalise_backward(x, scale, d_y @ weight)
        return (
            d_x,
            reduce_like(d_scale, scale),
            reduce_like(d_shift, shift),
            d_weight,
            flat.sum(0),
            None,
            None,
        )


def norm_linear(
    x_GHD: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight_ND: Tensor,
    bias_N: Tensor,
    activation: str = "none",
) -> Tensor:
    """See :func:`vla.kernels.reference.norm_linear`."""
    if activation not in ("none", "gelu"):
        raise ConfigError(f"The fused norm and projection knows no activation {activation!r}: none, gelu.")
    checked = _checked(x_GHD, scale, shift, weight_ND, bias_N)
    return NormLinear.apply(*checked, len(weight_ND), activation == "gelu")[0]


def norm_parallel(
    x_GHD: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight_ND: Tensor,
    bias_N: Tensor,
    plain: int,
) -> tuple[Tensor, Tensor]:
    """See :func:`vla.kernels.reference.norm_parallel`."""
    if not 0 <= plain < len(weight_ND) or (len(weight_ND) - plain) % 2:
        raise ConfigError(
            f"{len(weight_ND)} outputs do not split into {plain} plain ones and two equal halves."
        )
    return NormLinear.apply(*_checked(x_GHD, scale, shift, weight_ND, bias_N), plain, False)


def _checked(x: Tensor, scale: Tensor | None, shift: Tensor | None, weight: Tensor, bias: Tensor) -> tuple:
    tiles.check_same(x=x, scale=scale, shift=shift, weight=weight, bias=bias)
    if weight.shape[1] != x.shape[-1] or bias.shape != weight.shape[:1] or x.shape[-1] > tiles.MAX_ROW:
        given = f"x {list(x.shape)}, weight {list(weight.shape)}, bias {list(bias.shape)}"
        raise ConfigError(f"Shapes do not fit one another (or rows are over {tiles.MAX_ROW}): {given}.")
    scale = tiles.rows_of("scale", scale, len(x), x.shape[-1])
    shift = tiles.rows_of("shift", shift, len(x), x.shape[-1])
    return x.contiguous(), scale, shift, weight.contiguous(), bias.contiguous()
