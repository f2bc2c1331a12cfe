"""The head's operations through torch's own fused calls: what the static and compiled paths run.

Same names, arguments and results as :mod:`vla.kernels.reference`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vla.kernels.reference import EPS


def normalise(x_GHD: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    width = (x_GHD.shape[-1],)
    if scale is not None and shift is not None and len(scale) == 1 == len(shift):
        return F.layer_norm(x_GHD, width, scale[0], shift[0], EPS)
    if scale is not None and shift is None and len(scale) == 1:
        return F.layer_norm(x_GHD, width, scale[0], None, EPS)
    h_GHD = F.layer_norm(x_GHD, width, eps=EPS)
    if scale is not None and shift is not None:
        return torch.addcmul(shift[:, None], h_GHD, scale[:, None])
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
    y_GHN = F.linear(normalise(x_GHD, scale, shift), weight_ND, bias_N)
    return F.gelu(y_GHN) if activation == "gelu" else y_GHN


def norm_parallel(
    x_GHD: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight_ND: Tensor,
    bias_N: Tensor,
    plain: int,
) -> tuple[Tensor, Tensor]:
    y_GHN = F.linear(normalise(x_GHD, scale, shift), weight_ND, bias_N)
    straight, opening, content = y_GHN.split((plain, *(2 * [(len(weight_ND) - plain) // 2])), dim=-1)
    return straight, F.silu(opening) * content


def attention(
    q_GnHh: Tensor,
    own: tuple[Tensor, Tensor] | None,
    memory: tuple[Tensor, Tensor] | None,
    mask_BM: Tensor | None,
) -> Tensor:
    """A row that may read nothing is not defined here (torch gives NaN or zero by backend)."""
    groups, _, horizon, _ = q_GnHh.shape
    if memory is None:
        assert own is not None
        read = F.scaled_dot_product_attention(q_GnHh, *own)
        return read.transpose(1, 2).flatten(-2)
    repeat = groups // len(memory[0])
    if repeat > 1:
        memory = memory[0].repeat_interleave(repeat, 0), memory[1].repeat_interleave(repeat, 0)
        mask_BM = None if mask_BM is None else mask_BM.repeat_interleave(repeat, 0)
    if own is not None:
        memory = torch.cat([memory[0], own[0]], 2), torch.cat([memory[1], own[1]], 2)
        if mask_BM is not None:
            mask_BM = torch.cat([mask_BM, mask_BM.new_ones(groups, horizon)], 1)
    mask = None if mask_BM is None else mask_BM[:, None, None, :]
    return F.scaled_dot_product_attention(q_GnHh, *memory, attn_mask=mask).transpose(1, 2).flatten(-2)


def linear_residual(
    x_GHD: Tensor, parts: Sequence[Tensor], weight_DN: Tensor, bias_D: Tensor, gate: Tensor | None
) -> Tensor:
    made = F.linear(parts[0] if len(parts) == 1 else torch.cat(list(parts), -1), weight_DN, bias_D)
    return x_GHD + made if gate is None else torch.addcmul(x_GHD, gate[:, None], made)


def finish_step(
    h_GHD: Tensor,
    out: tuple[Tensor | None, Tensor | None, Tensor, Tensor],
    x_GHA: Tensor,
    coefficients_2: Tensor,
    into_DA: Tensor,
    start_HD: Tensor,
) -> tuple[Tensor, Tensor]:
    scale, shift, weight, bias = out
    made = F.linear(normalise(h_GHD, scale, shift), weight, bias)
    x_GHA = coefficients_2[0] * x_GHA + coefficients_2[1] * made
    return x_GHA, F.linear(x_GHA, into_DA) + start_HD
