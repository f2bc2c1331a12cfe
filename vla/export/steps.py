"""The denoising loop laid out for a CPU engine: every product has its own weight, nothing is cut or joined.

The same numbers as :class:`vla.models.static_graphs.StepGraph`, in another layout. That one makes one wide
product and cuts it, which is right for a GPU; on a CPU cutting, joining and masking cost as much as a fifth
of the products. Here

- activations are rows [B*H D], so that an engine sees plain matrix products with a bias;
- query, key, value and both halves of a gated MLP are products of their own; the attention's scale is inside
  the query's weight, and the norms' weights and the schedule's shifts are inside weights and biases;
- the chunk's own keys are never joined to the prefix's: only logits are, which are small;
- the prefix's mask becomes a number added to logits, once a chunk.

Shapes: as in :mod:`vla.models.static_graphs`; R = B * H rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.models.heads.flow import FlowHead
from vla.models.heads.regression import RegressionHead
from vla.models.layers import DecoderBlock, KeysValues
from vla.models.parallel_block import ParallelBlock
from vla.models.static_graphs import Schedule, embed_times, fold_norm, modulation

#: Added to the logits of what may not be read: its exponential is zero, and it stays finite.
HIDDEN = -1e30


class ExportedSteps(nn.Module):
    """All denoising steps of a flow head (or the one pass of a regression head), unrolled."""

    def __init__(self, head: FlowHead | RegressionHead, num_steps: int) -> None:
        super().__init__()
        flow = isinstance(head, FlowHead)
        self.plan = Schedule.flow(num_steps, head.config.schedule) if flow else Schedule.one_pass()
        times_nD, decoder = embed_times(head, self.plan), head.decoder
        starts_nHD = decoder.places.double() + times_nD[:, None]
        weight, bias = fold_norm(decoder.norm_out, decoder.out)
        self.into = None
        if flow:
            starts_nHD = starts_nHD + head.action_in.bias.double()
            self.into = _Product(head.action_in.weight, None)
        self.outs = nn.ModuleList(_Product(weight * add, bias * add) for add in self.plan.add)
        self.starts = nn.ParameterList(_constant(start) for start in starts_nHD)
        self.blocks = nn.ModuleList(
            _Parallel(block, times_nD) if isinstance(block, ParallelBlock) else _Sequential(block)
            for block in decoder.each_block()
        )

    def forward(self, x_BHA: Tensor, memory_L2BnMh: Tensor, mask_BM: Tensor) -> Tensor:
        """Noise [B H A] -> normalised actions [B H A]."""
        batch, horizon, _ = x_BHA.shape
        hidden = ((1.0 - mask_BM.to(x_BHA.dtype)) * HIDDEN)[:, None, None, :]
        memories = [(pair[0], pair[1]) for pair in memory_L2BnMh.unbind(0)]
        x_RA = x_BHA.flatten(0, 1)
        for i, (start, out) in enumerate(zip(self.starts, self.outs, strict=True)):
            h_RD = start.expand(batch, -1, -1).flatten(0, 1)
            if self.into is not None:
                h_RD = (self.into(x_RA).unflatten(0, (batch, horizon)) + start).flatten(0, 1)
            for block, memory in zip(self.blocks, memories, strict=True):
                h_RD = block(h_RD, i, memory, hidden)
            made_RA = out(F.layer_norm(h_RD, h_RD.shape[-1:]))
            x_RA = x_RA + made_RA if self.plan.keep[i] else made_RA
        return x_RA.unflatten(0, (batch, horizon))


class _Product(nn.Module):
    """``x W + b``, the weight as [inputs, outputs]; one bias, or one a step of the schedule, or none."""

    def __init__(self, weight_NK: Tensor, bias_nN: Tensor | None) -> None:
        super().__init__()
        self.weight = _constant(weight_NK.T)
        biases = [] if bias_nN is None else bias_nN if bias_nN.ndim == 2 else bias_nN[None]
        self.biases = nn.ParameterList(_constant(bias) for bias in biases)

    def forward(self, x_RK: Tensor, step: int = 0) -> Tensor:
        made = x_RK @ self.weight
        return made + self.biases[step if len(self.biases) > 1 else 0] if len(self.biases) else made


class _Projections(nn.Module):
    """Query, key and value of one norm's output, as heads."""

    def __init__(self, weight_ND: Tensor, bias_nN: Tensor, num_heads: int) -> None:
        super().__init__()
        self.num_heads, width = num_heads, weight_ND.shape[1]
        parts = zip(weight_ND.split(width), bias_nN.split(width, -1), strict=True)
        scales = ((width // num_heads) ** -0.5, 1.0, 1.0)
        self.parts = nn.ModuleList(_Product(w * s, b * s) for (w, b), s in zip(parts, scales, strict=False))

    def forward(self, h_RD: Tensor, batch: int, step: int = 0) -> list[Tensor]:
        """[B n H h] each."""
        made = [part(h_RD, step).unflatten(0, (batch, -1)) for part in self.parts]
        return [t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in made]


class _Parallel(nn.Module):
    """A :class:`ParallelBlock`."""

    def __init__(self, block: ParallelBlock, times_nD: Tensor) -> None:
        super().__init__()
        width = block.width
        scale, gate, bias = modulation(block, times_nD).split((width, width, len(block.inputs.weight)), -1)
        self.scales, self.gates = (nn.ParameterList(_constant(r) for r in rows) for rows in (scale, gate))
        sizes = (3 * width, block.feed_width, block.feed_width)
        weights, biases = block.inputs.weight.double().split(sizes), bias.split(sizes, -1)
        self.attend = _Projections(weights[0], biases[0], block.num_heads)
        self.opening, self.content = (_Product(weights[i], biases[i]) for i in (1, 2))
        read, product = block.outputs.weight.split((width, block.feed_width), -1)
        self.out_read, self.out_product = _Product(read, block.outputs.bias), _Product(product, None)

    def forward(self, x_RD: Tensor, step: int, memory: KeysValues, hidden: Tensor) -> Tensor:
        h_RD = F.layer_norm(x_RD, x_RD.shape[-1:], self.scales[step])
        q, k, v = self.attend(h_RD, len(hidden), step)
        product = F.silu(self.opening(h_RD, step)) * self.content(h_RD, step)
        made = self.out_read(_read(q, memory, hidden, (k, v))) + self.out_product(product)
        return x_RD + self.gates[step] * made


class _Sequential(nn.Module):
    """A :class:`DecoderBlock`."""

    def __init__(self, block: DecoderBlock) -> None:
        super().__init__()
        own, cross, feed = block.self_attention, block.cross_attention, block.feed
        first, last = feed[0], feed[2]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        self.own = _Projections(*fold_norm(block.norm_self, own.query_key_value), own.num_heads)
        self.cross = _Projections(*fold_norm(block.norm_cross, cross.query), cross.num_heads)
        self.own_out, self.cross_out = (_Product(m.out.weight, m.out.bias) for m in (own, cross))
        self.opening, self.closing = (
            _Product(*fold_norm(block.norm_feed, first)),
            _Product(last.weight, last.bias),
        )

    def forward(self, x_RD: Tensor, step: int, memory: KeysValues, hidden: Tensor) -> Tensor:
        batch, width = len(hidden), x_RD.shape[-1:]
        q, k, v = self.own(F.layer_norm(x_RD, width), batch)
        x_RD = x_RD + self.own_out(_joined((q @ k.transpose(-1, -2)).softmax(-1) @ v))
        (q,) = self.cross(F.layer_norm(x_RD, width), batch)
        x_RD = x_RD + self.cross_out(_read(q, memory, hidden, None))
        return x_RD + self.closing(F.gelu(self.opening(F.layer_norm(x_RD, width))))


def _read(q_BnHh: Tensor, memory: KeysValues, hidden_B11M: Tensor, own: KeysValues | None) -> Tensor:
    """Attention over masked memory and the chunk itself, one softmax: [B*H n*h]."""
    logits = q_BnHh @ memory[0].transpose(-1, -2) + hidden_B11M
    if own is None:
        return _joined(logits.softmax(-1) @ memory[1])
    sizes = (memory[0].shape[2], own[0].shape[2])
    weights = torch.cat([logits, q_BnHh @ own[0].transpose(-1, -2)], -1).softmax(-1)
    seen, itself = weights.split(sizes, -1)
    return _joined(seen @ memory[1] + itself @ own[1])


def _joined(read_BnHh: Tensor) -> Tensor:
    return read_BnHh.transpose(1, 2).flatten(-2).flatten(0, 1)


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().float().contiguous(), requires_grad=False)
