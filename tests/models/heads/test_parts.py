"""Schedules, cached decoding, history and insulation."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from tests.models.heads.worlds import make_head, seen
from tests.models.nets import make_batch, make_net, net_config, noise
from vla.errors import ConfigError, UnknownNameError
from vla.models.heads import HeadConfig
from vla.models.heads.schedules import SCHEDULES, time_grid
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
