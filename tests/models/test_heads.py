"""Action heads: caching changes nothing, noise comes only from the generator, gradients flow."""

import pytest
import torch

from tests.models.nets import noise
from vla.errors import UnknownNameError
from vla.models.backbones import PrefixFeatures
from vla.models.heads import Head, HeadConfig, build_head
from vla.models.layers import CrossAttention, sinusoids

CONFIG = HeadConfig(width=32, horizon=4, action_dim=5, num_noise=3)


def memory(batch: int = 2) -> tuple[PrefixFeatures, torch.Tensor]:
    source = noise(1)
    features = torch.randn(batch, 6, 32, generator=source, requires_grad=True)
    return PrefixFeatures(features, None), torch.randn(batch, 1, 32, generator=source, requires_grad=True)


@pytest.mark.parametrize("name", ["flow", "regression"])
def test_a_head_meets_the_protocol_and_its_gradient_reaches_prefix_and_state(name):
    head, (prefix, state) = build_head(name, CONFIG), memory()
    assert isinstance(head, Head)
    actions, mask = torch.randn(2, 4, 5, generator=noise()), torch.ones(2, 4, 5, dtype=torch.bool)
    head.loss(prefix, state, actions, mask, noise()).backward()
    assert prefix.features.grad.abs().sum() > 0
    assert state.grad.abs().sum() > 0
    assert all(p.grad is not None for p in head.parameters())


def test_caching_the_prefix_equals_encoding_it_at_every_step():
    head, (prefix, state) = build_head("flow", CONFIG), memory()
    cached = head.sample(prefix, state, num_steps=5, generator=None)
    x = torch.zeros(2, 4, 5)
    for step in range(5):
        x = x + head.velocity(head.encode_prefix(prefix, state), x, torch.full((2,), step / 5)) / 5
    assert torch.equal(cached, x)


def test_noise_samples_that_share_a_memory_equal_repeated_memories():
    head, (prefix, state) = build_head("flow", CONFIG), memory()
    x, time = torch.randn(6, 4, 5, generator=noise()), torch.rand(6, generator=noise())
    shared = head.velocity(head.encode_prefix(prefix, state), x, time)
    repeated = PrefixFeatures(prefix.features.repeat_interleave(3, 0), None)
    apart = head.velocity(head.encode_prefix(repeated, state.repeat_interleave(3, 0)), x, time)
    torch.testing.assert_close(shared, apart)


def test_flow_is_deterministic_without_a_generator_and_random_with_one():
    head, (prefix, state) = build_head("flow", CONFIG), memory()

    def draw(generator):
        return head.sample(prefix, state, num_steps=5, generator=generator)

    assert torch.equal(draw(None), draw(None))
    assert torch.equal(draw(noise(3)), draw(noise(3)))
    assert not torch.equal(draw(noise(3)), draw(noise(4)))


def test_flow_learns_to_carry_noise_to_the_actions():
    torch.manual_seed(0)
    head, (prefix, state) = build_head("flow", CONFIG), memory()
    prefix, state = PrefixFeatures(prefix.features.detach(), None), state.detach()
    actions, mask = torch.rand(2, 4, 5, generator=noise()) * 2 - 1, torch.ones(2, 4, 5, dtype=torch.bool)
    optimizer, source = torch.optim.AdamW(head.parameters(), 3e-3), noise()
    for _ in range(120):
        loss = head.loss(prefix, state, actions, mask, source)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        drawn = head.sample(prefix, state, num_steps=10, generator=noise(9))
    started = torch.randn(2, 4, 5, generator=noise(9))
    assert float((drawn - actions).abs().mean()) < 0.4 * float((started - actions).abs().mean())


def test_masked_prefix_tokens_are_not_read():
    head, (prefix, state) = build_head("regression", CONFIG), memory()
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    changed = prefix.features.detach().clone()
    changed[:, 4:] = 50.0
    a = head.sample(PrefixFeatures(prefix.features, mask), state, num_steps=1, generator=None)
    b = head.sample(PrefixFeatures(changed, mask), state, num_steps=1, generator=None)
    torch.testing.assert_close(a, b)


def test_attention_equals_its_formula():
    torch.manual_seed(0)
    attention = CrossAttention(8, 2)
    x, memory_ = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    q = attention.query(x).view(1, 3, 2, 4).transpose(1, 2)
    k, v = (t.view(1, 5, 2, 4).transpose(1, 2) for t in attention.key_value(memory_).chunk(2, -1))
    read = (q @ k.transpose(-1, -2) / 2).softmax(-1) @ v
    expected = attention.out(read.transpose(1, 2).reshape(1, 3, 8))
    torch.testing.assert_close(attention(x, attention.encode(memory_)), expected)


def test_times_are_told_apart():
    codes = sinusoids(torch.linspace(0, 1, 21), 32)
    distance = torch.cdist(codes, codes) + 10 * torch.eye(21)
    assert float(distance.min()) > 0.1


def test_an_unknown_head_names_the_known():
    with pytest.raises(UnknownNameError, match="Known: binned, cvae, diffusion, fast, flow, regression"):
        build_head("difusion", CONFIG)
