# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""Output projection with gated residual, and a denoising step's end with the next one's beginning, in Triton.

Source of each formula: :mod:`vla.kernels.reference`. Shapes as there.
"""

from __future__ import annotations

from collections.abc import Sequence

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
def linear_residual_kernel(
    x, first, second, weight, bias, gate, out, R, H, D, N_FIRST, N_SECOND, gate_row,
    HAS_SECOND: tl.constexpr, HAS_GATE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """``x + gate * ([first | second] W^T + b)``: the parts are read where they lie."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    outs = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    there, inside = rows < R, outs < D
    total = N_FIRST + N_SECOND
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, N_FIRST, BLOCK_K):
        cols = start + tl.arange(0, BLOCK_K)
        ok = cols < N_FIRST
        part = tl.load(
            first + rows[:, None] * N_FIRST + cols[None, :], mask=there[:, None] & ok[None, :], other=0.0
        )
        w = tl.load(
            weight + outs[None, :] * total + cols[:, None], mask=ok[:, None] & inside[None, :], other=0.0
        )
        acc = tl.dot(part, w, acc, input_precision="ieee")
    if HAS_SECOND:
        for start in range(0, N_SECOND, BLOCK_K):
            cols = start + tl.arange(0, BLOCK_K)
            ok = cols < N_SECOND
            place = rows[:, None] * N_SECOND + cols[None, :]
            part = tl.load(second + place, mask=there[:, None] & ok[None, :], other=0.0)
            place = outs[None, :] * total + N_FIRST + cols[:, None]
            w = tl.load(weight + place, mask=ok[:, None] & inside[None, :], other=0.0)
            acc = tl.dot(part, w, acc, input_precision="ieee")
    acc += tl.load(bias + outs, mask=inside, other=0.0).to(tl.float32)[None, :]
    ok = there[:, None] & inside[None, :]
    if HAS_GATE:
        place = (rows // H)[:, None] * gate_row + outs[None, :]
        acc *= tl.load(gate + place, mask=ok, other=0.0).to(tl.float32)
    place = rows[:, None] * D + outs[None, :]
    acc += tl.load(x + place, mask=ok, other=0.0).to(tl.float32)
    tl.store(out + place, acc.to(out.dtype.element_ty), mask=ok)


@triton.jit
def gate_backward_kernel(d_out, made, gate, d_made, d_gate, H, D, gate_row, BLOCK: tl.constexpr):
    """Gradient before the gate [R D], and the gate's own, summed over a group's rows (float32 [G D])."""
    group = tl.program_id(0)
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = cols < D
    factor = tl.load(gate + group * gate_row + cols, mask=ok, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for step in range(0, H):
        place = (group * H + step) * D + cols
        grad = tl.load(d_out + place, mask=ok, other=0.0).to(tl.float32)
        total += grad * tl.load(made + place, mask=ok, other=0.0).to(tl.float32)
        tl.store(d_made + place, (grad * factor).to(d_made.dtype.element_ty), mask=ok)
    tl.store(d_gate + group * D + cols, total, mask=ok)


@triton.jit
def finish_step_kernel(
    h, scale, shift, weight, bias, x, into, start, coefficients, next_x, next_h, R, H, D, A, eps,
    HAS_SCALE: tl.constexpr, HAS_SHIFT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One program a row tile: final norm, projection, Euler update, and the embedding of what comes next."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    there = rows < R
    entries = tl.arange(0, BLOCK_A)
    inside = entries < A
    mean, deviation = row_statistics(h, rows, there, D, D, eps, BLOCK_M, BLOCK_K)  # pyright: ignore
    acc = tl.zeros([BLOCK_M, BLOCK_A], tl.float32)
    for begin in range(0, D, BLOCK_K):
        cols = begin + tl.arange(0, BLOCK_K)
        tile = normalised_tile(
            h, scale, shift, rows, there, cols, mean, deviation, rows * 0, D, D, 0, 0, HAS_SCALE, HAS_SHIFT
        )
        ok = (cols < D)[:, None] & inside[None, :]
        w = tl.load(weight + entries[None, :] * D + cols[:, None], mask=ok, other=0.0)
        acc = tl.dot(tile.to(w.dtype), w, acc, input_precision="ieee")
    acc += tl.load(bias + entries, mask=inside, other=0.0).to(tl.float32)[None, :]
    ok = there[:, None] & inside[None, :]
    place = rows[:, None] * A + entries[None, :]
    keep, add = tl.load(coefficients).to(tl.float32), tl.load(coefficients + 1).to(tl.float32)
    moved = keep * tl.load(x + place, mask=ok, other=0.0).to(tl.float32) + add * acc
    moved = tl.where(ok, moved, 0.0).to(next_x.dtype.element_ty)
    tl.store(next_x + place, moved, mask=ok)
    for begin in range(0, D, BLOCK_K):
        cols = begin + tl.arange(0, BLOCK_K)
        within = inside[:, None] & (cols < D)[None, :]
        back = tl.load(into + cols[None, :] * A + entries[:, None], mask=within, other=0.0)
        made = tl.dot(moved, back, input_precision="ieee")
        wide = there[:, None] & (cols < D)[None, :]
        made += tl.load(start + (rows % H)[:, None] * D + cols[None, :], mask=wide, other=0.0).to(tl.float32)
        tl.store(next_h + rows[:, None] * D + cols[None, :], made.to(next_h.dtype.element_ty), mask=wide)


class LinearResidual(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_GHD, first, second, weight, bias, gate):  # type: ignore[override]
        ctx.save_for_backward(first, second, weight, bias, gate)
        groups, horizon, width = x_GHD.shape
        rows, out = groups * horizon, torch.empty_like(x_GHD)
        block = tiles.row_tile(rows)
        linear_residual_kernel[(tiles.tiles(rows, block), tiles.tiles(width, tiles.COLUMNS))](
            x_GHD, first, first if second is None else second, weight, bias,
            x_GHD if gate is None else gate, out,
            rows, horizon, width,
            first.shape[-1], 0 if second is None else second.shape[-1], row_stride(gate),
            HAS_SECOND=second is not None, HAS_GATE=gate is not None,
            BLOCK_M=block, BLOCK_N=tiles.COLUMNS, BLOCK_K=tiles.DEPTH,
            num_warps=tiles.WARPS, num_stages=tiles.STAGES,
        )  # fmt: skip
        return out

    @staticmethod
    def backward(ctx, d_out):  # type: ignore[override]
        first, second, weight, bias, gate = ctx.saved_tensors
        read = first if second is None else torch.cat([first, second], -1)
        d_out, d_gate, d_made = d_out.contiguous(), None, d_out
        if gate is not None:
            groups, horizon, width = d_out.shape
            made = torch.nn.functional.linear(read, weight, bias)
            d_made = torch.empty_like(d_out)
            sums = torch.empty(groups, width, device=d_out.device, dtype=torch.float32)
            gate_backward_kernel[(groups, tiles.tiles(width, 256))](
                d_out, made, gate, d_made, sums, horizon, width, row_stride(gate), BLOCK=256
            )
            d_gate = reduce_like(sums, gate)
        flat = d_made.flatten(0, 1)
        d_read = d_made @ weight
        d_first, d_second = d_read, None
        if second is not None:
            d_first, d_second = d_read.split((first.shape[-1], second.shape[-1]), dim=-1)
        return d_out, d_first, d_second, flat.T @ read.flatten(0, 1), flat.sum(0), d_gate


def linear_residual(
    x_GHD: Tensor, parts: Sequence[Tensor], weight_DN: Tensor, bias_D: Tensor, gate: Tensor | None
) -> Tensor:
    """See :func:`vla.kernels.reference.linear_residual`; one or two parts."""
    if not 1 <= len(parts) <= 2:
        raise ConfigError(f"The fused output projection reads one or two parts, not {len(parts)}.")
    first, second = parts[0], parts[1] if len(parts) == 2 else None
    tiles.check_same(x=x_GHD, first=first, second=second, weight=weight_DN, bias=bias_D, gate=gate)
    if weight_DN.shape != (x_GHD.shape[-1], sum(part.shape[-1] for part in parts)):
        raise ConfigError(f"Weight {list(weight_DN.shape)} does not join {[list(p.shape) for p in parts]}.")
    second = None if second is None else second.contiguous()
    gate = tiles.rows_of("gate", gate, len(x_GHD), x_GHD.shape[-1])
    arguments = (
        x_GHD.contiguous(),
        first.contiguous(),
        second,
        weight_DN.contiguous(),
        bias_D.contiguous(),
        gate,
    )
    return LinearResidual.apply(*arguments)


class FinishStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h_GHD, scale, shift, weight, bias, x_GHA, coefficients, into, start):  # type: ignore[override]
        groups, horizon, width = h_GHD.shape
        rows, entries = groups * horizon, x_GHA.shape[-1]
        next_x, next_h = torch.empty_like(x_GHA), torch.empty_like(h_GHD)
        block = tiles.row_tile(rows)
        finish_step_kernel[(tiles.tiles(rows, block),)](
            h_GHD, scale if scale is not None else h_GHD, shift if shift is not None else h_GHD, weight, bias,
            x_GHA, into, start, coefficients, next_x, next_h, rows, horizon, width, entries, EPS,
            HAS_SCALE=scale is not None, HAS_SHIFT=shift is not None,
            BLOCK_M=block, BLOCK_A=tiles.power_of_two(entries), BLOCK_K=tiles.DEPTH,
            num_warps=tiles.WARPS, num_stages=2,
        )  # fmt: skip
        ctx.save_for_backward(h_GHD, scale, shift, weight, next_x, into, coefficients)
        return next_x, next_h

    @staticmethod
    def backward(ctx, d_x, d_h):  # type: ignore[override]
        h, scale, shift, weight, next_x, into, coefficients = ctx.saved_tensors
        d_x = d_x + d_h @ into
        d_into = d_h.flatten(0, 1).T @ next_x.flatten(0, 1)
        d_made = coefficients[1] * d_x
        read = launch_normalise(h, scale, shift)
        flat = d_made.flatten(0, 1)
        d_weight = flat.T @ read.flatten(0, 1)
        d_before, d_scale, d_shift = launch_normalise_backward(h, scale, d_made @ weight)
        scales = reduce_like(d_scale, scale), reduce_like(d_shift, shift)
        return d_before, *scales, d_weight, flat.sum(0), coefficients[0] * d_x, None, d_into, d_h.sum(0)


def finish_step(
    h_GHD: Tensor,
    out: tuple[Tensor | None, Tensor | None, Tensor, Tensor],
    x_GHA: Tensor,
    coefficients_2: Tensor,
    into_DA: Tensor,
    start_HD: Tensor,
) -> tuple[Tensor, Tensor]:
    """See :func:`vla.kernels.reference.finish_step`."""
    scale, shift, weight, bias = out
    tiles.check_same(
        h=h_GHD,
        scale=scale,
        shift=shift,
        weight=weight,
        x=x_GHA,
        into=into_DA,
        start=start_HD,
        c=coefficients_2,
    )
    groups, horizon, width = h_GHD.shape
    fits = x_GHA.shape == (groups, horizon, len(weight)) and into_DA.shape == (width, len(weight))
    if (
        not fits
        or start_HD.shape != (horizon, width)
        or any(s is not None and len(s) != 1 for s in (scale, shift))
    ):
        given = f"h {list(h_GHD.shape)}, x {list(x_GHA.shape)}, into {list(into_DA.shape)}"
        raise ConfigError(
            f"The step's end does not fit its beginning: {given}; scale and shift must be [1 D]."
        )
    return FinishStep.apply(
        h_GHD.contiguous(), scale, shift, weight.contiguous(), bias.contiguous(), x_GHA.contiguous(),
        coefficients_2.contiguous(), into_DA.contiguous(), start_HD.contiguous(),
    )  # fmt: skip
