"""Settings, prompts, pictures and errors of pretrained backbones; and a policy built on one."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.models.backbones.tiny_vlms import (
    BLIP_2_T5,
    CONFIGS,
    IMAGE_ID,
    LLAMA,
    PALIGEMMA_2,
    SIGLIP,
    describe,
    save_model,
    settings,
)
from tests.models.nets import make_batch, net_config
from vla.errors import CheckpointError, ConfigError, MissingExtraError, ObservationError, UnknownNameError
from vla.models.backbones import build_backbone, keep_description, with_description
from vla.models.backbones.families import FAMILIES
from vla.models.backbones.inputs import Geometry
from vla.models.backbones.pixels import (
    CLIP_MEAN,
    CLIP_STD,
    Pixels,
    merge_order_patches,
    prepare,
    row_order_patches,
    whole_and_tiles,
)
from vla.models.backbones.pretrained import PretrainedVLM
from vla.models.downsample import build_connector
from vla.models.lora import LoraConfig, add_lora, merge_lora
from vla.models.policy_net import PolicyNet
from vla.models.tokens import build_compressor

DOCS = Path(__file__).parents[3] / "docs" / "backbones.md"
LINES = ["pick up the red cube", "open the drawer"]


def build(family: str, path: Path, **changes: Any) -> Any:
    torch.manual_seed(0)
    source = changes.pop("model", None) or describe(family, path)
    return build_backbone(family, settings(family, source, **changes)).eval()


def observe(net: Any, cameras: int = 2) -> list[Any]:
    tokens = net.tokenize(LINES)
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, cameras, 40, 40, 3), generator=source, dtype=torch.uint8)
    return [images, None, torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask), torch.tensor([0, 1])]


def test_an_unknown_family_is_told_the_known_ones_and_how_to_add_itself(tmp_path: Path):
    with pytest.raises(UnknownNameError, match=r"smolvlm.*register_family.*docs/backbones.md"):
        build_backbone("smolvlm3", {})
    with pytest.raises(ConfigError, match="of the family 'llava'"):
        build("paligemma", tmp_path, model=describe("llava", tmp_path / "other"))


def test_the_documented_example_adds_a_family_in_under_thirty_lines(tmp_path: Path):
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    (example,) = [block for block in blocks if "register_family(" in block]
    assert len(example.splitlines()) < 30
    try:
        exec(example, {})
        CONFIGS["aya_vision"] = {
            "text_config": LLAMA,
            "vision_config": SIGLIP,
            "image_token_index": IMAGE_ID,
            "downsample_factor": 2,
            "adapter_layer_norm_eps": 1e-6,
            "vision_feature_select_strategy": "full",
        }
        net = build("aya_vision", tmp_path)
        assert net(*observe(net)).features.isfinite().all()
    finally:
        FAMILIES.pop("aya_vision", None)
        CONFIGS.pop("aya_vision", None)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"freez": "all"}, UnknownNameError, "freeze"),
        ({"freeze": "ears"}, UnknownNameError, "vision"),
        ({"image_size": 40}, ConfigError, "multiple of 28"),
        ({"num_layers": 3}, ConfigError, r"1\.\.2"),
        ({"tiles": 7}, ConfigError, r"1\.\.6, not 7"),
        ({"connector": "ldp"}, ConfigError, "llava"),
        ({"prompt": "{instruction}{images}"}, ConfigError, "after it"),
        ({"prompt": "<nowhere>{images}{instruction}"}, ConfigError, "<nowhere>"),
        ({"lora": {"targets": ["up"]}}, ConfigError, "q_proj"),
        ({"lora": {"ranks": 2}}, UnknownNameError, "rank"),
        ({"model": "/nowhere"}, CheckpointError, "No model config"),
    ],
)
def test_wrong_settings_say_what_is_right(tmp_path: Path, changes: dict[str, Any], error: type, message: str):
    with pytest.raises(error, match=message):
        build("smolvlm", tmp_path, **changes)


def test_missing_weights_and_trained_picture_sizes_are_refused(tmp_path: Path):
    source = save_model("llava", tmp_path)
    with pytest.raises(ConfigError, match="56 px"):
        build_backbone("llava", settings("llava", source, pretrained=True, image_size=28))
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(next(name for name in weights if "q_proj" in name))
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights .* missing.*q_proj"):
        build_backbone("llava", settings("llava", source, pretrained=True))


@pytest.mark.parametrize("family", ["llava", "blip-2", "qwen2_5_vl", "gemma4", "florence2"])
def test_a_layer_cut_keeps_the_first_layers_weights(family: str, tmp_path: Path):
    source = save_model(family, tmp_path)
    nets = [build_backbone(family, settings(family, source, pretrained=True, num_layers=n)) for n in (1, 2)]
    short, full = (net.state_dict() for net in nets)
    assert len(short) < len(full)
    assert all(torch.equal(value, full[name]) for name, value in short.items() if "embodiment" not in name)


@pytest.mark.parametrize(
    ("part", "num_layers"), [("text_config", None), ("vision_config", None), ("vision_config", 1)]
)
def test_layers_that_nobody_cut_are_not_left_out(part: str, num_layers: int | None, tmp_path: Path):
    source = save_model("smolvlm", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config[part]["num_hidden_layers"] = 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"fit no part: .*(text|vision)_model\..*layers\.1\."):
        build_backbone("smolvlm", settings("smolvlm", source, pretrained=True, num_layers=num_layers))


def test_an_encoder_of_blocks_is_cut_too(tmp_path: Path):
    source = save_model("blip-2", tmp_path, **BLIP_2_T5)
    net: Any = build_backbone("blip-2", settings("blip-2", source, pretrained=True, num_layers=1))
    assert len(net.vlm.language_model.encoder.block) == 1


def test_a_damaged_weights_file_is_named(tmp_path: Path):
    source = save_model("smolvlm", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"xx")
    with pytest.raises(CheckpointError, match=f"weights at '{tmp_path}' cannot be loaded"):
        build_backbone("smolvlm", settings("smolvlm", source, pretrained=True))


def test_paligemma_2_runs_with_default_settings_as_transformers_runs_it(tmp_path: Path):
    source = save_model("paligemma", tmp_path, **PALIGEMMA_2)
    net: Any = build_backbone("auto", settings("paligemma", source, pretrained=True, max_tokens=6)).eval()
    assert net.vlm.language_model.config._attn_implementation == "eager"
    assert net.vlm.vision_tower.config._attn_implementation == "sdpa"
    inputs = observe(net)
    whole = transformers.AutoModelForImageTextToText.from_pretrained(source).eval()
    ids = torch.cat([net.head_ids_1H.expand(2, -1), inputs[2]], dim=1)
    there = torch.cat([torch.ones_like(net.head_ids_1H).expand(2, -1), inputs[3].long()], dim=1)
    with torch.no_grad():
        given = net._given(inputs[0])
        out = whole(input_ids=ids, attention_mask=there, output_hidden_states=True, **given)
        ours = net(*inputs)
    theirs = out.hidden_states[-1].masked_fill(~ours.mask[:, :-1, None], 0.0)
    torch.testing.assert_close(ours.features[:, :-1], theirs, atol=2e-5, rtol=1e-4)


def test_paligemma_2_learns_adapters_with_recomputed_layers(tmp_path: Path):
    source = describe("paligemma", tmp_path, **PALIGEMMA_2)
    changes = {"freeze": "all", "lora": {"rank": 2}, "gradient_checkpointing": True}
    net = build("paligemma", tmp_path, model=source, **changes).train()
    net(*observe(net)).features.square().sum().backward()
    assert any(p.grad is not None and p.grad.any() for name, p in net.named_parameters() if "lora_B" in name)


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision", "phi4_multimodal"])
def test_the_grids_of_pictures_in_rows_are_the_patches_alone(family: str, tmp_path: Path):
    net, read = build(family, tmp_path), []
    layers = net.vlm.layers if family == "phi4_multimodal" else net.vlm.language_model.layers
    layers[0].register_forward_pre_hook(lambda _, args: read.append(args[0]))
    inputs = observe(net)
    inputs[0][:, 1] = inputs[0][:1, 1]  # the second camera shows both rows the same
    net(*inputs)
    (x_BPD,) = read
    grids = net.visual_VRC
    assert torch.equal(x_BPD[:, grids[0]], x_BPD[:, grids[1]])  # one picture, shown whole and as one tile
    assert not torch.equal(x_BPD[0, grids[0]], x_BPD[1, grids[0]])
    rest = net.holders_1P[0].clone()
    rest[grids] = False
    assert rest.any()
    assert torch.equal(x_BPD[0, rest], x_BPD[1, rest])  # row ends know nothing of pictures


def test_florence_2_s_grid_stands_behind_its_mean(tmp_path: Path):
    net, seen = build("florence2", tmp_path), []
    norm = net.vlm.multi_modal_projector.image_proj_norm
    norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(*observe(net))
    torch.testing.assert_close(seen[0][:, 0], seen[0][:, 1:].mean(1))
    first = net.holders_1P[0].nonzero()[0, 0]
    assert torch.equal(net.visual_VRC[0], torch.arange(first + 1, first + 5).view(2, 2))


@pytest.mark.parametrize("name", ["pool", "shuffle"])
@pytest.mark.parametrize("family", ["llava_next", "florence2", "phi4_multimodal"])
def test_grids_with_more_around_them_can_be_pooled(family: str, name: str, tmp_path: Path):
    net = build(family, tmp_path)
    given = net(*observe(net))
    made = build_compressor(name, net.width, 0.25)
    assert made is not None
    visual = given.visual.numel()
    assert made(given).features.shape[1] == given.features.shape[1] - visual + visual // 4


@pytest.mark.parametrize("cameras", [1, 3, 4])
def test_one_to_four_cameras_are_a_setting(cameras: int, tmp_path: Path):
    net = build("smolvlm", tmp_path, camera_roles=[f"camera{i}" for i in range(cameras)])
    out = net(*observe(net, cameras))
    assert net.holders_1P.sum() == cameras * net.num_image_tokens
    assert out.features.shape[1] == len(net.head_camera_H) + net.settings.max_tokens + 1
    with pytest.raises(ObservationError, match="pictures"):
        net(*observe(net, cameras + 1))


def test_words_that_do_not_fit_or_are_not_known_are_reported(tmp_path: Path):
    net = build("smolvlm", tmp_path, max_tokens=8)
    tokens = net.tokenize(["pick up the red cube blue drawer", "pick zebra"])
    assert tokens.ids.shape == (2, 8)
    assert tokens.unknown == (("drawer",), ("zebra",))
    with pytest.raises(ObservationError, match="stands for a picture"):
        net.tokenize(["pick <image> up"])


def test_a_very_long_instruction_is_encoded_in_few_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    net, tried = build("smolvlm", tmp_path, max_tokens=8), []
    encode = net.tokenizer._filled
    monkeypatch.setattr(net.tokenizer, "_filled", lambda text: tried.append(text) or encode(text))
    tokens = net.tokenize(["pick up " * 1000])
    assert len(tried) < 16
    assert tokens.mask.all()
    assert len(tokens.unknown[0]) == 2000 - 6


def test_pictures_of_the_right_size_are_only_normalised():
    images = torch.randint(
        0, 256, (2, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    x = prepare(images, 8, Pixels(mean=CLIP_MEAN, std=CLIP_STD))
    expected = (images.numpy() / 255 - CLIP_MEAN) / CLIP_STD
    np.testing.assert_allclose(x[:, 0].permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)


def test_crop_keeps_the_centre_and_tiles_cut_the_enlarged_picture():
    images = torch.arange(4 * 8, dtype=torch.uint8).reshape(1, 4, 8, 1).expand(-1, -1, -1, 3)
    plain = Pixels(mean=(0, 0, 0), std=(1 / 255,) * 3, fit="crop")
    torch.testing.assert_close(prepare(images, 4, plain)[0, 0, 0], images[0, :, 2:6, 0].float())
    views = prepare(images[:, :, :4], 2, plain, tiles=2, tiling=whole_and_tiles)[0, :, 0]
    torch.testing.assert_close(views[2], images[0, :2, 2:4, 0].float())
    torch.testing.assert_close(views[3], images[0, 2:, :2, 0].float())


def test_patches_are_where_qwen_and_gemma_4_expect_them():
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    patches = merge_order_patches(x, 2, 2, 2).unflatten(0, (2, 16))
    first = x[1, :, None, 0:2, 2:4].expand(-1, 2, -1, -1).flatten()  # second of the first block of 2 x 2
    below = x[1, :, None, 2:4, 0:2].expand(-1, 2, -1, -1).flatten()
    assert torch.equal(patches[1, 1], first)
    assert torch.equal(patches[1, 2], below)
    rows, where = row_order_patches(x, 2)
    assert where[0, 6].tolist() == [2, 1]
    assert torch.equal(rows[1, 6], x[1, :, 2:4, 4:6].permute(1, 2, 0).flatten())


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision", "phi4_multimodal"])
def test_tiles_show_more_and_fit(family: str, tmp_path: Path):
    net = build(family, tmp_path, tiles=2)
    assert net.num_image_tokens > FAMILIES[family].num_tokens(Geometry(net.geometry.config, 56, 1))
    assert net(*observe(net)).features.isfinite().all()


@pytest.mark.parametrize("name", ["ldp", "ldpv2"])
@pytest.mark.parametrize("family", ["llava", "paligemma"])
def test_mobilevlm_s_connector_quarters_the_tokens(name: str, family: str, tmp_path: Path):
    net = build(family, tmp_path, connector=name)
    assert net.num_image_tokens == 4
    net(*observe(net)).features.square().sum().backward()
    weights = net.vlm.multi_modal_projector.parameters()
    assert all(weight.grad is not None and weight.grad.any() for weight in weights)
    with pytest.raises(ConfigError, match="even square"):
        build_connector(name, 8, 16)(torch.zeros(1, 9, 8))


def test_merged_adapters_compute_the_same_with_plain_layers():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    names = list(net.state_dict())
    assert add_lora(net, LoraConfig(rank=2)) == ["0", "2"]
    for name, weight in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    x = torch.randn(3, 8)
    before = net(x)
    assert merge_lora(net) == 2
    torch.testing.assert_close(net(x), before)
    assert list(net.state_dict()) == names


def test_bfloat16_weights_give_float32_features(tmp_path: Path):
    net = build("smolvlm", tmp_path, dtype="bfloat16", attention="eager")
    assert next(net.vlm.parameters()).dtype == torch.bfloat16
    assert net(*observe(net)).features.dtype == torch.float32


def test_four_bits_without_the_library_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"bitsandbytes: pip install 'vla\[quant\]'"):
        build("smolvlm", tmp_path, four_bit=True)


def test_four_bit_layers_are_close_learn_adapters_and_load_identically(tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    plain = build("smolvlm", tmp_path)
    packed = build("smolvlm", tmp_path, four_bit=True, freeze="all", lora={"rank": 2})
    inputs = observe(plain)
    near = torch.cosine_similarity(
        plain(*inputs).features.flatten(), packed(*inputs).features.flatten(), dim=0
    )
    assert near > 0.9
    packed(*inputs).features.square().sum().backward()
    assert any(p.grad is not None and p.grad.any() for n, p in packed.named_parameters() if "lora_B" in n)
    again = build("smolvlm", tmp_path, four_bit=True, freeze="all", lora={"rank": 2})
    again.load_state_dict(dict(packed.state_dict()), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(again(*inputs).features, packed(*inputs).features)


@pytest.mark.parametrize("family", ["smolvlm", "qwen2_5_vl"])
def test_a_policy_learns_on_a_pretrained_backbone_and_loads_without_its_source(family: str, tmp_path: Path):
    given = settings(family, describe(family, tmp_path / "source"), freeze="vision", lora={"rank": 2})
    net = PolicyNet(replace(net_config(), backbone=family, backbone_settings=given))
    tokens = net.backbone.tokenize(["pick up the red cube"] * 4)
    inputs, labels = make_batch()
    words = {"token_ids": torch.from_numpy(tokens.ids), "token_mask": torch.from_numpy(tokens.mask)}
    inputs = replace(inputs, **words)
    loss, parts = net.loss(inputs, labels, torch.Generator().manual_seed(0))
    loss.backward()
    assert "keypoint" not in parts
    assert isinstance(net.backbone, PretrainedVLM)
    keep_description(family, given, tmp_path / "policy")
    moved = with_description(family, given, tmp_path / "policy")
    (tmp_path / "source").rename(tmp_path / "gone")
    again = PolicyNet(replace(net_config(), backbone=family, backbone_settings=moved))
    again.load_state_dict(net.state_dict(), strict=True)
    with torch.no_grad():
        chunks = [n.eval().sample(inputs, head="regression")[0] for n in (net, again)]
    assert torch.equal(*chunks)
