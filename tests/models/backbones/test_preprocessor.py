"""Pictures are prepared as the checkpoint's own file says: transformers' image processors are the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.models.backbones.tiny_vlms import SIDES, describe, save_model, settings, tokenizer
from vla.errors import CheckpointError, ConfigError
from vla.models.backbones import build_backbone, keep_description
from vla.models.backbones.families import FAMILIES
from vla.models.backbones.inputs import frames
from vla.models.backbones.loading import read_config
from vla.models.backbones.pixels import IMAGENET_MEAN, Pixels, prepare, resize_square, whole
from vla.models.backbones.preprocessor import DEFAULTS, read_pixels
from vla.models.backbones.resample import FILTERS, resize

pytest.importorskip("PIL")

SQUARE, COLOURS = {"height": 56, "width": 56}, {"image_mean": [0.4, 0.5, 0.45], "image_std": [0.2, 0.3, 0.25]}
AREA = {"size": {"shortest_edge": 56 * 56, "longest_edge": 56 * 56}, "patch_size": 14}
LARGEST = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 56}, "do_image_splitting": False}
#: family -> transformers' processor of its released checkpoints, at the size of the small models.
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "llava": ("CLIPImageProcessorPil", {"size": {"shortest_edge": 56}, "crop_size": SQUARE}),
    "llava_next": (
        "LlavaNextImageProcessorPil",
        {"size": {"shortest_edge": 56}, "image_grid_pinpoints": [[56, 56]], "crop_size": SQUARE},
    ),
    "llava_onevision": (
        "LlavaOnevisionImageProcessorPil",
        {"size": SQUARE, "image_grid_pinpoints": [[56, 56]]},
    ),
    "blip-2": ("BlipImageProcessorPil", {"size": SQUARE}),
    "instructblip": ("BlipImageProcessorPil", {"size": SQUARE}),
    "idefics2": ("Idefics2ImageProcessorPil", {"size": {"shortest_edge": 56, "longest_edge": 56}}),
    "idefics3": ("Idefics3ImageProcessorPil", LARGEST),
    "smolvlm": ("SmolVLMImageProcessorPil", LARGEST),
    "qwen2_vl": ("Qwen2VLImageProcessorPil", AREA),
    "qwen2_5_vl": ("Qwen2VLImageProcessorPil", AREA),
    "qwen3_vl": ("Qwen2VLImageProcessorPil", AREA),
    "paligemma": ("SiglipImageProcessorPil", {"size": SQUARE}),
    "gemma3": ("Gemma3ImageProcessorPil", {"size": SQUARE}),
    "internvl": ("GotOcr2ImageProcessorPil", {"size": SQUARE}),
    "florence2": ("CLIPImageProcessorPil", {"size": {"height": 64, "width": 64}, "do_center_crop": False}),
}
GEMMA4 = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}


def picture(height: int, width: int | None = None) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width or height, 3), dtype=np.uint8)


def processor(family: str, **changes: Any) -> Any:
    name, values = PROCESSORS[family]
    return getattr(transformers, name)(**(values | COLOURS | changes))


def write(folder: Path, **values: Any) -> str:
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return str(folder)


@pytest.mark.parametrize("name", [*FILTERS])
@pytest.mark.parametrize("size", [(37, 25), (70, 130), (130, 9)])
def test_pictures_are_resized_as_pillow_does_it(name: str, size: tuple[int, int]):
    from PIL import Image

    given = picture(64, 48)
    theirs = Image.fromarray(given).resize(size[::-1], getattr(Image.Resampling, name.upper()))
    ours = resize(torch.from_numpy(given).permute(2, 0, 1)[None], *size, name)
    assert torch.equal(ours[0].permute(1, 2, 0), torch.from_numpy(np.asarray(theirs).copy()))


@pytest.mark.parametrize("family", list(PROCESSORS))
@pytest.mark.parametrize("height", [40, 56, 131])
def test_pixels_equal_those_of_the_checkpoint_s_own_processor(family: str, height: int, tmp_path: Path):
    theirs = processor(family)
    theirs.save_pretrained(tmp_path)
    config = read_config(describe(family, tmp_path))
    pixels, origin = read_pixels(str(tmp_path), FAMILIES[family], config)
    assert origin == "preprocessor_config.json"
    expected = np.asarray(theirs(images=[picture(height)], return_tensors="np")["pixel_values"])
    given = torch.from_numpy(picture(height))[None]
    x = prepare(given, SIDES.get(family, 56), pixels, tiling=FAMILIES[family].tiling or whole)
    if family.startswith("qwen"):
        x = (FAMILIES[family].inputs or frames)(x[None], geometry(family, config))["pixel_values"]
    np.testing.assert_allclose(x.numpy().reshape(expected.shape), expected, atol=1e-5)


def geometry(family: str, config: Any, side: int = 56) -> Any:
    from vla.models.backbones.inputs import Geometry

    return Geometry(config, side)


def test_gemma_4_s_patches_equal_those_of_its_own_processor(tmp_path: Path):
    theirs = transformers.Gemma4ImageProcessorPil(**GEMMA4)
    theirs.save_pretrained(tmp_path)
    small = {"patch_size": 4, "pooling_kernel_size": 2, "hidden_size": 32, "num_hidden_layers": 1}
    config = read_config(describe("gemma4", tmp_path, vision_config=small))
    pixels, _ = read_pixels(str(tmp_path), FAMILIES["gemma4"], config)
    seen = theirs(images=[picture(100)], return_tensors="np")
    count = int(seen["num_soft_tokens_per_image"][0]) * 4
    side = int(count**0.5) * 4  # the largest that fits into the tokens
    x = prepare(torch.from_numpy(picture(100))[None], side, pixels)
    given = (FAMILIES["gemma4"].inputs or frames)(x[None], geometry("gemma4", config, side))
    np.testing.assert_allclose(given["pixel_values"][0].numpy(), seen["pixel_values"][0, :count], atol=1e-5)
    assert np.array_equal(given["image_position_ids"][0].numpy(), seen["image_position_ids"][0, :count])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("CLIPImageProcessorPil", {"size": {"shortest_edge": 64}, "crop_size": SQUARE}),
        ("LlavaImageProcessorPil", {"do_pad": True, "size": {"shortest_edge": 56}, "crop_size": SQUARE}),
    ],
)
def test_pictures_that_are_not_square_are_cropped_or_padded_as_there(
    name: str, values: dict[str, Any], tmp_path: Path
):
    theirs = getattr(transformers, name)(**values, **COLOURS)
    theirs.save_pretrained(tmp_path)
    pixels, _ = read_pixels(str(tmp_path), FAMILIES["llava"], read_config(describe("llava", tmp_path)), 56)
    expected = theirs(images=[picture(60, 91)], return_tensors="np")["pixel_values"]
    ours = prepare(torch.from_numpy(picture(60, 91))[None], 56, pixels)
    np.testing.assert_allclose(ours[:, 0].numpy(), expected, atol=1e-5)


def test_a_model_uses_its_file_and_a_saved_policy_keeps_it(tmp_path: Path):
    source = write(Path(describe("smolvlm", tmp_path / "a")), image_mean=[0.1, 0.2, 0.3], resample=2)
    given = settings("smolvlm", source)
    net: Any = build_backbone("smolvlm", given)
    assert (net.pixels.mean, net.pixels.mode) == ((0.1, 0.2, 0.3), "bilinear")
    assert net.pixels.std == FAMILIES["smolvlm"].pixels.std  # what the file leaves out is the family's
    keep_description("smolvlm", given, tmp_path / "policy")
    (tmp_path / "a").rename(tmp_path / "gone")
    again: Any = build_backbone("smolvlm", {**given, "model": str(tmp_path / "policy" / "backbone")})
    assert again.pixels == net.pixels


def test_the_newer_file_is_read_and_without_any_the_defaults_are_reported(tmp_path: Path):
    folder = Path(describe("paligemma", tmp_path))
    config, family = read_config(str(folder)), FAMILIES["paligemma"]
    assert read_pixels(str(folder), family, config) == (family.pixels, DEFAULTS)
    inner = {"image_processor": {"do_normalize": False, "rescale_factor": 1 / 127.5}, "processor_class": "P"}
    (folder / "processor_config.json").write_text(json.dumps(inner))
    pixels, origin = read_pixels(str(folder), family, config)
    assert origin == "processor_config.json"
    assert pixels == Pixels(mean=(0.0,) * 3, std=(1.0,) * 3, rescale=1 / 127.5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resample": 0}, "Pillow's numbers"),
        ({"do_pan_and_scan": True}, "do_pan_and_scan, which is not reproduced"),
        ({"do_resize": False}, "own size"),
        ({"image_mean": [0.5]}, "three numbers"),
        ({"size": {"height": 224, "width": 224}}, "224 px.*56 px"),
        ({"do_center_crop": True, "size": {"height": 64, "width": 64}, "crop_size": SQUARE}, "squashes"),
        ({"do_center_crop": True, "size": {"shortest_edge": 56}, "crop_size": 64}, "crops 64 out of"),
        ({"patch_size": 16}, "patch_size 16, the model's config patch_size 14"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(values: dict[str, Any], message: str, tmp_path: Path):
    source = write(Path(describe("llava", tmp_path)), **values)
    with pytest.raises(ConfigError, match=message):
        read_pixels(source, FAMILIES["llava"], read_config(source), 56)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="no JSON"):
        read_pixels(source, FAMILIES["llava"], read_config(source))


def test_a_crop_has_the_margin_that_the_file_says():
    x = torch.from_numpy(picture(32)).permute(2, 0, 1)[None]
    cut = resize_square(x, 24, Pixels(mean=IMAGENET_MEAN, fit="crop", margin=32 / 24))
    assert torch.equal(cut, x[:, :, 4:28, 4:28])


TILED: dict[str, dict[str, Any]] = {
    "smolvlm": {"size": {"longest_edge": 112}, "do_image_splitting": True},
    "idefics3": {"size": {"longest_edge": 112}, "do_image_splitting": True},
    "idefics2": {"do_image_splitting": True},
    "internvl": {"crop_to_patches": True, "min_patches": 4, "max_patches": 4},
    "llava_next": {"image_grid_pinpoints": [[56, 112], [112, 56], [112, 112]]},
    "llava_onevision": {"image_grid_pinpoints": [[56 * h, 56 * w] for h in (1, 2) for w in (1, 2)]},
}


def expanded(family: str, count: int) -> str:
    """One picture in the text, as transformers' processor of that family writes it."""
    holders = "<image>" * count
    if family in ("smolvlm", "idefics3"):
        from transformers.models.smolvlm.processing_smolvlm import _prompt_split_image

        return _prompt_split_image(
            count // 5, 2, 2, "<fake_token_around_image>", "<image>", global_image_token="<global-img>"
        )
    if family == "idefics2":
        fake = "<fake_token_around_image>"
        return (f"{fake}{'<image>' * (count // 5)}{fake}" * 5).replace(fake * 2, fake)
    return f"<img>{holders}</img>" if family == "internvl" else holders


@pytest.mark.parametrize("family", list(TILED))
def test_tiles_equal_transformers_own_processor_and_model(family: str, tmp_path: Path):
    theirs, source = processor(family, **TILED[family]), save_model(family, tmp_path)
    theirs.save_pretrained(source)
    changes = {"pretrained": True, "tiles": 2, "camera_roles": ["front"], "max_tokens": 11}
    net: Any = build_backbone("auto", settings(family, source, **changes)).eval()
    images = torch.from_numpy(picture(131))[None, None]
    line = "pick up the red cube"
    tokens = net.tokenize([line])
    length = int(tokens.mask.sum())
    text = (net.family.prompt.replace("{bos}", "<s>").replace("{instruction}", line)).replace(
        "<fake_token_around_image>{images}" if family == "idefics2" else "{images}",
        expanded(family, net.num_image_tokens),
    )
    ids = torch.tensor(tokenizer()(text, add_special_tokens=False)["input_ids"])[None]
    given = theirs(images=[picture(131)], return_tensors="pt")
    kept = {k: v for k, v in given.items() if k in ("pixel_values", "image_sizes", "pixel_attention_mask")}
    config = transformers.AutoConfig.from_pretrained(source)
    if "image_grid_pinpoints" in TILED[family]:
        config.image_grid_pinpoints = TILED[family]["image_grid_pinpoints"]
    model = transformers.AutoModelForImageTextToText.from_pretrained(source, config=config).eval()
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True, **kept)
        ours = net(images, None, *(torch.from_numpy(x) for x in (tokens.ids, tokens.mask)), torch.tensor([0]))
    mine = ours.features[:, : len(net.head_camera_H) + length]
    torch.testing.assert_close(mine, out.hidden_states[-1], atol=2e-5, rtol=1e-4)


def test_more_tiles_than_onevision_keeps_are_shrunk(tmp_path: Path):
    net: Any = build_backbone(
        "auto", settings("llava_onevision", describe("llava_onevision", tmp_path), tiles=4)
    )
    images = torch.zeros(1, 2, 30, 30, 3, dtype=torch.uint8)
    tokens = [
        torch.from_numpy(x) for x in net.tokenize(["open"]).__dict__.values() if isinstance(x, np.ndarray)
    ]
    assert net(images, None, *tokens, torch.tensor([0])).features.isfinite().all()
    assert net.num_image_tokens == 16 + 12 * 13
