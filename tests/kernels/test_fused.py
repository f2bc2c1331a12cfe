"""The fused head: same weights, same chunk, fixed shapes, and never a stale or silently wrong path."""

import pytest
import torch

from tests.kernels.heads import BLOCKS, make_head, noise, prefix
from tests.models.nets import make_batch, make_net
from vla.errors import ConfigError, UnknownNameError
from vla.kernels import reference
from vla.kernels.select import HeadShape, interpreting, select, triton_version
from vla.models.backbones import PrefixFeatures
from vla.models.fused import decode, fast, fuse, fuse_policy, rebuild
from vla.models.heads import HeadConfig, build_head
from vla.models.layers import sinusoids
from vla.models.static_graphs import StaticHead

needs_interpreter = pytest.mark.skipif(
    triton_version() is None or not interpreting(), reason="Triton is not installed or does not interpret"
)
CPU, FLOAT = torch.device("cpu"), torch.float32


def sample(head, case, steps: int = 5, seed: int | None = 3) -> torch.Tensor:
    with torch.no_grad():
        return head.sample(*case, num_steps=steps, generator=None if seed is None else noise(seed))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", ["flow", "regression"])
def test_static_graphs_give_the_stock_head_s_chunk(name: str, block: str):
    head = make_head(name, block)
    for case in (prefix(), prefix(5, 3)):
        torch.testing.assert_close(sample(fuse(head), case), sample(head, case), atol=1e-5, rtol=1e-5)


@needs_interpreter
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", ["flow", "regression"])
def test_fused_kernels_give_the_stock_head_s_chunk(name: str, block: str):
    head = make_head(name, block, num_blocks=1)
    made = sample(fuse(head, path="triton"), prefix(), steps=2)
    torch.testing.assert_close(made, sample(head, prefix(), steps=2), atol=1e-5, rtol=1e-5)


@needs_interpreter
@pytest.mark.parametrize("block", BLOCKS)
def test_training_through_fused_kernels_has_the_stock_gradients(block: str):
    head, (seen, state) = make_head("flow", block, num_blocks=1), prefix(5)
    actions, mask = torch.randn(2, 6, 5, generator=noise()), torch.ones(2, 6, 5, dtype=torch.bool)
    gradients = []
    for one in (head, fuse(head, path="triton")):
        head.zero_grad()
        one.loss(seen, state, actions, mask, noise(4)).backward()
        gradients.append({name: p.grad.clone() for name, p in head.named_parameters()})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_decoder_by_formulas_equals_the_stock_decoder(block: str):
    head, (seen, state) = make_head("flow", block).double(), prefix()
    memory = head.encode_prefix(PrefixFeatures(seen.features.double(), seen.mask), state.double())
    x, time = torch.randn(4, 6, 5, generator=noise(), dtype=torch.float64), torch.rand(4, generator=noise())
    when = head.time_in(sinusoids(time, 32).double())
    made = decode(reference, head.decoder, head.action_in(x) + when[:, None], memory, when)
    torch.testing.assert_close(made, head.velocity(memory, x, time), atol=1e-12, rtol=1e-12)


def test_a_fused_head_shares_the_stock_parameters_and_state_dict():
    head = make_head("flow", "parallel")
    fused = fuse(head)
    assert fused.state_dict().keys() == head.state_dict().keys()
    assert all(a is b for a, b in zip(fused.parameters(), head.parameters(), strict=True))
    fused.load_state_dict(make_head("flow", "parallel").state_dict(), strict=True)


def test_changed_weights_are_seen():
    head = make_head("flow", "parallel")
    fused = fuse(head)
    before = sample(fused, prefix())
    with torch.no_grad():
        head.decoder.out.weight.mul_(0.5)
    assert not torch.allclose(before, sample(fused, prefix()))
    torch.testing.assert_close(sample(fused, prefix()), sample(head, prefix()), atol=1e-5, rtol=1e-5)


def test_weights_changed_behind_torch_s_back_are_seen_after_a_rebuild():
    head = make_head("flow", "parallel")
    fused = fuse(head)
    before = sample(fused, prefix())
    head.decoder.out.weight.data.mul_(0.5)
    torch.testing.assert_close(sample(fused, prefix()), before)  # nothing tells
    rebuild(fused)
    torch.testing.assert_close(sample(fused, prefix()), sample(head, prefix()), atol=1e-5, rtol=1e-5)


def test_prompts_and_cameras_of_any_number_have_one_shape():
    graphs, shapes = StaticHead(make_head("flow", "parallel"), num_steps=2, capacity=16), []
    run = graphs._run_prefix
    graphs._run_prefix = lambda *inputs: shapes.append([tuple(t.shape) for t in inputs]) or run(*inputs)
    for tokens in (1, 7, 16):
        seen, state = prefix(tokens)
        graphs(seen, state, torch.zeros(2, 6, 5))
        graphs(PrefixFeatures(seen.features, None), state, torch.zeros(2, 6, 5))
    assert len({str(s) for s in shapes}) == 1


def test_padding_is_not_read():
    head, case = make_head("flow", "sequential"), prefix()
    few, many = fuse(head, capacity=9), fuse(head, capacity=40)
    torch.testing.assert_close(sample(few, case), sample(many, case), atol=1e-6, rtol=1e-6)


def test_a_prefix_over_the_stated_capacity_is_refused_and_an_unstated_one_grows():
    head = make_head("flow", "parallel")
    with pytest.raises(ConfigError, match="9 tokens does not fit"):
        sample(fuse(head, capacity=8), prefix())
    growing = fuse(head)
    for tokens in (3, 20):
        torch.testing.assert_close(
            sample(growing, prefix(tokens)), sample(head, prefix(tokens)), atol=1e-5, rtol=1e-5
        )


def test_where_a_gradient_is_wanted_the_differentiable_way_runs():
    seen, state = prefix()
    seen.features.requires_grad_()
    fuse(make_head("flow", "parallel")).sample(seen, state, num_steps=2, generator=None).sum().backward()
    assert seen.features.grad.abs().sum() > 0


def test_a_fused_policy_gives_the_stock_chunk_and_saves_the_stock_weights():
    net, (inputs, _) = make_net().eval(), make_batch()
    names = list(net.state_dict())
    with torch.no_grad():
        expected = [net.sample(inputs, head=name)[0] for name in ("flow", "regression")]
        fuse_policy(net)
        for name, chunk in zip(("flow", "regression"), expected, strict=True):
            torch.testing.assert_close(net.sample(inputs, head=name)[0], chunk, atol=1e-5, rtol=1e-5)
    assert list(net.state_dict()) == names


def test_the_fast_preset_is_few_wide_parallel_blocks():
    chosen = fast(HeadConfig(num_blocks=8, width=64))
    assert (chosen.block, chosen.num_blocks, chosen.feed_ratio, chosen.width) == ("parallel", 3, 4, 64)


def test_the_default_path_needs_nothing_and_every_other_one_says_why_not():
    choice = select(HeadShape(64, 2, 5), CPU, FLOAT)
    assert choice.path == "static"
    assert "triton" in choice.refused
    assert "not triton" in str(choice)


def test_a_wish_that_cannot_be_met_is_an_error_and_not_replaced(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UnknownNameError, match="Did you mean 'static'"):
        select(HeadShape(64, 2, 5), CPU, FLOAT, "statc")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ConfigError, match="cannot run by 'triton' here"):
        select(HeadShape(64, 2, 5), CPU, FLOAT, "triton")
    with pytest.raises(ConfigError, match="Only flow and regression"):
        fuse(torch.nn.Linear(2, 2))


@pytest.mark.skipif(triton_version() is None, reason="Triton is not installed")
def test_the_interpreter_s_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ConfigError, match="multiplies bfloat16 as integers"):
        select(HeadShape(64, 2, 5), CPU, torch.bfloat16, "triton")
    with pytest.raises(ConfigError, match="heads of 256 entries"):
        select(HeadShape(512, 2, 5), CPU, FLOAT, "triton")


def test_the_environment_decides_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("VLA_HEAD_PATH", "eager")
    assert fuse(make_head("flow", "parallel"), path="static").choice.path == "eager"
    assert "VLA_HEAD_PATH=eager" in capsys.readouterr().err


def test_an_unknown_block_names_the_known():
    with pytest.raises(UnknownNameError, match="Known: parallel, sequential"):
        HeadConfig(block="paralel")


def test_a_parallel_flow_learns_to_carry_noise_to_the_actions():
    torch.manual_seed(0)
    head, (seen, state) = (
        build_head("flow", HeadConfig(width=32, horizon=4, action_dim=5, block="parallel")),
        prefix(),
    )
    actions, mask = torch.rand(2, 4, 5, generator=noise()) * 2 - 1, torch.ones(2, 4, 5, dtype=torch.bool)
    optimizer, source = torch.optim.AdamW(head.parameters(), 3e-3), noise()
    for _ in range(120):
        loss = head.loss(seen, state, actions, mask, source)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    started = torch.randn(2, 4, 5, generator=noise(9))
    assert float((sample(head, (seen, state), 10, 9) - actions).abs().mean()) < 0.4 * float(
        (started - actions).abs().mean()
    )
