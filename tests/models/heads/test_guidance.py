"""Chunks that continue another one: exactly where they must, closely where they should."""

import numpy as np
import pytest
import torch

from tests.models.heads.worlds import ACTIONS, HORIZON, fit, make_head, seen
from tests.models.nets import make_batch, make_net, noise
from vla.errors import IncompatibleError
from vla.models.fused import fuse
from vla.models.heads.guidance import Continuation, soft_mask

DENOISERS = ("flow", "diffusion", "epsilon")


def continued(head, prefix, state, plan, generator=None, num_steps=5):
    return head.continued(prefix, state, plan, num_steps=num_steps, generator=generator)


def sampled(head, prefix, state, generator=None, num_steps=5):
    with torch.no_grad():
        return head.sample(prefix, state, num_steps=num_steps, generator=generator)


def test_the_soft_mask_is_one_where_frozen_and_falls_to_nothing_behind_what_is_known():
    mask = soft_mask(8, known=6, frozen=2)
    assert mask[:2].tolist() == [1.0, 1.0]
    c = (6 - 3) / (6 - 2 + 1)
    assert mask[3] == pytest.approx(c * (np.exp(c) - 1) / (np.e - 1))
    assert (np.diff(mask[1:7]) < 0).all()
    assert mask[6:].tolist() == [0.0, 0.0]
    assert soft_mask(4, known=0, frozen=0).tolist() == [0.0] * 4
    assert soft_mask(4, known=2, frozen=2).tolist() == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize("random", [False, True])
def test_frozen_actions_are_exactly_the_old_ones(name, random):
    head, (prefix, state) = make_head(name), seen()
    old = torch.randn(4, HORIZON, ACTIONS, generator=noise(3))
    weight = torch.from_numpy(np.stack([soft_mask(HORIZON, 2, frozen) for frozen in (0, 1, 2, 2)]))
    with torch.inference_mode():
        chunk = continued(head, prefix, state, Continuation(old, weight), noise(4) if random else None)
    for row, frozen in enumerate((0, 1, 2, 2)):
        assert torch.equal(chunk[row, :frozen], old[row, :frozen])
    assert chunk.isfinite().all()
    assert not torch.equal(chunk[2, 2], old[2, 2])


@pytest.mark.parametrize("name", DENOISERS)
def test_nothing_known_leaves_the_chunk_as_it_is_sampled(name):
    head, (prefix, state) = make_head(name), seen()
    nothing = Continuation(torch.randn(4, HORIZON, ACTIONS), torch.zeros(4, HORIZON))
    plain = sampled(head, prefix, state)
    torch.testing.assert_close(continued(head, prefix, state, nothing), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["flow", "diffusion"])
@pytest.mark.parametrize("num_steps", [2, 5, 10])
def test_of_two_ways_to_go_on_the_one_that_was_begun_is_taken(name, num_steps):
    head, (prefix, state) = make_head(name), seen(1)
    rows, told = type(prefix)(prefix.features.expand(32, -1, -1), None), state.expand(32, -1, -1)
    mask, source = torch.ones(32, HORIZON, ACTIONS, dtype=torch.bool), noise(7)

    def batch(_):
        side = torch.randint(2, (32, 1, 1), generator=source) * 2.0 - 1
        return rows, told, (0.7 * side).expand(-1, HORIZON, ACTIONS), mask

    fit(head, batch, 250)
    side = torch.where(torch.arange(32) % 2 == 0, 0.7, -0.7)[:, None, None]
    weight = torch.from_numpy(soft_mask(HORIZON, 1, 1)).expand(32, -1)
    chunk = continued(
        head, rows, told, Continuation(side.expand(-1, HORIZON, ACTIONS), weight), noise(9), num_steps
    )
    alone = sampled(head, rows, told, noise(9), num_steps)
    kept = float((chunk[:, 1:].sign() == side.sign()).float().mean())
    assert kept > 0.9 > float((alone[:, 1:].sign() == side.sign()).float().mean())
    assert float((chunk.abs() - 0.7).abs().mean()) < 0.3  # drawn to the old chunk, not past it


def test_a_fused_head_continues_as_the_stock_one_does():
    head, (prefix, state) = make_head("flow"), seen()
    plan = Continuation(
        torch.randn(4, HORIZON, ACTIONS), torch.from_numpy(soft_mask(HORIZON, 2, 1)).expand(4, -1)
    )
    fused = fuse(head, path="eager")
    assert torch.equal(continued(fused, prefix, state, plan), continued(head, prefix, state, plan))


def test_a_network_continues_through_its_flow_head_and_refuses_for_a_head_that_does_not_denoise():
    net, (inputs, _) = make_net().eval(), make_batch()
    old = torch.rand(4, 4, 5, generator=noise(2))
    plan = Continuation(old, torch.from_numpy(soft_mask(4, 3, 2)).expand(4, -1))
    with torch.inference_mode():
        chunk, _ = net.sample(inputs, head="flow", plan=plan)
        assert torch.equal(chunk[:, :2][..., list(net.config.action_index)], old[:, :2])
        with pytest.raises(IncompatibleError, match=r"(?s)'regression'.*flow, diffusion.*--head flow"):
            net.sample(inputs, head="regression", plan=plan)
