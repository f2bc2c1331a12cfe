# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""Attention of the chunk over the masked prefix plus itself, one softmax, in Triton.

Logits are never stored (arXiv:2205.14135): the forward pass keeps a running maximum and sum, and
:mod:`vla.kernels.attention_backward` computes them again from their logarithm. Prefix keys are read in place.

Source of each formula: :mod:`vla.kernels.reference`. Shapes as there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vla.errors import ConfigError
from vla.kernels import tiles
from vla.kernels.attention_backward import launch_attention_backward, pointers, sizes
from vla.kernels.language import tl, triton


@triton.jit
def attend(
    q, k, v, mask, count, row, acc, peak, total, factor, width,
    HAS_MASK: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Fold ``count`` keys (``row`` apart) into the running softmax."""
    dims = tl.arange(0, BLOCK_D)
    for start in range(0, count, BLOCK_T):
        keys = start + tl.arange(0, BLOCK_T)
        seen = keys < count
        if HAS_MASK:
            seen = seen & (tl.load(mask + keys, mask=seen, other=0) != 0)
        place = keys[:, None] * row + dims[None, :]
        ok = seen[:, None] & (dims < width)[None, :]
        k_tile = tl.load(k + place, mask=ok, other=0.0)
        logits = tl.dot(q, tl.trans(k_tile), input_precision="ieee") * factor
        logits = tl.where(seen[None, :], logits, float("-inf"))
        higher = tl.maximum(peak, tl.max(logits, axis=1))
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        weight = tl.exp(logits - safe[:, None])
        fade = tl.exp(peak - safe)
        total = total * fade + tl.sum(weight, axis=1)
        v_tile = tl.load(v + place, mask=ok, other=0.0)
        acc = tl.dot(weight.to(v_tile.dtype), v_tile, acc * fade[:, None], input_precision="ieee")
        peak = higher
    return acc, peak, total


@triton.jit
def attention_kernel(
    q, k, v, memory_k, memory_v, mask, out, logsum, H, M, repeat, width, factor,
    q_group, q_head, q_row, k_group, k_head, k_row, m_group, m_head, m_row,
    HEADS: tl.constexpr, HAS_OWN: tl.constexpr, HAS_MEMORY: tl.constexpr, HAS_MASK: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Program (i, j): rows i of one group and head j."""
    group, head = tl.program_id(1) // HEADS, tl.program_id(1) % HEADS
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    there = rows < H
    ok = there[:, None] & (dims < width)[None, :]
    base = q + group * q_group + head * q_head
    q_tile = tl.load(base + rows[:, None] * q_row + dims[None, :], mask=ok, other=0.0)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    if HAS_MEMORY:
        shared = group // repeat
        place = shared * m_group + head * m_head
        acc, peak, total = attend(
            q_tile, memory_k + place, memory_v + place, mask + shared * M, M, m_row, acc, peak, total, factor,
            width, HAS_MASK, BLOCK_T, BLOCK_D,
        )  # fmt: skip
    if HAS_OWN:
        place = group * k_group + head * k_head
        acc, peak, total = attend(
            q_tile,
            k + place,
            v + place,
            mask,
            H,
            k_row,
            acc,
            peak,
            total,
            factor,
            width,
            False,
            BLOCK_M,
            BLOCK_D,
        )
    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    y = acc / total[:, None]
    first = (group * H + rows)[:, None] * (HEADS * width) + head * width
    tl.store(out + first + dims[None, :], y.to(out.dtype.element_ty), mask=ok)
    kept = tl.where(empty, 0.0, peak) + tl.log(total)
    tl.store(logsum + (group * HEADS + head) * H + rows, kept, mask=there)


def launch_attention(q, k, v, memory_k, memory_v, mask) -> tuple[Tensor, Tensor]:
    """Out [G H n*h] and the logarithm of each row's softmax sum, float32 [G n H]."""
    groups, heads, horizon, width = q.shape
    out = q.new_empty(groups, horizon, heads * width)
    logsum = torch.empty(groups, heads, horizon, device=q.device, dtype=torch.float32)
    block = tiles.row_tile(horizon)
    attention_kernel[(tiles.tiles(horizon, block), groups * heads)](
        *pointers(q, k, v, memory_k, memory_v, mask), out, logsum, *sizes(q, memory_k),
        *q.stride()[:3], *pointers(q, k)[1].stride()[:3], *pointers(q, memory_k)[1].stride()[:3],
        HEADS=heads, HAS_OWN=k is not None, HAS_MEMORY=memory_k is not None, HAS_MASK=mask is not None,
        BLOCK_M=block, BLOCK_T=tiles.KEYS, BLOCK_D=tiles.power_of_two(width),
        num_warps=tiles.WARPS, num_stages=2,
    )  # fmt: skip
    return out, logsum


class Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, memory_k, memory_v, mask):  # type: ignore[override]
        out, logsum = launch_attention(q, k, v, memory_k, memory_v, mask)
        ctx.save_for_backward(q, k, v, memory_k, memory_v, mask, out, logsum)
        return out

    @staticmethod
    def backward(ctx, d_out):  # type: ignore[override]
        return *launch_attention_backward(*ctx.saved_tensors, d_out), None


def attention(
    q_GnHh: Tensor,
    own: tuple[Tensor, Tensor] | None,
    memory: tuple[Tensor, Tensor] | None,
    mask_BM: Tensor | None,
) -> Tensor:
    """See :func:`vla.kernels.reference.attention`."""
    k, v = _pair("own", own, q_GnHh.shape[:1] + q_GnHh.shape[1:2] + q_GnHh.shape[2:])
    memory_k, memory_v = _pair("memory", memory, None)
    tiles.check_same(q=q_GnHh, k=k, v=v, memory_k=memory_k, memory_v=memory_v)
    if memory_k is not None and (len(q_GnHh) % len(memory_k) or memory_k.shape[1] != q_GnHh.shape[1]):
        raise ConfigError(f"Memory {list(memory_k.shape)} does not serve queries {list(q_GnHh.shape)}.")
    if q_GnHh.shape[-1] > tiles.MAX_HEAD_WIDTH or (k is None and memory_k is None):
        raise ConfigError(
            f"Fused attention reads something and has heads of 1..{tiles.MAX_HEAD_WIDTH} entries."
        )
    if mask_BM is not None:
        expected = None if memory_k is None else (len(memory_k), memory_k.shape[2])
        if mask_BM.shape != expected or mask_BM.dtype != torch.bool:
            raise ConfigError(f"The mask must be bool {expected}, not {mask_BM.dtype} {list(mask_BM.shape)}.")
        mask_BM = mask_BM.contiguous().view(torch.uint8)
    q = q_GnHh if q_GnHh.stride(-1) == 1 else q_GnHh.contiguous()
    return Attention.apply(q, k, v, memory_k, memory_v, mask_BM)


def _pair(name: str, pair: tuple[Tensor, Tensor] | None, shape) -> tuple[Tensor | None, Tensor | None]:
    """Keys and values with unit last stride and the same strides."""
    if pair is None:
        return None, None
    k, v = pair
    if k.shape != v.shape or (shape is not None and k.shape != shape):
        raise ConfigError(
            f"{name}: keys {list(k.shape)} and values {list(v.shape)}, expected {shape or 'equal'}."
        )
    if k.stride() != v.stride() or k.stride(-1) != 1:
        k, v = k.contiguous(), v.contiguous()
    return k, v
