"""The loop as it is exported computes what the stock head does, in both kinds of block and head."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.heads import BLOCKS, make_head, noise, prefix
from vla.export.steps import ExportedSteps
from vla.kernels.parity import Case, exact
from vla.models.backbones import PrefixFeatures
from vla.models.static_graphs import PrefixGraph


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("name", "schedule"), [("flow", "uniform"), ("flow", "early"), ("regression", "uniform")]
)
def test_the_exported_loop_is_within_tolerance_of_float64(name, schedule, block):
    head, (seen, state) = make_head(name, block, schedule=schedule), prefix()
    x = torch.randn(2, 6, 5, generator=noise())
    doubled = PrefixFeatures(seen.features.double(), seen.mask)
    truth = exact(head, Case("one", doubled, state.double(), x.double()), 3)
    with torch.no_grad():
        memory, mask = PrefixGraph(head.decoder, torch.float32)(seen.features, seen.mask, state)
        made = ExportedSteps(head, 3)(x, memory, mask)
    assert 0 < (made - truth).abs().max() / truth.abs().max().clamp(min=1) < 1e-5


def test_hidden_prefix_tokens_change_nothing():
    head, (seen, state) = make_head("flow", "parallel"), prefix()
    x = torch.randn(2, 6, 5, generator=noise())
    other = torch.where(seen.mask[..., None], seen.features, torch.full_like(seen.features, 3.0))
    chunks = []
    for features in (seen.features, other):
        memory, mask = PrefixGraph(head.decoder, torch.float32)(features, seen.mask, state)
        chunks.append(ExportedSteps(head, 2)(x, memory, mask))
    assert torch.equal(*chunks)
