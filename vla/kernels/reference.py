"""The head's operations as formulas in plain torch: the truth that every faster path is compared with.

Nothing here is fast, fused or approximate, and everything works in float64 and under autograd.

Shapes: G groups (batch times noise samples), B memory rows (G = B * k), H horizon, D width, N outputs,
F gated outputs, n heads, h width per head, M memory tokens, A action entries. ``scale``, ``shift`` and
``gate`` are [G D] (one a group) or [1 D] (shared).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPS = 1e-5  # torch.nn.LayerNorm's default


def normalise(x_GHD: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """``(x - mean) / sqrt(variance + eps) * scale + shift`` over the last axis."""
    centred = x_GHD - x_GHD.mean(-1, keepdim=True)
    h_GHD = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + EPS)
    h_GHD = h_GHD if scale is None else h_GHD * scale[:, None]
    return h_GHD if shift is None else h_GHD + shift[:, None]


def norm_linear(
    x_GHD: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight_ND: Tensor,
    bias_N: Tensor,
    activation: str = "none",
) -> Tensor:
    """``activation(normalise(x) W^T + b)`` [G H N]; ``none`` or ``gelu`` (the exact one)."""
    y_GHN = normalise(x_GHD, scale, shift) @ weight_ND.T + bias_N
    return gelu(y_GHN) if activation == "gelu" else y_GHN


def norm_parallel(
    x_GHD: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight_ND: Tensor,
    bias_N: Tensor,
    plain: int,
) -> tuple[Tensor, Tensor]:
    """One norm, two projections: the first ``plain`` outputs as they are, the rest as a gated product.

    W holds ``plain`` rows, then F rows g and F rows u; gives [G H plain] and ``silu(g) * u`` [G H F].
    """
    y_GHN = normalise(x_GHD, scale, shift) @ weight_ND.T + bias_N
    straight, opening, content = y_GHN.split((plain, *(2 * [(len(weight_ND) - plain) // 2])), dim=-1)
    return straight, opening * torch.sigmoid(opening) * content


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x * 2**-0.5))


def attention(
    q_GnHh: Tensor,
    own: tuple[Tensor, Tensor] | None,
    memory: tuple[Tensor, Tensor] | None,
    mask_BM: Tensor | None,
) -> Tensor:
    """Each action token reads the memory (keys and values [B n M h], where the mask is true) and its own
    chunk (``own`` [G n H h]), in one softmax: [G H n*h]. Either may be None. Who may read nothing gets zero.
    """
    groups, _, horizon, size = q_GnHh.shape
    keys, values, seen = [], [], []
    if memory is not None:
        repeat = groups // len(memory[0])
        keys.append(memory[0].repeat_interleave(repeat, 0))
        values.append(memory[1].repeat_interleave(repeat, 0))
        there = q_GnHh.new_ones(groups, memory[0].shape[2], dtype=torch.bool)
        seen.append(there if mask_BM is None else mask_BM.repeat_interleave(repeat, 0))
    if own is not None:
        keys.append(own[0])
        values.append(own[1])
        seen.append(q_GnHh.new_ones(groups, horizon, dtype=torch.bool))
    hidden = ~torch.cat(seen, 1)[:, None, None, :]
    logits = q_GnHh @ torch.cat(keys, 2).transpose(-1, -2) * size**-0.5
    weight = logits.masked_fill(hidden, torch.finfo(logits.dtype).min).softmax(-1).masked_fill(hidden, 0.0)
    return (weight @ torch.cat(values, 2)).transpose(1, 2).flatten(-2)


def linear_residual(
    x_GHD: Tensor, parts: Sequence[Tensor], weight_DN: Tensor, bias_D: Tensor, gate: Tensor | None
) -> Tensor:
    """``x + gate * ([parts side by side] W^T + b)`` [G H D]; no gate: one."""
    made = torch.cat(list(parts), -1) @ weight_DN.T + bias_D
    return x_GHD + (made if gate is None else gate[:, None] * made)


def finish_step(
    h_GHD: Tensor,
    out: tuple[Tensor | None, Tensor | None, Tensor, Tensor],
    x_GHA: Tensor,
    coefficients_2: Tensor,
    into_DA: Tensor,
    start_HD: Tensor,
) -> tuple[Tensor, Tensor]:
    """The step's end and the next one's beginning.

    ``x' = keep x + add (normalise(h) W^T + b)`` with ``out`` = (scale [1 D], shift [1 D], W [A D], b [A]) and
    ``coefficients`` = (keep, add) (flow: 1 and the step's length; one pass: 0 and 1); and its embedding ``x'
    W_in^T + start`` [G H D].
    """
    (scale, shift, weight, bias), (keep, add) = out, coefficients_2
    x_GHA = keep * x_GHA + add * (normalise(h_GHD, scale, shift) @ weight.T + bias)
    return x_GHA, x_GHA @ into_DA.T + start_HD
