"""A flow head that is trained to go on from actions that are already decided."""

import pytest
import torch

from tests.models.heads.worlds import ACTIONS, HORIZON, fit, labels, make_head, seen
from tests.models.nets import noise
from vla.errors import ConfigError
from vla.models.fused import fuse
from vla.models.heads.denoiser import Denoiser
from vla.models.heads.guidance import Continuation


def plan_of(actions: torch.Tensor, frozen: int) -> Continuation:
    weight = (torch.arange(HORIZON) < frozen).float().expand(len(actions), -1)
    return Continuation(actions, weight)


def test_without_it_the_loss_is_to_the_last_bit_what_it_was():
    head, (prefix, state) = make_head("flow"), seen()
    actions, mask = labels()
    draw, time = head.draw(actions, noise(3))
    t = time[..., None, None]
    x = (1 - t) * draw + t * actions[:, None]
    made = head.velocity(head.encode_prefix(prefix, state), x.flatten(0, 1), time.flatten())
    plain = (made.unflatten(0, x.shape[:2]) - (actions[:, None] - draw)).square().mean()
    assert torch.equal(head.loss(prefix, state, actions, mask, noise(3)), plain)


def test_what_is_given_counts_nothing_and_is_seen_as_it_is():
    head, (prefix, state) = make_head("flow", prefix_delay=2), seen()
    actions, mask = labels()
    seen_x, seen_time = [], []
    stock = head.predict

    def spy(memory, x, time):
        seen_x.append(x)
        seen_time.append(time)
        return stock(memory, x, time)

    head.predict = spy
    head.loss(prefix, state, actions, mask, noise(3))
    given = head.given(head.draw(actions, source := noise(3))[1], source).flatten(0, 1)
    assert sorted(set(given.sum(-1).tolist())) == [0, 1, 2]
    assert torch.equal(seen_x[0][given], actions.repeat_interleave(2, 0)[given])
    assert (seen_time[0][given] == 1).all()
    assert (seen_time[0][~given] < 1).all()


@pytest.mark.parametrize("frozen", [1, 2])
def test_frozen_actions_stay_to_the_bit_and_the_others_follow_from_them(frozen):
    head, (prefix, state) = make_head("flow", prefix_delay=2), seen()
    old = torch.randn(4, HORIZON, ACTIONS, generator=noise(3))
    with torch.inference_mode():
        chunk, other = (
            head.continued(prefix, state, plan_of(actions, frozen), num_steps=5, generator=noise(4))
            for actions in (old, -old)
        )
    assert torch.equal(chunk[:, :frozen], old[:, :frozen])
    assert not torch.equal(chunk[:, frozen:], other[:, frozen:])


def test_of_two_ways_to_go_on_it_has_learned_to_take_the_one_that_was_begun():
    head, (prefix, state) = make_head("flow", prefix_delay=2), seen(1)
    rows, told = type(prefix)(prefix.features.expand(32, -1, -1), None), state.expand(32, -1, -1)
    mask, source = torch.ones(32, HORIZON, ACTIONS, dtype=torch.bool), noise(7)

    def batch(_):
        side = torch.randint(2, (32, 1, 1), generator=source) * 2.0 - 1
        return rows, told, (0.7 * side).expand(-1, HORIZON, ACTIONS), mask

    fit(head, batch, 250)
    side = torch.where(torch.arange(32) % 2 == 0, 0.7, -0.7)[:, None, None].expand(-1, HORIZON, ACTIONS)
    chunk = head.continued(rows, told, plan_of(side, 1), num_steps=5, generator=noise(9))
    with torch.no_grad():
        alone = head.sample(rows, told, num_steps=5, generator=noise(9))
    assert float((chunk[:, 1:].sign() == side[:, 1:].sign()).float().mean()) > 0.95
    assert float((alone[:, 1:].sign() == side[:, 1:].sign()).float().mean()) < 0.9
    assert float((chunk - side).abs().mean()) < 0.3


def test_more_than_was_learned_is_left_to_guidance():
    head, (prefix, state) = make_head("flow", prefix_delay=1), seen()
    plan = plan_of(torch.randn(4, HORIZON, ACTIONS, generator=noise(3)), 2)
    guided = Denoiser.continued(head, prefix, state, plan, num_steps=5, generator=noise(4))
    assert torch.equal(head.continued(prefix, state, plan, num_steps=5, generator=noise(4)), guided)


def test_a_fused_head_goes_on_as_the_stock_one_does():
    head, (prefix, state) = make_head("flow", prefix_delay=2), seen()
    plan = plan_of(torch.randn(4, HORIZON, ACTIONS, generator=noise(3)), 2)
    fused = fuse(head, path="eager")
    one, two = (h.continued(prefix, state, plan, num_steps=5, generator=None) for h in (fused, head))
    assert torch.equal(one, two)


def test_what_no_head_can_learn_is_refused():
    for changes in (
        {"prefix_delay": HORIZON},
        {"prefix_delay": -1},
        {"prefix_delay": 1, "block": "parallel"},
    ):
        with pytest.raises(ConfigError, match="prefix_delay"):
            make_head("flow", **changes)
