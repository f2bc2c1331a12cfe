"""What heads are told of earlier moments: only what was there, in training and at inference."""

from dataclasses import replace

import pytest
import torch

from tests.models.nets import make_batch, make_net, noise
from vla import spaces
from vla.errors import ObservationError
from vla.models.heads.history import History, Past


def past(there: list[bool], fill: float = 0.0) -> Past:
    state = torch.randn(4, len(there), spaces.STATE_DIM, generator=noise())
    action = torch.randn(4, len(there), spaces.ACTION_DIM, generator=noise(1))
    mask = torch.tensor([there] * 4)
    return Past(state.where(mask[..., None], fill), action.where(mask[..., None], fill), mask)


def test_moments_that_were_not_there_are_not_read():
    torch.manual_seed(0)
    history, known = History(3, 2, 8, 1), torch.ones(4, 3, dtype=torch.bool)
    none = torch.zeros(4, 1, dtype=torch.bool)
    garbage = torch.full((4, 1, 3), torch.nan), torch.full((4, 1, 2), torch.nan)
    made = history(garbage[0], known, garbage[1], none)
    assert torch.equal(made, history(torch.zeros(4, 1, 3), known, torch.zeros(4, 1, 2), none))
    with pytest.raises(ObservationError, match="remembers 1"):
        history(torch.zeros(4, 2, 3), known, torch.zeros(4, 2, 2), none)


@pytest.mark.parametrize("head", ["flow", "diffusion", "regression", "cvae", "binned"])
def test_every_head_acts_on_the_past_and_learns_to_read_it(head):
    net, (inputs, labels) = make_net(history=2, heads=(head,), state_dropout=0.0), make_batch()
    told = replace(inputs, past=past([True, True]))
    net.loss(told, labels, noise())[0].backward()
    assert net.history.moment[0].weight.grad.abs().sum() > 0
    for parameter in net.parameters():  # gates start at nothing
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=noise(2))
    with torch.no_grad():
        features = [net.encode(told).state, net._remembered(told)]
        other = net._remembered(replace(inputs, past=past([True, False])))
    assert features[1].shape == (4, 2, net.config.width)
    assert not torch.equal(features[1], other)


def test_a_network_with_history_is_refused_without_a_past_and_one_without_is_refused_with_it():
    inputs, labels = make_batch()
    net = make_net(history=2, heads=("regression",))
    with pytest.raises(ObservationError, match="2 moments"):
        net.sample(inputs)
    with pytest.raises(ObservationError, match="2 moments"):
        net.loss(inputs, labels, noise())
    with pytest.raises(ObservationError, match="no history"):
        make_net().sample(replace(inputs, past=past([True])))
