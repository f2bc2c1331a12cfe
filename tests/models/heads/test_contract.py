"""What every head promises, asked of every head."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.heads.worlds import ACTIONS, HORIZON, MODAL, NAMES, WIDTH, fit, labels, make_head, seen
from tests.models.nets import noise
from vla.models.backbones import PrefixFeatures
from vla.models.heads import Head


def draw(head, prefix, state, generator=None, num_steps=6):
    with torch.no_grad():
        return head.sample(prefix, state, num_steps=num_steps, generator=generator)


@pytest.mark.parametrize("name", NAMES)
def test_a_head_gives_a_scalar_loss_and_a_finite_chunk(name):
    head, (prefix, state) = make_head(name), seen()
    assert isinstance(head, Head)
    assert head.loss(prefix, state, *labels(), noise()).shape == ()
    chunk = draw(head, prefix, state)
    assert chunk.shape == (4, HORIZON, ACTIONS)
    assert chunk.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_prefix_state_and_every_parameter(name):
    head, (prefix, state) = make_head(name), seen()
    prefix.features.requires_grad_()
    state.requires_grad_()
    head.loss(prefix, state, *labels(), noise()).backward()
    assert prefix.features.grad.abs().sum() > 0
    assert state.grad.abs().sum() > 0
    assert [n for n, p in head.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", NAMES)
def test_masked_entries_never_matter(name):
    (prefix, state), (actions, mask) = seen(), labels()
    mask[:, 2:], mask[1, :, 1] = False, False
    results = []
    for garbage in (0.3, -50.0):
        head = make_head(name)
        loss = head.loss(prefix, state, actions.where(mask, garbage), mask, noise())
        loss.backward()
        gradients = [p.grad for p in head.parameters() if p.grad is not None]
        results.append((loss.detach(), torch.cat([g.flatten() for g in gradients])))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_any_action_costs_nothing(name):
    (prefix, state), (actions, mask) = seen(), labels()
    loss = make_head(name).loss(prefix, state, actions, mask & False, noise())
    assert float(loss.detach()) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_only_a_generator_makes_a_head_random(name):
    head, (prefix, state) = make_head(name), seen()
    if name == "cvae":
        torch.nn.init.normal_(head.latent_in.weight)
    assert torch.equal(draw(head, prefix, state), draw(head, prefix, state))
    assert torch.equal(draw(head, prefix, state, noise(3)), draw(head, prefix, state, noise(3)))
    if name != "regression":
        assert not torch.equal(draw(head, prefix, state, noise(3)), draw(head, prefix, state, noise(4)))


@pytest.mark.parametrize("name", NAMES)
def test_padding_of_the_prefix_never_matters(name):
    head, (prefix, state) = make_head(name), seen()
    garbage = torch.full((4, 3, WIDTH), 50.0)
    mask = torch.tensor([[True] * 5 + [False] * 3] * 4)
    padded = PrefixFeatures(torch.cat([prefix.features, garbage], dim=1), mask)
    torch.testing.assert_close(draw(head, padded, state), draw(head, prefix, state), atol=1e-5, rtol=1e-4)
    losses = [head.loss(p, state, *labels(), noise()) for p in (prefix, padded)]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("name", NAMES)
def test_weights_survive_saving(name, tmp_path):
    head, (prefix, state) = make_head(name), seen()
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    other = make_head(name)
    for p in other.parameters():
        torch.nn.init.zeros_(p)
    other.load_state_dict(load_file(tmp_path / "head.safetensors"))
    assert torch.equal(draw(head, prefix, state), draw(other, prefix, state))


@pytest.mark.parametrize("name", NAMES)
def test_the_memory_is_computed_once_a_chunk(name, monkeypatch):
    head, (prefix, state), calls = make_head(name), seen(), []
    encode = head.decoder.encode
    monkeypatch.setattr(head.decoder, "encode", lambda *given: calls.append(1) or encode(*given))
    draw(head, prefix, state)
    assert calls == [1]


@pytest.mark.parametrize("name", NAMES)
def test_a_head_learns_the_only_action_there_is(name):
    head, (prefix, state), (actions, mask) = make_head(name), seen(), labels()
    first, last = fit(head, lambda _: (prefix, state, actions, mask), 150)
    assert last < 0.6 * first
    assert float((draw(head, prefix, state, num_steps=10) - actions).abs().mean()) < 0.15


@pytest.mark.parametrize("name", MODAL)
def test_draws_keep_two_modes_and_not_their_mean(name):
    head, (prefix, state) = make_head(name), seen(1)
    rows = PrefixFeatures(prefix.features.expand(32, -1, -1), None)
    mask = torch.ones(32, HORIZON, ACTIONS, dtype=torch.bool)
    source = noise(7)

    def batch(_):
        side = torch.randint(2, (32, 1, 1), generator=source) * 2.0 - 1
        return rows, state.expand(32, -1, -1), (0.7 * side).expand(-1, HORIZON, ACTIONS), mask

    fit(head, batch, 250)
    chunk = draw(head, rows, state.expand(32, -1, -1), noise(9), num_steps=10)
    side = chunk.mean((1, 2)) > 0
    assert 6 <= int(side.sum()) <= 26
    assert float((chunk.abs() - 0.7).abs().mean()) < 0.2
    assert float((chunk > 0).float().var((1, 2)).mean()) < 0.05  # a chunk is of one mode
