"""The fused action head, opt-in: the stock head's weights and loss, run by static graphs or fused kernels.

:func:`fuse` wraps a head that was built or loaded as usual. Parameters and state dict are the stock head's
own (shared, not copied), so training, saving and loading do not know the difference. Sampling runs the graphs
of :mod:`vla.models.static_graphs`; with the ``triton`` path the velocity in training runs fused kernels too,
forward and backward. Which path runs is decided by :mod:`vla.kernels.select` and kept in ``head.choice``.

Shapes: as in :mod:`vla.models.static_graphs`; G = B * k groups that share a memory row.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import torch
from torch import Tensor, nn

from vla.errors import ConfigError
from vla.kernels import native
from vla.kernels.select import Choice, HeadShape, select
from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.flow import FlowHead
from vla.models.heads.interface import ChunkDecoder, HeadConfig, Memory
from vla.models.heads.regression import RegressionHead
from vla.models.layers import sinusoids, split_heads
from vla.models.parallel_block import ParallelBlock
from vla.models.policy_net import PolicyNet
from vla.models.static_graphs import StaticHead

_ROUND = 16  # a capacity that nobody stated is the first prefix, rounded up to a multiple of this


def fast(config: HeadConfig) -> HeadConfig:
    """The ``fast`` preset of a head of these sizes: parallel blocks, at most three, and a wide gated MLP.

    Latency on a GPU is steps x layers x dependent phases: this has 3 x 3 phases a step where four sequential
    blocks have 4 x 8.
    """
    return replace(config, block="parallel", num_blocks=min(config.num_blocks, 3), feed_ratio=4)


def fuse(
    head: nn.Module, *, path: str | None = None, capacity: int | None = None, dtype: torch.dtype | None = None
) -> FusedFlowHead | FusedRegressionHead:
    """A head that shares ``head``'s parameters and runs by the chosen path.

    Args:
        head: a :class:`FlowHead` or :class:`RegressionHead`, of either kind of block.
        path: of :data:`vla.kernels.select.PATHS`; None: what :func:`vla.kernels.select.select` says.
        capacity: prefix tokens that the static graphs are built for; None: the first prefix decides, a longer
            one builds them anew.
        dtype: of the graphs; None: the head's own.

    Raises:
        ConfigError: another kind of head, or a path that cannot run here.
    """
    if isinstance(head, FlowHead) and type(head) in (FlowHead, FusedFlowHead):
        return FusedFlowHead(head, path=path, capacity=capacity, dtype=dtype)
    if isinstance(head, RegressionHead) and type(head) in (RegressionHead, FusedRegressionHead):
        return FusedRegressionHead(head, path=path, capacity=capacity, dtype=dtype)
    raise ConfigError(f"Only flow and regression heads can be fused, not {type(head).__name__}.")


def fuse_policy(net: PolicyNet, *, path: str | None = None, capacity: int | None = None) -> PolicyNet:
    """Replace each head of a network that can be fused; its state dict stays as it was. Returns ``net``."""
    for name, head in net.heads.items():
        if type(head) in (FlowHead, RegressionHead):
            net.heads[name] = fuse(head, path=path, capacity=capacity)
    return net


def rebuild(module: nn.Module) -> None:
    """Have every fused head in ``module`` build its static graphs anew when it samples next.

    Weights that are loaded, stepped by an optimizer or changed by any operation of torch are noticed; a
    change through ``Tensor.data`` (or from outside torch) leaves no trace: call this after it.
    """
    for head in module.modules():
        if isinstance(head, FusedFlowHead | FusedRegressionHead):
            head.graphs.forget()


class _Graphs:
    """The static graphs of one head, a set per number of steps; built anew when its weights change."""

    def __init__(self, path: str | None, capacity: int | None, dtype: torch.dtype | None) -> None:
        self.path, self.capacity, self.dtype, self.fixed = path, capacity, dtype, capacity is not None
        self._built: dict[int, StaticHead] = {}
        self._weights: tuple[tuple[int, int], ...] = ()

    def forget(self) -> None:
        self._built = {}

    def choose(self, head: FlowHead | RegressionHead) -> Choice:
        config, places = head.config, head.decoder.places
        shape = HeadShape(config.width, config.num_heads, config.action_dim)
        return select(shape, places.device, self.dtype or places.dtype, self.path)

    def get(
        self, head: FlowHead | RegressionHead, path: str, num_steps: int, prefix_tokens: int
    ) -> StaticHead:
        weights = tuple((p.data_ptr(), p._version) for p in head.parameters())
        if weights != self._weights:
            self._built, self._weights = {}, weights
        if not self.fixed and prefix_tokens > (self.capacity or 0):
            self._built, self.capacity = {}, -(-prefix_tokens // _ROUND) * _ROUND
        if num_steps not in self._built:
            assert self.capacity is not None
            self._built[num_steps] = StaticHead(
                head,
                num_steps=num_steps,
                capacity=self.capacity,
                dtype=self.dtype,
                ops=operations(path),
                compiled=path == "compiled",
            )
        return self._built[num_steps]


def operations(path: str) -> ModuleType:
    """The module whose operations a path runs."""
    if path != "triton":
        return native
    from vla.kernels import triton_ops

    return triton_ops


class FusedFlowHead(FlowHead):
    """See :func:`fuse`."""

    config: HeadConfig

    def __init__(
        self, head: FlowHead, *, path: str | None, capacity: int | None, dtype: torch.dtype | None
    ) -> None:
        _share(self, head)
        self.graphs = _Graphs(path, capacity, dtype)
        self.choice = self.graphs.choose(self)

    def velocity(self, memory: Memory, x_GHA: Tensor, time_G: Tensor) -> Tensor:
        if self.choice.path != "triton":
            return super().velocity(memory, x_GHA, time_G)
        time_GD = self.time_in(sinusoids(time_G, self.config.width).to(x_GHA.dtype))
        h_GHD = self.action_in(x_GHA) + time_GD[:, None]
        return decode(operations("triton"), self.decoder, h_GHD, memory, time_GD)

    def sample(
        self, prefix: PrefixFeatures, state: Tensor, *, num_steps: int, generator: torch.Generator | None
    ) -> Tensor:
        if self.choice.path == "eager" or _wants_gradient(self, prefix, state):
            return super().sample(prefix, state, num_steps=num_steps, generator=generator)
        shape = (len(state), self.config.horizon, self.config.action_dim)
        x = torch.zeros(shape, device=state.device, dtype=state.dtype)
        if generator is not None:
            x = torch.randn(shape, generator=generator, device=state.device, dtype=state.dtype)
        return self.graphs.get(self, self.choice.path, num_steps, prefix.features.shape[1])(prefix, state, x)


class FusedRegressionHead(RegressionHead):
    """See :func:`fuse`."""

    config: HeadConfig

    def __init__(
        self, head: RegressionHead, *, path: str | None, capacity: int | None, dtype: torch.dtype | None
    ) -> None:
        _share(self, head)
        self.graphs = _Graphs(path, capacity, dtype)
        self.choice = self.graphs.choose(self)

    def predict(self, prefix: PrefixFeatures, state: Tensor) -> Tensor:
        if self.choice.path == "triton" and _wants_gradient(self, prefix, state):
            memory = self.decoder.encode(prefix, state)
            start = state.new_zeros(memory.batch, self.config.horizon, self.config.width)
            return decode(operations("triton"), self.decoder, start, memory, None)
        if self.choice.path == "eager" or _wants_gradient(self, prefix, state):
            return super().predict(prefix, state)
        x = state.new_zeros(len(state), self.config.horizon, self.config.action_dim)
        return self.graphs.get(self, self.choice.path, 1, prefix.features.shape[1])(prefix, state, x)


def _share(fused: FlowHead | RegressionHead, head: FlowHead | RegressionHead) -> None:
    """The same submodules, hence the same parameters under the same names."""
    nn.Module.__init__(fused)
    fused.config = head.config
    for name, module in head.named_children():
        setattr(fused, name, module)
    fused.train(head.training)


def _wants_gradient(head: nn.Module, prefix: PrefixFeatures, state: Tensor) -> bool:
    """Static graphs give no gradients: where one is wanted, the differentiable way runs."""
    if not torch.is_grad_enabled():
        return False
    return any(t.requires_grad for t in (prefix.features, state, *head.parameters()))


def decode(
    ops: ModuleType, decoder: ChunkDecoder, x_GHD: Tensor, memory: Memory, condition_GD: Tensor | None
) -> Tensor:
    """What ``decoder(x, memory, condition)`` computes, by other operations; differentiable if they are."""
    h = x_GHD + decoder.places
    width = h.shape[-1]
    for block, pair in zip(decoder.each_block(), memory.keys_values, strict=True):
        if isinstance(block, ParallelBlock):
            condition = h.new_zeros(1, width) if condition_GD is None else condition_GD
            scale, shift, gate = block.modulate(condition)
            made, product = ops.norm_parallel(h, scale, shift, *_parameters(block.inputs), 3 * width)
            q, k, v = (split_heads(t, block.num_heads) for t in made.split(width, -1))
            read = ops.attention(q, (k, v), pair, memory.mask)
            h = ops.linear_residual(h, (read, product), *_parameters(block.outputs), gate)
            continue
        own, cross = block.self_attention, block.cross_attention
        made = ops.norm_linear(h, *_affine(block.norm_self), *_parameters(own.query_key_value))
        q, k, v = (split_heads(t, own.num_heads) for t in made.split(width, -1))
        h = ops.linear_residual(h, (ops.attention(q, (k, v), None, None),), *_parameters(own.out), None)
        made = ops.norm_linear(h, *_affine(block.norm_cross), *_parameters(cross.query))
        read = ops.attention(split_heads(made, cross.num_heads), None, pair, memory.mask)
        h = ops.linear_residual(h, (read,), *_parameters(cross.out), None)
        made = ops.norm_linear(h, *_affine(block.norm_feed), *_parameters(block.feed[0]), "gelu")
        h = ops.linear_residual(h, (made,), *_parameters(block.feed[2]), None)
    return ops.norm_linear(h, *_affine(decoder.norm_out), *_parameters(decoder.out))


def _affine(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    return norm.weight[None], norm.bias[None]


def _parameters(linear: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(linear, nn.Linear)
    return linear.weight, linear.bias
