"""A policy's FLOPs and bytes are counted whatever its head, its attention and the bits of its weights."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.models.heads.worlds import ACTIONS, codec
from tests.models.heads.worlds import HORIZON as CHUNK
from tests.models.nets import VOCABULARY, make_net
from vla.kernels.counting import count_flops, count_policy
from vla.kernels.roofline import Machine, Stage, limit
from vla.models.four_bit import FourBitLinear, to_four_bit
from vla.models.layers import EncoderBlock

STEPS, HORIZON, ENTRIES = 3, 4, 5


def contract(head: str) -> SimpleNamespace:
    return SimpleNamespace(
        heads=(head,), num_flow_steps=STEPS, camera_roles=("front", "wrist"), image_size=16, horizon=HORIZON,
        instruction={"vocabulary": VOCABULARY}, embodiments=("alpha", "beta"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("head", "repeats"),
    [("flow", STEPS), ("diffusion", STEPS), ("regression", 1), ("cvae", 1), ("binned", HORIZON * ENTRIES)],
)
def test_every_head_is_counted_with_its_own_repeats(head: str, repeats: int):
    net = make_net(heads=(head,), horizon=HORIZON)
    model = count_policy(net, contract(head))
    seen, once, loop = model.stages
    assert (loop.repeats, loop.action, once.repeats) == (repeats, True, 1)
    assert all(stage.flops > 0 and stage.weights > 0 for stage in model.stages)
    read = sum(stage.weights for stage in model.stages)
    tables = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Embedding))
    everything = sum(p.numel() for p in net.parameters()) - tables
    assert read == everything if head != "cvae" else read < everything  # its posterior is for training
    assert head not in ("flow", "diffusion") or loop.flops < seen.flops


def test_fast_tokens_are_counted_as_they_come():
    places = (0, 1, 2)[:ACTIONS]
    net = make_net(heads=("fast",), action_index=places, horizon=CHUNK, head_settings={"codec": codec()})
    given = contract("fast")
    given.horizon = CHUNK
    loop = count_policy(net, given).stages[2]
    assert 1 <= loop.repeats <= CHUNK * ACTIONS
    assert "tokens" in loop.name


def test_attention_is_counted():
    tokens, width, ratio = 7, 32, 2
    block = EncoderBlock(width, 4, ratio)
    with torch.no_grad():
        counted = count_flops(block, lambda: block(torch.randn(1, tokens, width)))
    assert counted == 2 * tokens * (4 + 2 * ratio) * width**2 + 4 * tokens**2 * width


def test_4_bit_weights_count_their_bytes_and_their_products():
    pytest.importorskip("bitsandbytes")
    layer = FourBitLinear(nn.Linear(128, 64))
    assert layer.packed_bytes == 128 * 64 // 2 + 128 * 64 // 64 * 4 + 16 * 4  # weights, scales, code
    with torch.no_grad():
        assert count_flops(layer, lambda: layer(torch.randn(3, 128))) == 2 * 3 * 128 * 64
    net = make_net(horizon=HORIZON)
    plain = count_policy(net, contract("flow")).stages[0]
    names = to_four_bit(net, within=("fusion",))
    packed = count_policy(net, contract("flow")).stages[0]
    layers = [net.get_submodule(name) for name in names]
    assert packed.flops == plain.flops
    assert plain.weights - packed.weights == sum(m.in_features * m.out_features for m in layers)
    assert packed.packed == sum(m.packed_bytes for m in layers)


def test_packed_bytes_are_read_whatever_the_bits():
    on = Machine("m", {16: 1e9, 8: 1e9}, 10.0, cache=0.0)
    stage = Stage(name="a", flops=0, weights=10, packed=30)
    assert [limit(stage, on, bits).seconds for bits in (16, 8)] == [5.0, 4.0]
