"""The table of vision-language families: how each wants pixels, where pictures stand in its prompt, and where
its hidden states come out. One entry is all that a new family needs (see docs/backbones.md).

Names are transformers' ``model_type``. Prompts are the ones that the released instruction-tuned checkpoints
were trained with; ``prompt`` in the backbone's settings replaces them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal

from torch import Tensor, nn

from vla.errors import ConfigError, UnknownNameError
from vla.models.backbones import inputs
from vla.models.backbones.inputs import Geometry, merge_size, patch_side, square
from vla.models.backbones.pixels import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Pixels,
    Tiling,
    quarters_and_whole,
    tiles_and_shrunk,
    tiles_and_whole,
    whole_and_tiles,
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family.

    Args:
        prompt: ``{images}`` is where the pictures stand, ``{instruction}`` the sentence; ``{bos}`` and
            ``{eos}`` are the tokenizer's.
        image: one picture, or the same by tiles a side; each ``{tokens}`` in it stands for placeholders.
        num_tokens: placeholders for each ``{tokens}``.
        pixels: resize and colours, where the checkpoint has no file of its own.
        inputs: pixels [B C T 3 S S] and geometry -> the model's own keyword arguments.
        extras: which prompt tokens are placeholders, bool [1 P], the prompt's ids int64 [1 P], geometry and
            model -> further keyword arguments; constants whose batch dimension (the last but one) is 1.
        encode: how hidden states are had from the model.
        correct: puts right, after loading, what transformers computes otherwise than the released model.
        vision, language: names of submodules, for ``freeze`` and LoRA; ``connector``: those of the vision
            part that belong to neither.
        unit: sides of pictures are multiples of this, px.
        fixed_side: learned positions fit the config's picture size alone.
        tiling: how pictures are cut, for families that take ``tiles``; ``max_tiles`` a side.
        can_replace_connector: takes another ``multi_modal_projector``.
        unused: submodules that the policy never calls; taken out after loading.
        auto: transformers' Auto class that loads it.
        asks_with_instruction: the picture's tokens depend on the instruction (InstructBLIP's Q-Former).
        cells: number of a picture's tokens -> which of them are patches, int64 [views rows columns], where it
            is not cut; None: they are no grid.
        blocks: of the vision part, those that transformers does not recompute under gradient checkpointing.
    """

    prompt: str
    image: str | Callable[[int], str] = "{tokens}"
    num_tokens: Callable[[Geometry], int]
    pixels: Pixels = field(default_factory=Pixels)
    inputs: Callable[[Tensor, Geometry], dict[str, Tensor]] | None = None
    extras: Callable[[Tensor, Tensor, Geometry, nn.Module], dict[str, Tensor]] | None = None
    encode: Callable[..., Tensor] | None = None
    correct: Callable[[nn.Module], None] | None = None
    vision: tuple[str, ...] = ("vision_tower",)
    language: tuple[str, ...] = ("language_model",)
    connector: tuple[str, ...] = ()
    unit: Callable[[Any], int] | None = None
    fixed_side: bool = True
    tiling: Tiling | None = None
    max_tiles: int = 6
    can_replace_connector: bool = False
    unused: tuple[str, ...] = ()
    auto: Literal["AutoModel", "AutoModelForImageTextToText"] = "AutoModel"
    asks_with_instruction: bool = False
    cells: Callable[[int], Tensor | None] | None = square
    blocks: Callable[[Any], Iterable[nn.Module]] | None = None

    def image_text(self, tiles: int) -> str:
        """One picture in ``tiles`` * ``tiles`` parts."""
        return self.image if isinstance(self.image, str) else self.image(tiles)


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


def _smolvlm_image(tiles: int) -> str:
    """Each tile says its row and column; the picture as a whole comes last."""
    whole = "<fake_token_around_image><global-img>{tokens}<fake_token_around_image>"
    if tiles == 1:
        return whole
    side = range(1, tiles + 1)
    cell = "<fake_token_around_image><row_{}_col_{}>{{tokens}}"
    return "".join("".join(cell.format(r, c) for c in side) + "\n" for r in side) + "\n" + whole


def _idefics2_image(tiles: int) -> str:
    return "{tokens}<fake_token_around_image>" * Geometry(None, 0, tiles).views


_CLIP = Pixels(mean=CLIP_MEAN, std=CLIP_STD)
_CHATML = "<|im_start|>user\n{images}{instruction}<|im_end|>\n<|im_start|>assistant\n"
_VICUNA = "{bos}USER: {images}\n{instruction} ASSISTANT:"

_LLAVA = Family(  # arXiv:2310.03744
    prompt=_VICUNA,
    num_tokens=inputs.clip_tokens,
    pixels=replace(_CLIP, fit="crop"),
    can_replace_connector=True,
)
_LLAVA_NEXT = Family(
    prompt=_VICUNA,
    num_tokens=lambda g: g.tiled,
    pixels=_CLIP,
    inputs=inputs.tiled_frames,
    tiling=whole_and_tiles,
    cells=inputs.square_and_rows,
)
_BLIP2 = Family(  # arXiv:2301.12597
    prompt="{images}{bos}{instruction}\n",
    num_tokens=lambda g: g.config.num_query_tokens,
    pixels=_CLIP,
    encode=inputs.encode_embeddings,
    vision=("vision_model",),
    auto="AutoModelForImageTextToText",
    cells=None,
    unused=("language_model.lm_head", "language_model.decoder", "language_model.shared"),
)
_SMOLVLM = Family(  # arXiv:2504.05299
    prompt="<|im_start|>User:{images}{instruction}<end_of_utterance>\nAssistant:",
    image=_smolvlm_image,
    num_tokens=lambda g: (g.patches // g.config.scale_factor) ** 2,
    pixels=Pixels(mode="lanczos"),
    inputs=inputs.nested_frames,
    vision=("vision_model",),
    language=("text_model",),
    unit=inputs.scaled_unit,
    fixed_side=False,
    tiling=tiles_and_shrunk,
)
_QWEN = Family(  # arXiv:2409.12191, arXiv:2502.13923
    prompt=_CHATML,
    image="<|vision_start|>{tokens}<|vision_end|>",
    num_tokens=lambda g: (g.patches // merge_size(g.config)) ** 2,
    pixels=_CLIP,
    inputs=inputs.qwen_patches,
    extras=inputs.rope_positions,
    vision=("visual",),
    connector=("visual.merger", "visual.deepstack_merger_list"),
    unit=inputs.merged_unit,
    fixed_side=False,
)

FAMILIES: dict[str, Family] = {
    "llava": _LLAVA,
    "llava_next": _LLAVA_NEXT,
    "llava_onevision": replace(_LLAVA_NEXT, prompt=_CHATML, pixels=Pixels()),  # arXiv:2408.03326
    "blip-2": _BLIP2,
    "instructblip": replace(_BLIP2, asks_with_instruction=True),  # arXiv:2305.06500
    "idefics2": Family(  # arXiv:2405.02246
        prompt="{bos}User:<fake_token_around_image>{images} {instruction}<end_of_utterance>\nAssistant:",
        image=_idefics2_image,
        num_tokens=lambda g: g.config.perceiver_config.resampler_n_latents,
        pixels=Pixels(mode="bilinear"),
        inputs=inputs.nested_frames,
        vision=("vision_model",),
        language=("text_model",),
        unit=patch_side,
        fixed_side=False,
        tiling=quarters_and_whole,
        max_tiles=2,
        cells=None,
    ),
    "idefics3": replace(  # arXiv:2408.12637
        _SMOLVLM, prompt="{bos}User:{images}{instruction}<end_of_utterance>\nAssistant:"
    ),
    "smolvlm": _SMOLVLM,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": replace(_QWEN, pixels=Pixels()),
    "paligemma": Family(  # arXiv:2407.07726
        prompt="{images}{bos}{instruction}\n",
        num_tokens=lambda g: g.patches**2,
        extras=inputs.all_prefix,
        can_replace_connector=True,
    ),
    "gemma3": Family(  # arXiv:2503.19786
        prompt="{bos}<start_of_turn>user\n{images}{instruction}<end_of_turn>\n<start_of_turn>model\n",
        image="\n\n<start_of_image>{tokens}<end_of_image>\n\n",
        num_tokens=lambda g: g.config.mm_tokens_per_image,
        pixels=Pixels(mode="bilinear"),
        extras=inputs.picture_types,
    ),
    "gemma4": Family(
        prompt="{bos}<|turn>user\n{images}{instruction}<turn|>\n<|turn>model\n",
        image="<|image>{tokens}<image|>",
        num_tokens=lambda g: (g.patches // g.config.vision_config.pooling_kernel_size) ** 2,
        pixels=Pixels(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        inputs=inputs.gemma4_patches,
        extras=inputs.mm_types,
        unit=lambda config: config.vision_config.patch_size * config.vision_config.pooling_kernel_size,
        fixed_side=False,
        unused=("audio_tower", "embed_audio"),
    ),
    "internvl": Family(  # arXiv:2504.10479
        prompt=_CHATML,
        image="<img>{tokens}</img>\n",
        num_tokens=lambda g: int(g.patches * g.config.downsample_ratio) ** 2 * g.views,
        pixels=Pixels(mean=IMAGENET_MEAN, std=IMAGENET_STD),
        unit=lambda config: int(patch_side(config) / config.downsample_ratio),
        fixed_side=False,
        tiling=tiles_and_whole,
    ),
    "florence2": Family(  # arXiv:2311.06242; DaViT halves the picture five times
        prompt="{images}{bos}{instruction}{eos}",
        num_tokens=lambda g: (g.side // 32) ** 2 + 1,
        pixels=Pixels(mean=IMAGENET_MEAN, std=IMAGENET_STD),
        encode=inputs.encode_embeddings,
        unit=lambda config: 32,
        fixed_side=False,
        blocks=lambda vlm: chain.from_iterable(vlm.vision_tower.blocks),
        unused=("language_model.decoder", "language_model.shared"),
    ),
    "phi4_multimodal": Family(  # arXiv:2503.01743
        prompt="<|user|>{images}{instruction}<|end|><|assistant|>",
        num_tokens=inputs.phi4_tokens,
        inputs=inputs.phi4_frames,
        correct=inputs.see_both_ways,
        vision=("embed_tokens_extend.image_embed.img_processor",),
        language=("layers", "embed_tokens", "norm"),
        tiling=whole_and_tiles,
        cells=inputs.phi4_rows,
        unused=("embed_tokens_extend.audio_embed",),
    ),
}
