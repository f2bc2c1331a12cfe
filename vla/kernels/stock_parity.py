"""Rows of the parity certificate for heads that have no fused graphs: they run as they are, in one way.

What is compared is what the network computes: the chunk where it is continuous (diffusion, CVAE), the logits
of fresh random tokens where the chunk is a choice among them (binned, FAST): a choice may flip on the last
bit of two equal logits, and would then say nothing about rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from vla.errors import ConfigError
from vla.kernels.parity import TOLERANCE, Case, Row
from vla.kernels.select import PATHS
from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.autoregressive import TokenDecoder
from vla.models.heads.interface import Head

WITHOUT_GRAPHS = "heads of this kind run as they are: the static graphs are of flow and regression heads"


@torch.no_grad()
def stock_rows(
    name: str, head: nn.Module, cases: Sequence[Case], num_steps: int, seed: int, paths: Sequence[str] = PATHS
) -> Iterator[Row]:
    """``eager`` in float32 against the same head in float64, and why each other path does not run."""
    exact, tolerance = copy.deepcopy(head).double(), TOLERANCE[torch.float32]
    for path in paths:
        row = {"head": name, "path": path, "dtype": "float32", "tolerance": tolerance}
        if path != "eager":
            yield Row(**row, reason=WITHOUT_GRAPHS)
            continue
        errors = {}
        for case in cases:
            truth = outputs(exact, case, torch.float64, num_steps, seed)
            made = outputs(head, case, torch.float32, num_steps, seed).double()
            errors[case.name] = float((made - truth).abs().max() / truth.abs().max().clamp(min=1.0))
        worst = max(errors, key=lambda n: float("inf") if errors[n] != errors[n] else errors[n])
        yield Row(**row, error=errors[worst], worst_case=worst)


def outputs(head: nn.Module, case: Case, dtype: torch.dtype, num_steps: int, seed: int) -> Tensor:
    """The chunk [B H A] from zero noise, or logits [B T V] of tokens drawn from ``seed``."""
    prefix = PrefixFeatures(case.prefix.features.to(dtype), case.prefix.mask)
    state, decoder = case.state.to(dtype), getattr(head, "decoder", None)
    if isinstance(decoder, TokenDecoder):
        drawn = torch.Generator().manual_seed(seed)
        ids = torch.randint(decoder.vocabulary, (len(state), decoder.length), generator=drawn)
        return decoder(ids.to(state.device), decoder.encode(prefix, state))
    if not isinstance(head, Head):
        raise ConfigError(f"{type(head).__name__} is no action head: it has no sample().")
    return head.sample(prefix, state, num_steps=num_steps, generator=None)
