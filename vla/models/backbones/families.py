"""The table of vision-language families: how each wants pixels, where pictures stand in its prompt, and where
its hidden states come out. One entry is all that a new family needs (see docs/backbones.md).

Names are transformers' ``model_type``. Prompts are the ones that the released instruction-tuned checkpoints
were trained with; ``prompt`` in the backbone's settings replaces them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vla.errors import ConfigError, UnknownNameError
from vla.models.backbones.pixels import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Pixels,
    merge_order_patches,
    row_order_patches,
)


@dataclass(frozen=True)
class Geometry:
    """What decides how many tokens a picture becomes: the model's config, side in px, tiles a side."""

    config: Any
    side: int
    tiles: int = 1

    @property
    def patches(self) -> int:
        """A side, in patches of the vision encoder."""
        return self.side // _patch(self.config)

    @property
    def tiled(self) -> int:
        """Tokens of a picture shown whole and in tiles, each row of the tiles closed by a newline token."""
        rows = self.patches * self.tiles
        return self.patches**2 + rows * (rows + 1)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family.

    Args:
        prompt: ``{images}`` is where the pictures stand, ``{instruction}`` the sentence; ``{bos}`` and
            ``{eos}`` are the tokenizer's.
        image: one picture; ``{tokens}`` are its placeholders.
        num_tokens: placeholders a picture.
        pixels: resize and colours.
        inputs: pixels [B C T 3 S S] and geometry -> the model's own keyword arguments.
        extras: which prompt tokens are placeholders, bool [1 P], the prompt's ids int64 [1 P], geometry and
            model -> further keyword arguments; constants whose batch dimension (the last but one) is 1.
        encode: how hidden states are had from the model.
        vision, language: names of submodules, for ``freeze`` and LoRA; ``connector``: those of the vision
            part that belong to neither.
        unit: sides of pictures are multiples of this, px.
        fixed_side: learned positions fit the config's picture size alone.
        can_tile: takes ``tiles``; ``can_replace_connector``: takes another ``multi_modal_projector``.
        unused: submodules that the policy never calls; taken out after loading.
        auto: transformers' Auto class that loads it.
        asks_with_instruction: the picture's tokens depend on the instruction (InstructBLIP's Q-Former).
        in_rows: a picture's tokens are a square of its patches, row by row.
    """

    prompt: str
    image: str = "{tokens}"
    num_tokens: Callable[[Geometry], int]
    pixels: Pixels = field(default_factory=Pixels)
    inputs: Callable[[Tensor, Geometry], dict[str, Tensor]] | None = None
    extras: Callable[[Tensor, Tensor, Geometry, nn.Module], dict[str, Tensor]] | None = None
    encode: Callable[..., Tensor] | None = None
    vision: tuple[str, ...] = ("vision_tower",)
    language: tuple[str, ...] = ("language_model",)
    connector: tuple[str, ...] = ()
    unit: Callable[[Any], int] | None = None
    fixed_side: bool = True
    can_tile: bool = False
    can_replace_connector: bool = False
    unused: tuple[str, ...] = ()
    auto: Literal["AutoModel", "AutoModelForImageTextToText"] = "AutoModel"
    asks_with_instruction: bool = False
    in_rows: bool = True


class UnknownBackboneError(UnknownNameError):
    """No such backbone; says which exist and how to add one."""

    def __init__(self, given: str, known: tuple[str, ...]) -> None:
        super().__init__("backbone", given, known)
        self.message += (
            " To add one, call vla.models.backbones.register_family(model_type, Family(...)): under 30 "
            "lines, with a worked example in docs/backbones.md."
        )


def register_family(model_type: str, family: Family) -> None:
    """Make a family known; ``model_type`` is what the ``config.json`` of its checkpoints says.

    Raises:
        ConfigError: the name is taken, or the prompt lacks a place for pictures or instruction.
    """
    if model_type in FAMILIES or model_type in ("tiny", "auto", "in_context"):
        raise ConfigError(f"A backbone family named {model_type!r} is already registered.")
    check_prompt(family.prompt)
    FAMILIES[model_type] = family


def check_prompt(prompt: str) -> None:
    """Raise ConfigError unless pictures come before the instruction, each once."""
    places = [prompt.find(part) for part in ("{images}", "{instruction}")]
    counts = [prompt.count(part) for part in ("{images}", "{instruction}")]
    if counts != [1, 1] or places[0] > places[1]:
        raise ConfigError(
            f"A prompt has one {{images}} and after it one {{instruction}}; this one has not: {prompt!r}."
        )


def _patch(config: Any) -> int:
    """Side of a vision patch, px (some configs give a pair)."""
    patch = config.vision_config.patch_size
    return patch if isinstance(patch, int) else patch[0]


# ---- how pixels are handed over


def frames(pixels_BCT3SS: Tensor, geometry: Geometry) -> dict[str, Tensor]:
    """One picture a row: the usual way."""
    return {"pixel_values": pixels_BCT3SS.flatten(0, 2)}


def _nested(pixels_BCT3SS: Tensor, geometry: Geometry) -> dict[str, Tensor]:
    return {"pixel_values": pixels_BCT3SS.flatten(1, 2)}


def _tiled(pixels_BCT3SS: Tensor, geometry: Geometry) -> dict[str, Tensor]:
    x = pixels_BCT3SS.flatten(0, 1)
    sizes = torch.full((len(x), 2), geometry.side * geometry.tiles, device=x.device)
    return {"pixel_values": x, "image_sizes": sizes}


def _qwen(pixels_BCT3SS: Tensor, geometry: Geometry) -> dict[str, Tensor]:
    vision = geometry.config.vision_config
    x = pixels_BCT3SS.flatten(0, 2)
    patches = merge_order_patches(x, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
    grid = torch.tensor([[1, geometry.patches, geometry.patches]], device=x.device).expand(len(x), -1)
    return {"pixel_values": patches, "image_grid_thw": grid}


def _gemma4(pixels_BCT3SS: Tensor, geometry: Geometry) -> dict[str, Tensor]:
    patches, where = row_order_patches(pixels_BCT3SS.flatten(0, 2), geometry.config.vision_config.patch_size)
    return {"pixel_values": patches, "image_position_ids": where}


def _phi4(pixels_BCT3SS: Tensor, geometry: Geometry) -> dict[str, Tensor]:
    given = _tiled(pixels_BCT3SS, geometry)
    x, patches = given["pixel_values"], geometry.patches
    mask = torch.ones(*x.shape[:2], patches, patches, dtype=torch.bool, device=x.device)
    return {
        "image_pixel_values": x,
        "image_sizes": given["image_sizes"],
        "image_attention_mask": mask,
    }


# ---- what else the model must be told


def _all_prefix(holders_1P: Tensor, ids_1P: Tensor, geometry: Geometry, vlm: nn.Module) -> dict[str, Tensor]:
    """PaliGemma (arXiv:2407.07726) reads the whole prefix both ways: type 0."""
    return {"token_type_ids": torch.zeros_like(ids_1P)}


def _picture_types(
    holders_1P: Tensor, ids_1P: Tensor, geometry: Geometry, vlm: nn.Module
) -> dict[str, Tensor]:
    """Gemma 3 reads each picture both ways: type 1."""
    return {"token_type_ids": holders_1P.long()}


def _mm_types(holders_1P: Tensor, ids_1P: Tensor, geometry: Geometry, vlm: nn.Module) -> dict[str, Tensor]:
    return {"mm_token_type_ids": holders_1P.long()}


def _rope_positions(
    holders_1P: Tensor, ids_1P: Tensor, geometry: Geometry, vlm: nn.Module
) -> dict[str, Tensor]:
    """Multimodal rotary positions [3 1 P] of the Qwen-VL families: the layout never changes."""
    num_pictures = int(holders_1P.sum()) // (geometry.patches // _merge(geometry.config)) ** 2
    grid = torch.tensor([[1, geometry.patches, geometry.patches]] * num_pictures)
    positions, _ = vlm.get_rope_index(  # type: ignore[operator]
        ids_1P, mm_token_type_ids=holders_1P.int(), image_grid_thw=grid
    )
    return {"position_ids": positions}


# ---- where hidden states come out


def encode_base(
    vlm: nn.Module, ids: Tensor, mask: Tensor, holders: Tensor, given: dict[str, Tensor]
) -> Tensor:
    """The base model's own forward: it places pictures and masks by itself."""
    return vlm(input_ids=ids, attention_mask=mask.long(), use_cache=False, **given).last_hidden_state


def _encode_embeddings(
    vlm: Any, ids: Tensor, mask: Tensor, holders: Tensor, given: dict[str, Tensor]
) -> Tensor:
    """Families without a base model, or with a decoder that a prefix has no use for: the language model (its
    encoder, where it has one) reads embeddings in which the pictures are placed.
    """
    pictures = vlm.get_image_features(**given, return_dict=True).pooler_output
    language = vlm.language_model
    reader = language.get_encoder() if language.config.is_encoder_decoder else language.base_model
    x = reader.get_input_embeddings()(ids)
    x = x.masked_scatter(holders.unsqueeze(-1), pictures.to(x.dtype))
    return reader(inputs_embeds=x, attention_mask=mask.long()).last_hidden_state


# ---- sizes


def _merge(config: Any) -> int:
    return config.vision_config.spatial_merge_size


def _clip_tokens(geometry: Geometry) -> int:
    """A patch each; ``full`` keeps the class token too, where the encoder has one (CLIP)."""
    config = geometry.config
    keeps_class = (
        config.vision_feature_select_strategy == "full" and "clip" in config.vision_config.model_type
    )
    return geometry.patches**2 + int(keeps_class)


def _merged_unit(config: Any) -> int:
    return config.vision_config.patch_size * config.vision_config.spatial_merge_size


def _scaled_unit(config: Any) -> int:
    return _patch(config) * config.scale_factor


_CLIP = Pixels(mean=CLIP_MEAN, std=CLIP_STD)
_CLIP_CROP = Pixels(mean=CLIP_MEAN, std=CLIP_STD, fit="crop")
_IMAGENET = Pixels(mean=IMAGENET_MEAN, std=IMAGENET_STD)
_CHATML = "<|im_start|>user\n{images}{instruction}<|im_end|>\n<|im_start|>assistant\n"
_VICUNA = "{bos}USER: {images}\n{instruction} ASSISTANT:"

_SMOLVLM = Family(  # arXiv:2504.05299
    prompt="<|im_start|>User:{images}{instruction}<end_of_utterance>\nAssistant:",
    image="<fake_token_around_image><global-img>{tokens}<fake_token_around_image>",
    num_tokens=lambda g: (g.patches // g.config.scale_factor) ** 2,
    inputs=_nested,
    vision=("vision_model",),
    language=("text_model",),
    unit=_scaled_unit,
    fixed_side=False,
)
_QWEN = Family(  # arXiv:2409.12191, arXiv:2502.13923
    prompt=_CHATML,
    image="<|vision_start|>{tokens}<|vision_end|>",
    num_tokens=lambda g: (g.patches // _merge(g.config)) ** 2,
    pixels=_CLIP,
    inputs=_qwen,
    extras=_rope_positions,
    vision=("visual",),
    connector=("visual.merger", "visual.deepstack_merger_list"),
    unit=_merged_unit,
    fixed_side=False,
)
_BLIP = {
    "num_tokens": lambda g: g.config.num_query_tokens,
    "pixels": _CLIP,
    "encode": _encode_embeddings,
    "vision": ("vision_model",),
    "auto": "AutoModelForImageTextToText",
    "in_rows": False,
    "unused": ("language_model.lm_head", "language_model.decoder", "language_model.shared"),
}

FAMILIES: dict[str, Family] = {
    "llava": Family(  # arXiv:2310.03744
        prompt=_VICUNA, num_tokens=_clip_tokens, pixels=_CLIP_CROP, can_replace_connector=True
    ),
    "llava_next": Family(
        prompt=_VICUNA,
        num_tokens=lambda g: g.tiled,
        pixels=_CLIP,
        inputs=_tiled,
        can_tile=True,
        in_rows=False,
    ),
    "llava_onevision": Family(  # arXiv:2408.03326
        prompt=_CHATML, num_tokens=lambda g: g.tiled, inputs=_tiled, can_tile=True, in_rows=False
    ),
    "blip-2": Family(prompt="{images}{bos}{instruction}\n", **_BLIP),  # arXiv:2301.12597
    "instructblip": Family(  # arXiv:2305.06500
        prompt="{images}{bos}{instruction}\n", asks_with_instruction=True, **_BLIP
    ),
    "idefics2": Family(  # arXiv:2405.02246
        prompt="{bos}User:{images}{instruction}<end_of_utterance>\nAssistant:",
        image="<fake_token_around_image>{tokens}<fake_token_around_image>",
        num_tokens=lambda g: g.config.perceiver_config.resampler_n_latents,
        pixels=Pixels(mode="bilinear"),
        inputs=_nested,
        vision=("vision_model",),
        language=("text_model",),
        unit=_patch,
        fixed_side=False,
        in_rows=False,
    ),
    "idefics3": Family(  # arXiv:2408.12637
        **{
            **_SMOLVLM.__dict__,
            "prompt": "{bos}User:{images}{instruction}<end_of_utterance>\nAssistant:",
        }
    ),
    "smolvlm": _SMOLVLM,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": Family(**{**_QWEN.__dict__, "pixels": Pixels()}),
    "paligemma": Family(  # arXiv:2407.07726
        prompt="{images}{bos}{instruction}\n",
        num_tokens=lambda g: g.patches**2,
        extras=_all_prefix,
        can_replace_connector=True,
    ),
    "gemma3": Family(  # arXiv:2503.19786
        prompt="{bos}<start_of_turn>user\n{images}{instruction}<end_of_turn>\n<start_of_turn>model\n",
        image="\n\n<start_of_image>{tokens}<end_of_image>\n\n",
        num_tokens=lambda g: g.config.mm_tokens_per_image,
        pixels=Pixels(mode="bilinear"),
        extras=_picture_types,
    ),
    "gemma4": Family(
        prompt="{bos}<|turn>user\n{images}{instruction}<turn|>\n<|turn>model\n",
        image="<|image>{tokens}<image|>",
        num_tokens=lambda g: (g.patches // g.config.vision_config.pooling_kernel_size) ** 2,
        pixels=Pixels(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        inputs=_gemma4,
        extras=_mm_types,
        unit=lambda config: config.vision_config.patch_size * config.vision_config.pooling_kernel_size,
        fixed_side=False,
        unused=("audio_tower", "embed_audio"),
    ),
    "internvl": Family(  # arXiv:2504.10479
        prompt=_CHATML,
        image="<img>{tokens}</img>\n",
        num_tokens=lambda g: int(g.patches * g.config.downsample_ratio) ** 2,
        pixels=_IMAGENET,
        unit=lambda config: int(_patch(config) / config.downsample_ratio),
        fixed_side=False,
    ),
    "florence2": Family(  # arXiv:2311.06242; DaViT halves the picture five times
        prompt="{images}{bos}{instruction}{eos}",
        num_tokens=lambda g: (g.side // 32) ** 2 + 1,
        pixels=_IMAGENET,
        encode=_encode_embeddings,
        unit=lambda config: 32,
        fixed_side=False,
        in_rows=False,
        unused=("language_model.decoder", "language_model.shared"),
    ),
    "phi4_multimodal": Family(  # arXiv:2503.01743
        prompt="<|user|>{images}{instruction}<|end|><|assistant|>",
        num_tokens=lambda g: (
            (g.patches // 2 * g.tiles) * (g.patches // 2 * g.tiles + 1)
            + 1
            + (g.patches // 2) * (g.patches // 2 + 1)
        ),
        inputs=_phi4,
        vision=("embed_tokens_extend.image_embed.img_processor",),
        language=("layers", "embed_tokens", "norm"),
        can_tile=True,
        in_rows=False,
        unused=("embed_tokens_extend.audio_embed",),
    ),
}
