"""Schedules, cached decoding, history and insulation."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from tests.models.heads.worlds import WIDTH, make_head, seen
from tests.models.nets import make_batch, make_net, net_config, noise
from vla.errors import ConfigError, ObservationError, UnknownNameError
from vla.models.backbones import PrefixFeatures
from vla.models.heads import HeadConfig
from vla.models.heads.history import History, Memories
from vla.models.heads.schedules import SCHEDULES, time_grid
from vla.models.policy_net import Past
from vla.models.static_graphs import StaticHead


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_rises_from_noise_to_actions(schedule):
    times = time_grid(schedule, 4)
    assert (times[0], times[-1], len(times)) == (0.0, 1.0, 5)
    assert all(a < b for a, b in pairwise(times))


def test_early_steps_are_short_first_and_late_ones_last():
    early, late = time_grid("early", 4), time_grid("late", 4)
    assert early[1] < 0.25 < late[1]
    assert 1 - late[3] < 0.25 < 1 - early[3]


def test_unknown_schedules_and_predictions_are_refused():
    with pytest.raises(UnknownNameError, match="flow schedule"):
        HeadConfig(schedule="erly")
    with pytest.raises(UnknownNameError, match="prediction"):
        HeadConfig(prediction="x0")
    with pytest.raises(ConfigError, match="at least one step"):
        time_grid("uniform", 0)
    with pytest.raises(ConfigError, match="ActionCodec"):
        make_head("fast", codec=None)


@pytest.mark.parametrize("schedule", ["early", "late"])
def test_static_graphs_follow_the_schedule(schedule):
    head, (prefix, state) = make_head("flow", schedule=schedule).eval(), seen()
    with torch.no_grad():
        stock = head.sample(prefix, state, num_steps=4, generator=noise(3))
        graphs = StaticHead(head, num_steps=4, capacity=8)
        x = torch.randn(stock.shape, generator=noise(3))
        torch.testing.assert_close(graphs(prefix, state, x), stock, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(
            stock, make_head("flow").sample(prefix, state, num_steps=4, generator=noise(3))
        )


def test_decoding_with_cached_keys_equals_decoding_all_at_once():
    head, (prefix, state) = make_head("binned"), seen()
    ids = torch.randint(32, (4, 6), generator=noise())
    memory, past, made = head.encode_prefix(prefix, state), None, []
    whole = head.decoder(ids, memory)
    before = torch.cat([head.decoder.start(memory)[:, None], ids[:, :-1]], dim=1)
    for place in range(6):
        logits, past = head.decoder.step(before[:, place], place, memory, past)
        made.append(logits)
    torch.testing.assert_close(torch.stack(made, dim=1), whole)


def test_bins_hold_what_their_middle_says():
    head = make_head("binned")
    actions = torch.linspace(-0.999, 0.999, 101)
    assert float((head.centres(head.bins(actions)) - actions).abs().max()) <= 1 / 32 + 1e-6
    assert head.bins(torch.tensor([-7.0, 7.0])).tolist() == [0, 31]


def test_memories_tell_the_last_observations_and_forget_on_reset():
    torch.manual_seed(0)
    history = History(WIDTH, 2)
    memories = Memories(history, 4)
    empty = memories.tokens()
    for seed in (1, 2, 3):
        memories.add(*seen(seed=seed))
    expected = history(
        torch.stack([history.summarise(*seen(seed=s)) for s in (2, 3)], 1), torch.ones(4, 2, dtype=torch.bool)
    )
    assert torch.equal(memories.tokens(), expected)
    memories.reset()
    assert torch.equal(memories.tokens(), empty)
    with pytest.raises(ObservationError, match="4 episodes"):
        memories.add(*seen(3))


def test_what_is_absent_or_padded_is_not_summed_up():
    torch.manual_seed(0)
    history, (prefix, state) = History(WIDTH, 1), seen()
    padded = torch.cat([prefix.features, torch.full((4, 1, WIDTH), 9.0)], dim=1)
    mask = torch.tensor([[True] * 5 + [False]] * 4)
    torch.testing.assert_close(
        history.summarise(PrefixFeatures(padded, mask), state), history.summarise(prefix, state)
    )
    none = torch.zeros(4, 1, dtype=torch.bool)
    garbage = torch.full((4, 1, WIDTH), torch.nan)
    assert torch.equal(history(garbage, none), history(torch.zeros(4, 1, WIDTH), none))


def test_a_network_with_history_acts_and_learns_on_it():
    net, (inputs, labels) = make_net(history=2, heads=("regression",)), make_batch()
    there = torch.ones(4, 2, dtype=torch.bool)
    past = Past(observations=(make_batch(seed=1)[0], make_batch(seed=2)[0]), there=there)
    net.loss(inputs, labels, noise(), past)[0].backward()
    assert net.history.summary_in[1].weight.grad.abs().sum() > 0
    memories = Memories(net.history, 4)
    with torch.no_grad():
        first, second = (net.sample(inputs, memories=memories)[0] for _ in range(2))
    assert not torch.equal(first, second)
    with pytest.raises(ObservationError, match="2 observations before"):
        net.loss(inputs, labels, noise())
    with pytest.raises(ObservationError, match="if and only if"):
        net.sample(inputs)


def test_an_insulated_head_teaches_the_backbone_nothing():
    net, (inputs, labels) = make_net(heads=("flow",), insulate=("flow",)), make_batch()
    nowhere = replace(
        labels,
        location_dm=torch.full_like(labels.location_dm, torch.nan),
        keypoint_uv=torch.full_like(labels.keypoint_uv, torch.nan),
    )
    net.loss(inputs, nowhere, noise())[0].backward()
    for part in (net.backbone, net.projector):
        assert all(p.grad is None or not p.grad.any() for p in part.parameters())
    assert net.heads["flow"].action_in.weight.grad.any()
    net.zero_grad()
    net.loss(inputs, labels, noise())[0].backward()
    assert net.projector.weight.grad.any()
    assert net.backbone.cameras[0].conv1.weight.grad.any()


def test_only_a_head_that_is_trained_can_be_insulated():
    with pytest.raises(UnknownNameError, match="head to insulate"):
        net_config(insulate=("fast",))
    with pytest.raises(UnknownNameError, match="head setting"):
        net_config(head_settings={"num_bin": 3})
