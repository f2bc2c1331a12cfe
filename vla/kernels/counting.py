"""FLOPs and weights of a policy of this package, counted by running its stages once on made-up inputs.

Torch's counter sees neither its fused attention, which is therefore taken apart while counting, nor products
with 4-bit weights, which are counted by their sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vla.contract import PolicyContract
from vla.kernels.parity import policy_cases
from vla.kernels.roofline import Model, Stage
from vla.models.backbones.interface import PrefixFeatures
from vla.models.four_bit import FourBitLinear
from vla.models.heads.autoregressive import TokenDecoder
from vla.models.heads.cvae import CVAEHead
from vla.models.heads.denoiser import Denoiser
from vla.models.parallel_block import ParallelBlock
from vla.models.policy_net import PolicyNet
from vla.models.saving import load_policy

#: Dependent phases of one block, fused as in ``vla.models.static_graphs``.
PHASES = {"parallel": 3, "sequential": 8}


@torch.no_grad()
def policy_model(directory: str | Path) -> Model:
    """Backbone with fusion, prefix, and action loop of a policy's default head, for one observation."""
    net, contract = load_policy(directory)
    return count_policy(net, contract)


@torch.no_grad()
def count_policy(net: PolicyNet, contract: PolicyContract) -> Model:
    """The loop's repeats are denoising steps or tokens; a head that answers at once has one. A head of tokens
    of several coefficients (``fast``) needs as many as it gives for the inputs at hand.
    """
    name = contract.heads[0]
    head: Any = net.heads[name]
    source, cases = torch.Generator().manual_seed(0), []
    seen = count_flops(net, lambda: cases.extend(policy_cases(net, contract, source)))
    prefix = PrefixFeatures(cases[-1].prefix.features[:1].float(), None)
    state, steps = cases[-1].state[:1].float(), contract.num_flow_steps
    once = count_flops(head, lambda: head.encode_prefix(prefix, state))
    calls: list[None] = []
    hook = head.decoder.out.register_forward_hook(lambda *_: calls.append(None))
    every = count_flops(head, lambda: head.sample(prefix, state, num_steps=steps, generator=None))
    hook.remove()
    repeats, kind = len(calls), "tokens" if isinstance(head.decoder, TokenDecoder) else "steps"
    block = "sequential" if kind == "tokens" else head.config.block
    encoding, loop = _parts(head)
    stages = (
        _stage("backbone and fusion", seen / sum(len(case.state) for case in cases), [net], [net.heads]),
        _stage("head: prefix", once, encoding, []),
        replace(
            _stage(f"head: {name}, {repeats} {kind}", (every - once) / repeats, loop, encoding),
            repeats=repeats,
            phases=head.config.num_blocks * PHASES[block] + 1,
            action=True,
        ),
    )
    note = f"{prefix.features.shape[1]} prefix tokens, chunk {contract.horizon}, {block} blocks"
    return Model(f"policy for {', '.join(contract.embodiments)}", stages, note)


def count_flops(module: nn.Module, run: Callable[[], object]) -> float:
    """Of what ``run`` does with ``module``; a multiplication and an addition count as two."""
    packed = 0

    def add(layer: nn.Module, given: tuple[torch.Tensor, ...], _: object) -> None:
        nonlocal packed
        assert isinstance(layer, FourBitLinear)
        packed += 2 * given[0].numel() * layer.out_features

    hooks = [m.register_forward_hook(add) for m in module.modules() if isinstance(m, FourBitLinear)]
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() + packed


def _stage(name: str, flops: float, parts: Sequence[nn.Module], apart: Sequence[nn.Module]) -> Stage:
    """What a pass through ``parts`` reads: all weights but embedding tables and those of ``apart``."""
    without = {id(p) for part in apart for p in part.parameters()}
    modules = list({id(m): m for part in parts for m in part.modules()}.values())
    without |= {id(m.weight) for m in modules if isinstance(m, nn.Embedding)}
    weights = {id(p): p.numel() for part in parts for p in part.parameters() if id(p) not in without}
    packed = sum(m.packed_bytes for m in modules if isinstance(m, FourBitLinear))
    return Stage(name=name, flops=flops, weights=sum(weights.values()), packed=packed)


def _parts(head: Any) -> tuple[list[nn.Module], list[nn.Module]]:
    """What runs once (the prefix's keys and values, what only the schedule needs), and what may repeat."""
    once: list[nn.Module] = [head.decoder.norm_memory]
    if isinstance(head, Denoiser):
        once.append(head.time_in)
    for block in head.decoder.each_block():
        fast = isinstance(block, ParallelBlock)
        once += [block.memory, block.modulation] if fast else [block.cross_attention.key_value]
    if isinstance(head, CVAEHead):  # the rest of it is for training
        return once, [head.decoder, head.latent_in]
    return once, [head]
