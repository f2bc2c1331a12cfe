"""A head's inference as static graphs: ``encode_prefix -> step x n -> actions``, over the stock weights.

    PrefixGraph   features, mask, state ─► keys and values of every block        once an observation
    begin         noise ─► embedding                                              once a chunk
    StepGraph     x, embedding, schedule[i], keys and values ─► x, embedding      n times

Shapes are fixed: the prefix is padded to a capacity and masked inside, so instructions of any length and any
number of cameras run the same graphs. All that depends only on the schedule (time embeddings, modulation,
shifts folded into biases, the norms' weights folded into the next product) is computed once a schedule, in
float64. On CUDA the prefix and the whole loop are captured as CUDA graphs.

Shapes: B batch, P prefix tokens, C capacity, S state tokens, M = C + S, D width, H horizon, A action entries,
L blocks, n heads, h width per head, Z numbers of one step's row of the schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.errors import ConfigError
from vla.kernels import native
from vla.kernels.loading import load_triton
from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.flow import FlowHead
from vla.models.heads.interface import ChunkDecoder
from vla.models.heads.regression import RegressionHead
from vla.models.heads.schedules import time_grid
from vla.models.layers import DecoderBlock, sinusoids, split_heads
from vla.models.parallel_block import ParallelBlock


@dataclass(frozen=True)
class Schedule:
    """``x <- keep[i] x + add[i] f(x, times[i])``; a time of None: the head knows no time."""

    times: tuple[float | None, ...]
    keep: tuple[float, ...]
    add: tuple[float, ...]

    @classmethod
    def flow(cls, num_steps: int, schedule: str = "uniform") -> Schedule:
        """Euler from 0 to 1 in the steps of ``vla.models.heads.schedules``."""
        times = time_grid(schedule, num_steps)
        steps = (1 / num_steps,) * num_steps
        if schedule != "uniform":
            steps = tuple(then - now for now, then in pairwise(times))
        return cls(times[:-1], (1.0,) * num_steps, steps)

    @classmethod
    def one_pass(cls) -> Schedule:
        return cls((None,), (0.0,), (1.0,))


class PrefixGraph(nn.Module):
    """Norm of the memory and one product for the keys and values of all blocks."""

    weight: Tensor
    bias: Tensor

    def __init__(self, decoder: ChunkDecoder, dtype: torch.dtype) -> None:
        super().__init__()
        norm, blocks = decoder.norm_memory, decoder.each_block()
        linears = [b.memory if isinstance(b, ParallelBlock) else b.cross_attention.key_value for b in blocks]
        folded = [fold_norm(norm, linear) for linear in linears]
        self.num_blocks, self.num_heads = len(blocks), _num_heads(blocks[0])
        self.register_buffer("weight", torch.cat([w for w, _ in folded]).to(dtype))
        self.register_buffer("bias", torch.cat([b for _, b in folded]).to(dtype))

    def forward(self, features_BCD: Tensor, mask_BC: Tensor, state_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [L 2 B n M h], and who may be read, bool [B M]."""
        memory_BMD = torch.cat([features_BCD, state_BSD], dim=1)
        made = F.linear(F.layer_norm(memory_BMD, memory_BMD.shape[-1:]), self.weight, self.bias)
        made = made.unflatten(-1, (self.num_blocks, 2, self.num_heads, -1))
        mask_BM = torch.cat([mask_BC, mask_BC.new_ones(state_BSD.shape[:2])], dim=1)
        return made.permute(2, 3, 0, 4, 1, 5).contiguous(), mask_BM


class StepGraph(nn.Module):
    """One denoising step. ``row`` [Z] holds all that depends on the step: see :attr:`schedule` [n Z]."""

    schedule: Tensor
    starts: Tensor
    into: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def __init__(
        self,
        decoder: ChunkDecoder,
        into: nn.Linear | None,
        times_nD: Tensor,
        schedule: Schedule,
        dtype: torch.dtype,
        ops: ModuleType = native,
    ) -> None:
        super().__init__()
        self.ops, self.blocks = ops, nn.ModuleList()
        self.horizon, self.width = decoder.places.shape
        rows = [torch.tensor([schedule.keep, schedule.add], dtype=torch.float64).T]
        entries, width = decoder.out.weight.shape
        first = times_nD.new_zeros(width, entries) if into is None else into.weight
        offset = times_nD.new_zeros(width) if into is None else into.bias
        starts = decoder.places.double() + offset.double() + times_nD[:, None]
        rows.append(starts.roll(-1, 0).flatten(1).cpu())  # what follows the last step is not used
        for block in decoder.each_block():
            if isinstance(block, ParallelBlock):
                self.blocks.append(_ParallelStep(block, dtype))
                rows.append(modulation(block, times_nD).cpu())
            else:
                self.blocks.append(_SequentialStep(block, dtype))
                rows.append(times_nD.new_zeros(len(times_nD), 0).cpu())
        self.sizes = [r.shape[1] for r in rows]
        weight, bias = fold_norm(decoder.norm_out, decoder.out)
        for name, value in (
            ("schedule", torch.cat(rows, 1)), ("starts", starts), ("into", first.double()),
            ("out_weight", weight), ("out_bias", bias),
        ):  # fmt: skip
            self.register_buffer(name, value.to(decoder.places.device, dtype).contiguous())

    def begin(self, x_BHA: Tensor) -> Tensor:
        """The first step's embedding [B H D]."""
        return F.linear(x_BHA, self.into) + self.starts[0]

    def forward(
        self, x_BHA: Tensor, h_BHD: Tensor, row_Z: Tensor, memory_L2BnMh: Tensor, mask_BM: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The next x [B H A] and its embedding [B H D]."""
        coefficients, start, *parts = row_Z.split(self.sizes)
        for i, (block, part) in enumerate(zip(self.blocks, parts, strict=True)):
            h_BHD = block(self.ops, h_BHD, part, (memory_L2BnMh[i, 0], memory_L2BnMh[i, 1]), mask_BM)
        out = (None, None, self.out_weight, self.out_bias)
        start = start.view(self.horizon, self.width)
        return self.ops.finish_step(h_BHD, out, x_BHA, coefficients, self.into, start)


class _ParallelStep(nn.Module):
    """A :class:`ParallelBlock` whose modulation is looked up: three dependent phases."""

    def __init__(self, block: ParallelBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.width, self.num_heads = block.width, block.num_heads
        self.sizes = [block.width, block.width, len(block.inputs.weight)]
        _keep(self, dtype, inputs=block.inputs.weight, outputs=block.outputs.weight, bias=block.outputs.bias)

    def forward(
        self, ops: ModuleType, h_BHD: Tensor, row: Tensor, memory: tuple[Tensor, Tensor], mask_BM: Tensor
    ) -> Tensor:
        scale, gate, bias = row.split(self.sizes)
        straight, product = ops.norm_parallel(h_BHD, scale[None], None, self.inputs, bias, 3 * self.width)
        q, k, v = (split_heads(t, self.num_heads) for t in straight.split(self.width, -1))
        read = ops.attention(q, (k, v), memory, mask_BM)
        return ops.linear_residual(h_BHD, (read, product), self.outputs, self.bias, gate[None])


def modulation(block: ParallelBlock, times_nD: Tensor) -> Tensor:
    """Scale, gate, and the input product's bias with the shift folded in: [n 2D + N], float64."""
    weight, bias = block.modulation.weight.double(), block.modulation.bias.double()
    scale, shift, gate = F.linear(F.silu(times_nD), weight, bias).chunk(3, -1)
    folded = F.linear(shift, block.inputs.weight.double(), block.inputs.bias.double())
    return torch.cat([1 + scale, 1 + gate, folded], -1)


class _SequentialStep(nn.Module):
    """A :class:`DecoderBlock` with its norms' weights folded into the products: eight dependent phases."""

    def __init__(self, block: DecoderBlock, dtype: torch.dtype) -> None:
        super().__init__()
        own, cross, feed = block.self_attention, block.cross_attention, block.feed
        first, last = feed[0], feed[2]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        self.num_heads, self.width = own.num_heads, len(cross.query.weight)
        folded = {
            "own": fold_norm(block.norm_self, own.query_key_value), "own_out": (own.out.weight, own.out.bias),
            "cross": fold_norm(block.norm_cross, cross.query),
            "cross_out": (cross.out.weight, cross.out.bias),
            "feed": fold_norm(block.norm_feed, first), "feed_out": (last.weight, last.bias),
        }  # fmt: skip
        for name, (weight, bias) in folded.items():
            _keep(self, dtype, **{name: weight, f"{name}_bias": bias})

    def forward(
        self, ops: ModuleType, h_BHD: Tensor, row: Tensor, memory: tuple[Tensor, Tensor], mask_BM: Tensor
    ) -> Tensor:
        made = ops.norm_linear(h_BHD, None, None, self.own, self.own_bias)
        q, k, v = (split_heads(t, self.num_heads) for t in made.split(self.width, -1))
        read = ops.attention(q, (k, v), None, None)
        h_BHD = ops.linear_residual(h_BHD, (read,), self.own_out, self.own_out_bias, None)
        q = split_heads(ops.norm_linear(h_BHD, None, None, self.cross, self.cross_bias), self.num_heads)
        read = ops.attention(q, None, memory, mask_BM)
        h_BHD = ops.linear_residual(h_BHD, (read,), self.cross_out, self.cross_out_bias, None)
        made = ops.norm_linear(h_BHD, None, None, self.feed, self.feed_bias, "gelu")
        return ops.linear_residual(h_BHD, (made,), self.feed_out, self.feed_out_bias, None)


def _keep(module: nn.Module, dtype: torch.dtype, **values: Tensor) -> None:
    for name, value in values.items():
        module.register_buffer(name, value.detach().to(dtype).contiguous())


def fold_norm(norm: nn.LayerNorm, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """The product that follows a norm, with the norm's weight and bias inside it; float64."""
    weight = linear.weight.double()
    return weight * norm.weight.double(), weight @ norm.bias.double() + linear.bias.double()


def _num_heads(block: DecoderBlock | ParallelBlock) -> int:
    return block.num_heads if isinstance(block, ParallelBlock) else block.cross_attention.num_heads


def embed_times(head: FlowHead | RegressionHead, schedule: Schedule) -> Tensor:
    """The embedded time of each step [n D], float64; zero for a head without time."""
    device, width = head.decoder.places.device, head.config.width
    if isinstance(head, RegressionHead):
        return torch.zeros(1, width, device=device, dtype=torch.float64)
    made = sinusoids(torch.tensor(schedule.times, device=device), width).double()
    first, _, last = head.time_in
    made = F.silu(F.linear(made, first.weight.double(), first.bias.double()))  # type: ignore[arg-type]
    return F.linear(made, last.weight.double(), last.bias.double())  # type: ignore[arg-type]


class StaticHead:
    """The graphs of one head for one schedule, dtype and way to run them; weights as they were when built.

    Args:
        head: a flow or regression head, of either kind of block.
        num_steps: of the schedule; a regression head has one.
        capacity: prefix tokens that the graphs are built for; shorter prefixes are padded and masked.
        dtype: of weights and arithmetic; None: the head's own.
        ops: :mod:`vla.kernels.native`, ``reference`` or ``triton_ops``.
        compiled: run both graphs through ``torch.compile``.
    """

    @torch.no_grad()
    def __init__(
        self,
        head: FlowHead | RegressionHead,
        *,
        num_steps: int,
        capacity: int,
        dtype: torch.dtype | None = None,
        ops: ModuleType = native,
        compiled: bool = False,
    ) -> None:
        if not isinstance(head, FlowHead | RegressionHead):
            raise ConfigError(
                f"Only flow and regression heads have static graphs, not {type(head).__name__}."
            )
        flow = isinstance(head, FlowHead)
        schedule = Schedule.flow(num_steps, head.config.schedule) if flow else Schedule.one_pass()
        self.dtype = dtype or head.decoder.places.dtype
        self.capacity, self.horizon, self.num_steps = capacity, head.config.horizon, len(schedule.times)
        self.prefix = PrefixGraph(head.decoder, self.dtype)
        into = head.action_in if flow else None
        self.step = StepGraph(head.decoder, into, embed_times(head, schedule), schedule, self.dtype, ops)
        self._captured: dict[int, tuple[_Captured, _Captured]] = {}
        self._run_prefix: Callable[..., Any] = self.prefix
        self._run_step: Callable[..., Any] = self.step
        if compiled:
            load_triton()  # torch.compile imports it
            self._run_prefix = torch.compile(self.prefix, dynamic=False)
            self._run_step = torch.compile(self.step, dynamic=False)

    def pad(self, prefix: PrefixFeatures) -> tuple[Tensor, Tensor]:
        """Features [B C D] and mask [B C]; a longer prefix raises :class:`ConfigError`."""
        features, mask = prefix.features.to(self.dtype), prefix.mask
        batch, count, _ = features.shape
        if count > self.capacity:
            raise ConfigError(
                f"A prefix of {count} tokens does not fit the static graphs, built for {self.capacity}. "
                "Fuse the head with a larger capacity."
            )
        if mask is None:
            mask = torch.ones(batch, count, dtype=torch.bool, device=features.device)
        more = self.capacity - count
        return F.pad(features, (0, 0, 0, more)), F.pad(mask, (0, more))

    @torch.no_grad()
    def __call__(self, prefix: PrefixFeatures, state_BSD: Tensor, x_BHA: Tensor) -> Tensor:
        """Normalised actions [B H A] from starting noise ``x``; in the dtype of ``x``."""
        features, mask = self.pad(prefix)
        inputs = features, mask, state_BSD.to(self.dtype)
        noise = x_BHA.to(self.dtype)
        if features.device.type == "cuda":
            return self._replay(inputs, noise).to(x_BHA.dtype, copy=True)
        memory, there = self._run_prefix(*inputs)
        return self._loop(memory, there, noise).to(x_BHA.dtype)

    def _loop(self, memory: Tensor, mask: Tensor, x_BHA: Tensor) -> Tensor:
        h_BHD = self.step.begin(x_BHA)
        for row in self.step.schedule:
            x_BHA, h_BHD = self._run_step(x_BHA, h_BHD, row, memory, mask)
        return x_BHA

    def _replay(self, inputs: tuple[Tensor, Tensor, Tensor], noise: Tensor) -> Tensor:
        batch = len(noise)
        if batch not in self._captured:
            prefix = _Captured(self._run_prefix, inputs)
            self._captured[batch] = prefix, _Captured(self._loop, (*prefix.outputs, noise))
        prefix, loop = self._captured[batch]
        memory, mask = prefix(*inputs)
        return loop(memory, mask, noise)


class _Captured:
    """One CUDA graph: inputs are copied into fixed places, outputs are overwritten by the next call."""

    def __init__(self, function: Callable[..., Any], examples: Sequence[Tensor]) -> None:
        self.inputs = [value.clone() for value in examples]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries choose and allocate outside the capture
            for _ in range(3):
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = function(*self.inputs)

    def __call__(self, *values: Tensor) -> Any:
        for place, value in zip(self.inputs, values, strict=True):
            place.copy_(value)
        self.graph.replay()
        return self.outputs
