"""Demonstrations in the prompt, on the tiny backbone and on a pretrained family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.backbones.tiny_vlms import describe, settings
from tests.models.nets import VOCABULARY
from vla.errors import ConfigError, ObservationError
from vla.models.backbones import Backbone, build_backbone
from vla.models.backbones.in_context import Demonstrations, GatedCrossAttention, PerceiverResampler

TINY = {"vocabulary": VOCABULARY, "embodiments": ["a", "b"], "image_size": 16, "width": 32}


def build(base: str, base_settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    sizes = {"state_dim": 5, "action_dim": 3, "num_episodes": 2, "num_steps": 3, "num_latents": 4}
    return build_backbone("in_context", {"base": base, "base_settings": base_settings, **sizes}).eval()


def examples(net: Any, batch: int = 1, seed: int = 0) -> Demonstrations:
    source = torch.Generator().manual_seed(seed)
    tokens = net.tokenize(["the red cube", "the blue cube"] * batch)
    return Demonstrations(
        images=torch.randint(0, 256, (batch, 2, 3, 2, 16, 16, 3), generator=source, dtype=torch.uint8),
        image_mask=None,
        token_ids=torch.from_numpy(tokens.ids).unflatten(0, (batch, 2)),
        token_mask=torch.from_numpy(tokens.mask).unflatten(0, (batch, 2)),
        embodiment_id=torch.zeros(batch, 2, dtype=torch.long),
        state=torch.randn(batch, 2, 3, 5, generator=source),
        action=torch.randn(batch, 2, 3, 3, generator=source),
        step_mask=torch.tensor([[True, True, True], [True, False, False]]).expand(batch, -1, -1),
    )


def observe(net: Any) -> list[Any]:
    tokens = net.tokenize(["the red cube", "the blue cube"])
    source = torch.Generator().manual_seed(9)
    images = torch.randint(0, 256, (2, 2, 16, 16, 3), generator=source, dtype=torch.uint8)
    return [images, None, torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask), torch.tensor([0, 1])]


def open_gates(net: Any) -> None:
    for layer in net.layers:
        torch.nn.init.ones_(layer.attention_gate)
        torch.nn.init.ones_(layer.feed_gate)


def test_closed_gates_leave_the_base_as_it_was():
    net = build("tiny", TINY)
    assert isinstance(net, Backbone)
    inputs = observe(net)
    alone = net(*inputs)
    net.show(examples(net))
    shown = net(*inputs)
    assert torch.equal(alone.features, shown.features)
    assert shown.auxiliary.keys() == alone.auxiliary.keys()


def test_open_gates_read_pictures_deeds_and_their_order_but_no_missing_step():
    net = build("tiny", TINY)
    open_gates(net)
    inputs, given = observe(net), examples(net)

    def features(**changes: Any) -> torch.Tensor:
        with torch.no_grad():
            net.show(Demonstrations(**{**given.__dict__, **changes}))
            return net(*inputs).features

    before = features()
    for changes in (
        {"images": 255 - given.images},
        {"action": -given.action},
        {"action": given.action.flip(2)},
    ):
        assert not torch.allclose(features(**changes), before, atol=1e-5)
    action = given.action.clone()
    action[:, 1, 1:] += 9.0  # steps that the mask leaves out
    assert torch.equal(features(action=action), before)
    nothing = features(step_mask=torch.zeros_like(given.step_mask))
    assert nothing.isfinite().all()


def test_examples_learn_through_a_pretrained_family_and_forget(tmp_path: Path):
    net = build("smolvlm", settings("smolvlm", describe("smolvlm", tmp_path)))
    open_gates(net)
    inputs = observe(net)
    alone = net(*inputs).features
    net.show(examples(net, batch=2))
    out = net(*inputs)
    out.features.square().sum().backward()
    for part in (net.resampler.latents, net.deed.weight, net.steps.weight, net.layers[0].attention_gate):
        assert part.grad is not None
        assert part.grad.any()
    assert (out.features[~out.mask] == 0).all()
    net.show(None)
    assert torch.equal(net(*inputs).features, alone)


def test_too_many_examples_and_misfitting_batches_are_refused():
    net = build("tiny", TINY)
    given = examples(net)
    with pytest.raises(ObservationError, match=r"\(2, 3\) episodes and steps"):
        net.show(Demonstrations(**{**given.__dict__, "step_mask": torch.ones(1, 3, 3, dtype=torch.bool)}))
    net.show(examples(net, batch=3))
    with pytest.raises(ObservationError, match="3 samples"):
        net(*observe(net))
    with pytest.raises(ConfigError, match="cannot be one itself"):
        build("in_context", {})


def test_a_resampler_ignores_masked_tokens_and_their_order():
    torch.manual_seed(0)
    resample = PerceiverResampler(16, 3, 2, 2)
    x, mask = torch.randn(2, 5, 16), torch.tensor([[True] * 3 + [False] * 2] * 2)
    expected = resample(x[:, :3], None)
    torch.testing.assert_close(resample(x, mask), expected)
    torch.testing.assert_close(resample(x[:, [2, 0, 1]], None), expected)
    gated = GatedCrossAttention(16, 2)
    assert torch.equal(gated(x, expected, mask.new_zeros(2, 3)), x)
