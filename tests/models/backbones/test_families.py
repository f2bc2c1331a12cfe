"""What every family must do, with a small random model of each."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.models.backbones.tiny_vlms import CONFIGS, describe, save_model, settings
from vla.errors import ObservationError
from vla.models.backbones import Backbone, build_backbone, keep_description, with_description
from vla.models.backbones.families import FAMILIES

pytestmark = pytest.mark.parametrize("family", list(CONFIGS))


@cache
def folder(family: str) -> str:
    return describe(family, Path(mkdtemp()))


def build(family: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    net: Any = build_backbone(family, settings(family, folder(family), **changes))
    source = torch.Generator().manual_seed(1)
    for (
        name,
        weight,
    ) in net.named_parameters():  # fresh Gemma 3 and InstructBLIP see nothing: zeros on the way
        if weight.dim() > 1 and not weight.any() and ".lora_" not in name:
            torch.nn.init.normal_(weight, std=0.3, generator=source)
    return net.eval()


@cache
def shared(family: str) -> Any:
    """One network for the tests that change nothing."""
    return build(family)


def observe(net: Any, instructions: list[str], seed: int = 0) -> list[Any]:
    tokens = net.tokenize(instructions)
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(instructions), 2, 40, 48, 3), generator=source, dtype=torch.uint8)
    embodiment = torch.arange(len(instructions)) % 2
    return [images, None, torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask), embodiment]


def rows(inputs: list[Any], index: list[int]) -> list[Any]:
    return [None if x is None else x[index] for x in inputs]


LINES = ["pick up the red cube", "open the drawer", "put it in the drawer"]


def test_the_family_is_in_the_table_and_meets_this_contract(family: str):
    assert family in FAMILIES
    assert set(FAMILIES) == set(CONFIGS)


def test_features_are_masked_finite_and_as_many_for_every_prompt(family: str):
    net = shared(family)
    assert isinstance(net, Backbone)
    short, long = (net(*observe(net, [line])) for line in ("open", LINES[2]))
    assert short.features.shape == long.features.shape == (1, short.mask.shape[1], net.width)
    assert short.features.isfinite().all()
    assert (short.features[~short.mask] == 0).all()
    assert net.holders_1P[0, short.visual].all()
    assert short.visual.numel() == len(short.visual.unique()) <= 2 * net.num_image_tokens
    assert long.mask.sum() == short.mask.sum() + 4


def test_patches_stand_in_a_grid_unless_they_are_learned_queries(family: str):
    views, rows_, columns = shared(family).visual_VRC.shape
    if family in ("blip-2", "instructblip", "idefics2"):
        assert (views, rows_, columns) == (2, 1, 4)
    else:
        assert rows_ == columns > 1


def test_pictures_that_are_not_uint8_are_refused(family: str):
    inputs = observe(shared(family), LINES[:1])
    with pytest.raises(ObservationError, match=r"uint8.*given: float32"):
        shared(family)(inputs[0] / 255, *inputs[1:])


def test_gradients_reach_pictures_words_and_embodiment(family: str):
    net = build(family)
    inputs = observe(net, LINES)
    inputs[1] = torch.tensor([[False, True], [True, True], [True, False]])
    net(*inputs).features.square().sum().backward()
    grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    assert all(grad.isfinite().all() for grad in grads.values())
    for parts in (FAMILIES[family].vision, FAMILIES[family].language, ("embodiment",)):
        names = [p if p == "embodiment" else f"vlm.{p}" for p in parts]
        assert any(grads[n].any() for n in grads if n.startswith(tuple(names))), parts


def test_a_sample_does_not_feel_its_neighbours(family: str):
    net = shared(family)
    inputs = observe(net, LINES)
    with torch.no_grad():
        together, alone = net(*inputs).features, net(*rows(inputs, [1])).features
    torch.testing.assert_close(together[1:2], alone, atol=2e-5, rtol=1e-4)


def test_pictures_and_words_matter_and_a_missing_camera_does_not(family: str):
    net = shared(family)
    inputs = observe(net, LINES[:1])
    inputs[1] = torch.tensor([[True, False]])
    with torch.no_grad():
        before = net(*inputs)
        for camera, seen in ((0, True), (1, False)):
            images = inputs[0].clone()
            images[:, camera] = 255 - images[:, camera]
            after = net(images, *inputs[1:])
            assert torch.allclose(before.features, after.features, atol=1e-6) != seen
        other = net(inputs[0], inputs[1], *observe(net, ["pick up the blue cube"])[2:])
    text = before.features.shape[1] - 1 - net.settings.max_tokens
    assert not torch.allclose(before.features[:, text:], other.features[:, text:], atol=1e-5)


def test_a_saved_state_gives_identical_features(family: str, tmp_path: Path):
    net = shared(family)
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    given = settings(family, folder(family))
    keep_description(family, given, tmp_path)
    again: Any = build_backbone(family, with_description(family, given, tmp_path)).eval()
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
    inputs = observe(net, LINES)
    with torch.no_grad():
        assert torch.equal(net(*inputs).features, again(*inputs).features)


def test_lora_changes_nothing_at_first_and_alone_learns(family: str):
    net = build(family, freeze="all", lora={"rank": 2, "alpha": 4.0})
    inputs = observe(net, LINES)
    with torch.no_grad():
        torch.testing.assert_close(net(*inputs).features, shared(family)(*inputs).features)
    net.train()
    net(*inputs).features.square().sum().backward()
    learned = {name for name, p in net.named_parameters() if p.grad is not None}
    assert any(".lora_B." in name for name in learned)
    assert all(".lora_" in name for name in learned if name.startswith("vlm."))


@pytest.mark.parametrize("part", ["vision", "language"])
def test_a_frozen_part_gets_no_gradient_and_the_rest_does(family: str, part: str):
    net = build(family, freeze=part)
    frozen = tuple(f"vlm.{name}." for name in getattr(FAMILIES[family], part))
    spared = tuple(f"vlm.{name}." for name in FAMILIES[family].connector)
    net(*observe(net, LINES[:2])).features.square().sum().backward()
    learned = {name for name, p in net.named_parameters() if p.grad is not None}
    assert any(name.startswith("vlm.") for name in learned)
    assert not [n for n in learned if n.startswith(frozen) and not (spared and n.startswith(spared))]


def test_two_steps_of_training_lower_a_loss(family: str):
    net = build(family)
    inputs = observe(net, LINES[:2])
    target = torch.randn(net(*inputs).features.shape, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        loss = (net(*inputs).features - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]


def test_checkpointed_layers_give_the_same_gradients(family: str):
    kept, again = build(family).train(), build(family, gradient_checkpointing=True).train()
    grads = []
    for net in (kept, again):
        net(*observe(net, LINES[:1])).features.square().sum().backward()
        grads.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)


def saved_bytes(net: Any, inputs: list[Any]) -> int:
    """Of tensors other than weights that the backward pass will need."""
    weights, kept = {p.data_ptr() for p in net.parameters()}, {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        if x.data_ptr() not in weights:
            kept[x.data_ptr()] = x  # alive, so that its place is not given away
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = net(*inputs).features.square().sum()
    assert loss.isfinite()
    return sum(x.numel() * x.element_size() for x in kept.values())


def test_checkpointed_layers_keep_less_than_two_thirds(family: str):
    plain, checkpointed = build(family).train(), build(family, gradient_checkpointing=True).train()
    inputs = observe(plain, LINES[:1])
    assert saved_bytes(checkpointed, inputs) < saved_bytes(plain, inputs) * 2 / 3


def test_a_released_checkpoint_gives_what_transformers_own_forward_gives(family: str, tmp_path: Path):
    source = save_model(family, tmp_path)
    length = shared(family).tokenize(LINES[:1]).mask.sum() // (2 if family == "instructblip" else 1)
    net: Any = build_backbone(
        "auto", settings(family, source, pretrained=True, max_tokens=int(length))
    ).eval()
    inputs = observe(net, LINES[:1])
    name = "AutoModelForCausalLM" if family == "phi4_multimodal" else "AutoModelForImageTextToText"
    if family in ("llava_next", "llava_onevision"):  # one tile, of the picture's own size
        side = net.geometry.side
        config = transformers.AutoConfig.from_pretrained(source, image_grid_pinpoints=[[side, side]])
        whole = getattr(transformers, name).from_pretrained(source, config=config).eval()
    else:  # with sdpa, transformers' Phi-4 looks at pictures causally, see vla.models.backbones.inputs
        attention = "eager" if family == "phi4_multimodal" else "sdpa"
        whole = getattr(transformers, name).from_pretrained(source, attn_implementation=attention).eval()
    given = {k: v for k, v in net._given(inputs[0]).items() if k != "position_ids"}
    ids = torch.cat([net.head_ids_1H, inputs[2][:, :length]], dim=1)
    if family.startswith("qwen"):
        given["mm_token_type_ids"] = net.holders_1P.int()
    if family == "instructblip":
        asked = inputs[2][:, length:]
        given |= {"qformer_input_ids": asked, "qformer_attention_mask": inputs[3][:, length:].long()}
        given = {k: v.repeat_interleave(2, 0) if k.startswith("qformer") else v for k, v in given.items()}
    with torch.no_grad():
        out = whole(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True, **given)
        ours = net(*inputs).features[:, :-1]
    out = out.language_model_outputs if "blip" in family else out
    theirs = out.encoder_last_hidden_state if family == "florence2" else out.hidden_states[-1]
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
