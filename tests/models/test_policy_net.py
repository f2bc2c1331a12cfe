"""The assembled network: it learns, ignores what is masked, and hides what it says it hides."""

from dataclasses import replace

import pytest
import torch

from tests.models.nets import ACTION_INDEX, make_batch, make_net, net_config, noise
from vla import spaces
from vla.errors import ConfigError, UnknownNameError
from vla.models.net_config import PolicyNetConfig
from vla.models.policy_net import Things


def test_a_tiny_policy_overfits_a_batch():
    net, (inputs, labels) = make_net(state_dropout=0.0), make_batch(2)
    optimizer, source = torch.optim.AdamW(net.parameters(), 3e-3), noise()
    first = {name: float(value.mean()) for name, value in net.loss(inputs, labels, source)[1].items()}
    for _ in range(120):
        total, parts = net.loss(inputs, labels, source)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    shares = {name: float(parts[name]) / first[name] for name in ("regression", "localisation", "keypoint")}
    assert max(shares.values()) < 0.1, shares
    assert float(parts["flow"]) < 0.6 * first["flow"]


@pytest.mark.parametrize("head", ["flow", "regression"])
def test_masked_actions_do_not_affect_the_loss_or_its_gradient(head):
    inputs, labels = make_batch()
    mask = labels.action_mask.clone()
    mask[:, 2:] = False
    changed = labels.actions.clone()
    changed[:, 2:] += 100.0
    results = []
    for actions in (labels.actions, changed):
        net = make_net(heads=(head,))
        total, _ = net.loss(inputs, replace(labels, actions=actions, action_mask=mask), noise())
        total.backward()
        results.append((float(total.detach()), net.state_in[0].weight.grad.clone()))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_a_batch_without_any_label_gives_a_finite_loss_and_gradient():
    net, (inputs, labels) = make_net(), make_batch()
    nothing = replace(
        labels,
        action_mask=torch.zeros_like(labels.action_mask),
        location_dm=torch.full_like(labels.location_dm, torch.nan),
        keypoint_uv=torch.full_like(labels.keypoint_uv, torch.nan),
    )
    total, _ = net.loss(inputs, nothing, noise())
    total.backward()
    assert float(total.detach()) == 0.0
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_every_parameter_receives_a_gradient():
    net, (inputs, labels) = make_net(), make_batch()
    net.loss(inputs, labels, noise())[0].backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_state_dropout_hides_the_whole_state():
    net, (inputs, _) = make_net(), make_batch()
    other = replace(inputs, state=inputs.state + 1.0)
    hidden = torch.zeros(4, dtype=torch.bool)
    assert torch.equal(net.encode(inputs, hidden).location_dm, net.encode(other, hidden).location_dm)
    assert not torch.equal(net.encode(inputs).location_dm, net.encode(other).location_dm)


def test_only_the_chosen_state_slots_are_seen():
    net, (inputs, _) = make_net(), make_batch()
    joints = spaces.STATE_SLOTS["arm0.joint_position"]
    moved = inputs.state.clone()
    moved[:, joints.offset : joints.offset + joints.size] += 5.0
    before, after = net.encode(inputs), net.encode(replace(inputs, state=moved))
    assert torch.equal(before.location_dm, after.location_dm)


def test_a_missing_camera_is_not_read():
    net, (inputs, _) = make_net(), make_batch()
    mask = torch.tensor([[True, False]] * 4)
    images = inputs.images.clone()
    images[:, 1] = 7
    a = net.sample(replace(inputs, image_mask=mask))[0]
    b = net.sample(replace(inputs, image_mask=mask, images=images))[0]
    torch.testing.assert_close(a, b)


def test_unused_action_slots_stay_zero():
    net, (inputs, _) = make_net(), make_batch()
    chunk, location = net.sample(inputs)
    unused = [i for i in range(spaces.ACTION_DIM) if i not in ACTION_INDEX]
    assert chunk.shape == (4, 4, spaces.ACTION_DIM)
    assert location.shape == (4, 2, 3)
    assert not chunk[..., unused].any()
    assert chunk[..., list(ACTION_INDEX)].all()


def test_a_batch_gives_what_single_observations_give():
    net, (inputs, _) = make_net().eval(), make_batch(3)
    whole, _ = net.sample(inputs)
    for i in range(3):
        one = {name: getattr(inputs, name) for name in inputs.__dataclass_fields__}
        one = {name: None if value is None else value[i : i + 1] for name, value in one.items()}
        torch.testing.assert_close(net.sample(type(inputs)(**one))[0], whole[i : i + 1], atol=1e-5, rtol=1e-4)


def test_the_configuration_survives_json_and_refuses_unknown_names():
    config = net_config()
    assert PolicyNetConfig.from_json(config.to_json()) == config
    with pytest.raises(UnknownNameError, match="Did you mean 'horizon'"):
        PolicyNetConfig.from_json({**config.to_json(), "horizn": 3})
    with pytest.raises(UnknownNameError, match="state slot"):
        net_config(state_slots=("arm0.elbow",))
    with pytest.raises(UnknownNameError, match="action head"):
        make_net(heads=("flw",))
    with pytest.raises(ConfigError, match="needs a head"):
        net_config(heads=())


def test_an_untrained_head_cannot_be_asked():
    net, (inputs, _) = make_net(heads=("regression",)), make_batch()
    with pytest.raises(UnknownNameError, match="Known: regression"):
        net.sample(inputs, head="flow")


def test_named_things_teach_the_picture_and_absent_ones_nothing():
    net = make_net(things_weight=1.0, backbone_settings={"find_things": True})
    inputs, labels = make_batch()
    index = torch.tensor([[0, 1], [1, -1], [0, 1], [-1, -1]])
    uv = torch.rand(4, 2, 2, 2, generator=noise(3)) * 2 - 1
    ids, mask = torch.tensor([[4, 3], [2, 3]]), torch.ones(2, 2, dtype=torch.bool)
    losses = []
    for hidden in (0.0, 0.5):  # where no name points, the label is not read
        moved = uv.where((index >= 0)[:, None, :, None], hidden)
        things = Things(token_ids=ids, token_mask=mask, index=index, uv=moved)
        total, parts = net.loss(inputs, replace(labels, things=things), noise())
        losses.append(float(parts["things"]))
    total.backward()
    weight = net.backbone.cameras[0].thing_query.weight
    assert losses[0] == losses[1] > 0
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


def test_samples_without_actions_cost_the_heads_nothing():
    net, (inputs, labels) = make_net(heads=("regression",)), make_batch()
    mask = labels.action_mask.clone()
    mask[1:] = False
    seen = []
    loss = net.heads["regression"].loss
    net.heads["regression"].loss = lambda prefix, *rest: (
        seen.append(len(prefix.features)) or loss(prefix, *rest)
    )
    net.loss(inputs, replace(labels, action_mask=mask), noise())
    assert seen == [1]
