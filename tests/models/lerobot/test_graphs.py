"""Prefix and step graphs against a float64 reference that recomputes everything at every step."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models.lerobot import reference, tiny
from vla.models.lerobot import FlowInputs, load_lerobot
from vla.models.lerobot.config import parse_config
from vla.models.lerobot.smolvla import SmolVLANet
from vla.models.lerobot.vlm import vlm_sizes

SMALL = {"smolvla": 64, "pi0": 56, "pi05": 56}
kinds = pytest.mark.parametrize("kind", tiny.KINDS)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("lerobot")
    return {
        kind: load_lerobot(tiny.write(kind, root / kind), vision_heads=tiny.VISION_HEADS[kind])
        for kind in tiny.KINDS
    }


def make_inputs(kind: str, words: int = 7) -> FlowInputs:
    """Two samples: one with a short prompt, one that lacks a camera."""
    source = torch.Generator().manual_seed(3)
    there = torch.ones(2, words, dtype=torch.bool)
    there[0, 4:] = False
    return FlowInputs(
        images=torch.rand(2, 2, 3, SMALL[kind], SMALL[kind], generator=source) * 2 - 1,
        image_mask=torch.tensor([[True, True], [True, False]]),
        token_ids=torch.randint(0, 300, (2, words), generator=source),
        token_mask=there,
        state=torch.randn(2, 8, generator=source),
    )


@kinds
def test_a_chunk_equals_the_float64_reference(checkpoints, kind):
    inputs, noise = make_inputs(kind), tiny.noise(kind)
    with torch.inference_mode():
        chunk = checkpoints[kind].net.sample(inputs, noise)
        expected = reference.sample(kind, tiny.weights(kind), inputs, noise)
    assert (chunk - noise).abs().max() > 0.1  # it went somewhere
    torch.testing.assert_close(chunk.double(), expected, rtol=0, atol=1e-5)


@kinds
def test_the_loss_equals_the_float64_reference_and_has_gradients(checkpoints, kind):
    net, inputs, noise = checkpoints[kind].net, make_inputs(kind), tiny.noise(kind)
    actions, time = tiny.noise(kind, seed=5)[..., :6], torch.tensor([0.3, 0.9])
    loss = net.loss(inputs, actions, noise, time)
    expected = reference.loss(kind, tiny.weights(kind), inputs, actions, noise, time)
    torch.testing.assert_close(loss.double(), expected, rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad(loss, net.action_in_proj.weight)
    assert gradient.abs().max() > 0


@kinds
def test_actions_past_the_end_of_an_episode_do_not_count(checkpoints, kind):
    net, inputs, noise = checkpoints[kind].net, make_inputs(kind), tiny.noise(kind)
    actions, time = tiny.noise(kind, seed=5)[..., :6], torch.tensor([0.3, 0.9])
    past = torch.zeros(noise.shape[:2], dtype=torch.bool)
    with torch.inference_mode():
        whole = net.loss(inputs, actions, noise, time)
        assert net.loss(inputs, actions, noise, time, past) == pytest.approx(whole.item(), abs=1e-6)
        past[1] = True
        first = net.loss(inputs, actions, noise, time, past)
        assert first != pytest.approx(whole.item(), abs=1e-4)


@kinds
def test_the_prefix_is_encoded_once_and_no_step_changes_it(checkpoints, kind, monkeypatch):
    net, inputs, noise = checkpoints[kind].net, make_inputs(kind), tiny.noise(kind)
    made = []
    encode = type(net).encode_prefix
    monkeypatch.setattr(type(net), "encode_prefix", lambda *a: made.append(encode(*a)) or made[-1])
    with torch.inference_mode():
        net.sample(inputs, noise)
        again = encode(net, inputs)
    assert len(made) == 1
    assert all(
        torch.equal(a, b)
        for a, b in zip(made[0].keys + made[0].values, again.keys + again.values, strict=True)
    )


class Recorder(TorchDispatchMode):
    """Remembers every operation that runs."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations.append(func)
        return func(*args, **(kwargs or {}))


@kinds
def test_a_step_writes_to_nothing_and_looks_at_no_value(checkpoints, kind):
    net, inputs, noise = checkpoints[kind].net, make_inputs(kind), tiny.noise(kind)
    with torch.no_grad():
        arguments = (net.encode_prefix(inputs), noise, net.condition(torch.tensor([0.7])))
        with Recorder() as recorder:
            net.step(*arguments)
    assert torch.ops.aten.addmm.default in recorder.operations
    names = [str(func) for func in recorder.operations if func._schema.is_mutable]
    assert not names, "a captured graph must not write in place"
    values = {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.equal.default"}
    assert not values & {str(func) for func in recorder.operations}


@kinds
def test_padding_of_prompts_changes_nothing(checkpoints, kind):
    net, noise, short = checkpoints[kind].net, tiny.noise(kind), make_inputs(kind)
    long = FlowInputs(
        images=short.images,
        image_mask=short.image_mask,
        token_ids=torch.nn.functional.pad(short.token_ids, (0, 9)),
        token_mask=torch.nn.functional.pad(short.token_mask, (0, 9)),
        state=short.state,
    )
    with torch.inference_mode():
        torch.testing.assert_close(net.sample(short, noise), net.sample(long, noise), rtol=0, atol=1e-5)


def test_drawn_times_follow_the_beta_distribution(checkpoints):
    net = checkpoints["smolvla"].net
    noise, time = net.draw(4000, torch.Generator().manual_seed(0))
    assert noise.shape == (4000, 10, 8)
    assert time.min() >= 0.001
    assert time.max() <= 1.0
    beta = (time - 0.001) / 0.999
    assert beta.mean().item() == pytest.approx(1.5 / 2.5, abs=0.02)  # of Beta(1.5, 1)
    assert beta.var().item() == pytest.approx(1.5 / (2.5**2 * 3.5), abs=0.01)


def test_the_default_model_has_the_published_size(tmp_path):
    name = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
    changes = {"vlm_model_name": name, "num_vlm_layers": 16, "max_state_dim": 32, "max_action_dim": 32}
    config = parse_config(tiny.config("smolvla") | changes)
    with torch.device("meta"):
        net = SmolVLANet(config, vlm_sizes(name, tmp_path))
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert shapes["vlm_with_expert.vlm.model.connector.modality_projection.proj.weight"] == (960, 12288)
    assert shapes["vlm_with_expert.lm_expert.layers.1.self_attn.k_proj.weight"] == (320, 320)
    lm_head = 49280 * 960  # lerobot's file has it, too
    assert round((sum(p.numel() for p in net.parameters()) + lm_head) / 1e6, 1) == 450.0
