# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""Gradients of the chunk's attention, in Triton: weights are computed again from the logarithm of their sums.

Prefix keys may be shared by several groups; their gradient sums over these groups inside one program, so the
result does not depend on timing. Forward: :mod:`vla.kernels.attention`. Shapes as there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vla.kernels import tiles
from vla.kernels.language import tl, triton


@triton.jit
def query_gradient(
    q, d_out, k, v, mask, count, row, d_q, logsum, delta, factor, width,
    HAS_MASK: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Add what ``count`` keys contribute to the gradient of the queries."""
    dims = tl.arange(0, BLOCK_D)
    for start in range(0, count, BLOCK_T):
        keys = start + tl.arange(0, BLOCK_T)
        seen = keys < count
        if HAS_MASK:
            seen = seen & (tl.load(mask + keys, mask=seen, other=0) != 0)
        place = keys[:, None] * row + dims[None, :]
        ok = seen[:, None] & (dims < width)[None, :]
        k_tile = tl.load(k + place, mask=ok, other=0.0)
        v_tile = tl.load(v + place, mask=ok, other=0.0)
        logits = tl.dot(q, tl.trans(k_tile), input_precision="ieee") * factor
        weight = tl.where(seen[None, :], tl.exp(tl.where(seen[None, :], logits, 0.0) - logsum[:, None]), 0.0)
        d_weight = tl.dot(d_out, tl.trans(v_tile), input_precision="ieee")
        d_logits = weight * (d_weight - delta[:, None]) * factor
        d_q = tl.dot(d_logits.to(k_tile.dtype), k_tile, d_q, input_precision="ieee")
    return d_q


@triton.jit
def query_backward_kernel(
    q, k, v, memory_k, memory_v, mask, out, logsum, d_out, d_q, delta_out, H, M, repeat, width, factor,
    q_group, q_head, q_row, k_group, k_head, k_row, m_group, m_head, m_row,
    HEADS: tl.constexpr, HAS_OWN: tl.constexpr, HAS_MEMORY: tl.constexpr, HAS_MASK: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradient of the queries [G n H h], and delta = sum(out * d_out) [G n H] for the keys' kernel."""
    group, head = tl.program_id(1) // HEADS, tl.program_id(1) % HEADS
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    there = rows < H
    ok = there[:, None] & (dims < width)[None, :]
    base = q + group * q_group + head * q_head
    q_tile = tl.load(base + rows[:, None] * q_row + dims[None, :], mask=ok, other=0.0)
    first = (group * H + rows)[:, None] * (HEADS * width) + head * width + dims[None, :]
    grad = tl.load(d_out + first, mask=ok, other=0.0)
    made = tl.load(out + first, mask=ok, other=0.0)
    delta = tl.sum(made.to(tl.float32) * grad.to(tl.float32), axis=1)
    line = (group * HEADS + head) * H + rows
    tl.store(delta_out + line, delta, mask=there)
    log = tl.load(logsum + line, mask=there, other=0.0)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    if HAS_MEMORY:
        shared = group // repeat
        place = shared * m_group + head * m_head
        acc = query_gradient(
            q_tile, grad, memory_k + place, memory_v + place, mask + shared * M, M, m_row, acc, log, delta,
            factor, width, HAS_MASK, BLOCK_T, BLOCK_D,
        )  # fmt: skip
    if HAS_OWN:
        place = group * k_group + head * k_head
        acc = query_gradient(
            q_tile, grad, k + place, v + place, mask, H, k_row, acc, log, delta, factor, width, False,
            BLOCK_M, BLOCK_D,
        )  # fmt: skip
    tl.store(d_q + line[:, None] * width + dims[None, :], acc.to(d_q.dtype.element_ty), mask=ok)


@triton.jit
def key_backward_kernel(
    q, k, v, mask, logsum, delta, d_out, d_k, d_v, H, T, repeat, width, factor,
    q_group, q_head, q_row, k_group, k_head, k_row,
    HEADS: tl.constexpr, HAS_MASK: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Program (i, j): T-tile i of the keys of one row and head j; sums over the groups that read them."""
    shared, head = tl.program_id(1) // HEADS, tl.program_id(1) % HEADS
    keys = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    dims = tl.arange(0, BLOCK_D)
    seen = keys < T
    inside = seen[:, None] & (dims < width)[None, :]
    if HAS_MASK:
        seen = seen & (tl.load(mask + shared * T + keys, mask=seen, other=0) != 0)
    ok = seen[:, None] & (dims < width)[None, :]
    place = shared * k_group + head * k_head + keys[:, None] * k_row + dims[None, :]
    k_tile = tl.load(k + place, mask=ok, other=0.0)
    v_tile = tl.load(v + place, mask=ok, other=0.0)
    sum_k = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    sum_v = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for turn in range(0, repeat):
        group = shared * repeat + turn
        for start in range(0, H, BLOCK_M):
            rows = start + tl.arange(0, BLOCK_M)
            there = rows < H
            wide = there[:, None] & (dims < width)[None, :]
            base = q + group * q_group + head * q_head
            q_tile = tl.load(base + rows[:, None] * q_row + dims[None, :], mask=wide, other=0.0)
            first = (group * H + rows)[:, None] * (HEADS * width) + head * width
            grad = tl.load(d_out + first + dims[None, :], mask=wide, other=0.0)
            line = (group * HEADS + head) * H + rows
            log = tl.load(logsum + line, mask=there, other=0.0)
            along = tl.load(delta + line, mask=there, other=0.0)
            both = seen[:, None] & there[None, :]
            logits = tl.dot(k_tile, tl.trans(q_tile), input_precision="ieee") * factor
            weight = tl.where(both, tl.exp(tl.where(both, logits, 0.0) - log[None, :]), 0.0)
            sum_v = tl.dot(weight.to(grad.dtype), grad, sum_v, input_precision="ieee")
            d_weight = tl.dot(v_tile, tl.trans(grad), input_precision="ieee")
            d_logits = weight * (d_weight - along[None, :]) * factor
            sum_k = tl.dot(d_logits.to(q_tile.dtype), q_tile, sum_k, input_precision="ieee")
    out = ((shared * HEADS + head) * T + keys)[:, None] * width + dims[None, :]
    tl.store(d_k + out, sum_k.to(d_k.dtype.element_ty), mask=inside)
    tl.store(d_v + out, sum_v.to(d_v.dtype.element_ty), mask=inside)


def launch_attention_backward(
    q, k, v, memory_k, memory_v, mask, out, logsum, d_out
) -> tuple[Tensor | None, ...]:
    """Gradients of q, k, v, memory_k, memory_v."""
    groups, heads, horizon, width = q.shape
    d_out = d_out.contiguous()
    d_q = torch.empty(q.shape, device=q.device, dtype=q.dtype)
    delta = torch.empty_like(logsum)
    block, deep = tiles.ROW_TILES[0], tiles.power_of_two(width)
    query_backward_kernel[(tiles.tiles(horizon, block), groups * heads)](
        *pointers(q, k, v, memory_k, memory_v, mask), out, logsum, d_out, d_q, delta, *sizes(q, memory_k),
        *q.stride()[:3], *pointers(q, k)[1].stride()[:3], *pointers(q, memory_k)[1].stride()[:3],
        HEADS=heads, HAS_OWN=k is not None, HAS_MEMORY=memory_k is not None, HAS_MASK=mask is not None,
        BLOCK_M=block, BLOCK_T=tiles.KEYS, BLOCK_D=deep, num_warps=tiles.WARPS, num_stages=1,
    )  # fmt: skip
    gradients: list[Tensor | None] = [d_q]
    for key, value, hidden in ((k, v, None), (memory_k, memory_v, mask)):
        if key is None:
            gradients += [None, None]
            continue
        shared, _, count, _ = key.shape
        d_k, d_v = (torch.empty(key.shape, device=q.device, dtype=q.dtype) for _ in range(2))
        tile = block if key is k else tiles.KEYS
        key_backward_kernel[(tiles.tiles(count, tile), shared * heads)](
            q, key, value, q if hidden is None else hidden, logsum, delta, d_out, d_k, d_v,
            horizon, count, groups // shared, width, width**-0.5, *q.stride()[:3], *key.stride()[:3],
            HEADS=heads, HAS_MASK=hidden is not None,
            BLOCK_M=block, BLOCK_T=tile, BLOCK_D=deep, num_warps=tiles.WARPS, num_stages=1,
        )  # fmt: skip
        gradients += [d_k, d_v]
    return tuple(gradients)


def pointers(stand_in: Tensor, *given: Tensor | None) -> list[Tensor]:
    """A kernel's pointers: where there is none, any one (it is not read)."""
    return [stand_in, *(stand_in if t is None else t for t in given)]


def sizes(q: Tensor, memory_k: Tensor | None) -> tuple[int, int, int, int, float]:
    groups, _, horizon, width = q.shape
    count, repeat = (0, 1) if memory_k is None else (memory_k.shape[2], groups // len(memory_k))
    return horizon, count, repeat, width, width**-0.5
