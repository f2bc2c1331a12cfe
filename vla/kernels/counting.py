"""FLOPs and weights of a policy of this package, counted by running its stages once on empty inputs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vla.contract import PolicyContract
from vla.errors import ConfigError
from vla.kernels.parity import policy_cases
from vla.kernels.roofline import Model, Stage
from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.flow import FlowHead
from vla.models.heads.regression import RegressionHead
from vla.models.parallel_block import ParallelBlock
from vla.models.policy_net import PolicyNet
from vla.models.saving import load_policy

#: Dependent phases of one block, fused as in ``vla.models.static_graphs``.
PHASES = {"parallel": 3, "sequential": 8}


@torch.no_grad()
def policy_model(directory: str | Path) -> Model:
    """Backbone with fusion, prefix, and denoising loop of a policy's default head, for one observation."""
    net, contract = load_policy(directory)
    return count_policy(net, contract)


@torch.no_grad()
def count_policy(net: PolicyNet, contract: PolicyContract) -> Model:
    name = contract.heads[0]
    head = net.heads[name]
    if not isinstance(head, FlowHead | RegressionHead):
        raise ConfigError(
            f"The roofline counts flow and regression heads, not {type(head).__name__} ({name})."
        )
    counter = FlopCounterMode(display=False)
    with counter:
        case = policy_cases(net, contract, torch.Generator().manual_seed(0))[-1]
    rows = sum(len(c) for c in [case.state]) * 3  # cases of three prompts, a row for each number of cameras
    seen = counter.get_total_flops() / rows
    prefix = PrefixFeatures(case.prefix.features[:1].float(), None)
    state = case.state[:1].float()
    encoding = FlopCounterMode(display=False)
    with encoding:
        memory = head.decoder.encode(prefix, state)
    stepping, steps = FlopCounterMode(display=False), 1
    x = case.noise[:1].float()
    with stepping:
        if isinstance(head, FlowHead):
            steps = contract.num_flow_steps
            head.velocity(memory, x, torch.zeros(1))
        else:
            head.decoder(x.new_zeros(1, head.config.horizon, head.config.width), memory)
    once = _once(head)
    kind = head.config.block
    return Model(
        f"policy for {', '.join(contract.embodiments)}",
        (
            Stage(name="backbone and fusion", flops=seen, weights=_read(net) - _read(net.heads)),
            Stage(name="head: prefix", flops=encoding.get_total_flops(), weights=once),
            Stage(
                name=f"head: {name}, {steps} steps", flops=stepping.get_total_flops(),
                weights=_read(head) - once,
                repeats=steps, phases=head.config.num_blocks * PHASES[kind] + 1, action=True,
            ),
        ),
        f"{prefix.features.shape[1]} prefix tokens, chunk {head.config.horizon}, {kind} blocks",
    )  # fmt: skip


def _read(module: nn.Module) -> int:
    """Parameters that a pass reads: all but embedding tables."""
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    return sum(p.numel() for p in module.parameters() if id(p) not in tables)


def _once(head: FlowHead | RegressionHead) -> int:
    """Of the prefix's keys and values, and of what only the schedule needs."""
    parts: list[nn.Module] = [head.decoder.norm_memory]
    if isinstance(head, FlowHead):
        parts.append(head.time_in)
    for block in head.decoder.each_block():
        fast = isinstance(block, ParallelBlock)
        parts += [block.memory, block.modulation] if fast else [block.cross_attention.key_value]
    return sum(_read(part) for part in parts)
