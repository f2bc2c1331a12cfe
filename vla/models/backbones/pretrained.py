"""PretrainedVLM: any of transformers' vision-language models as a backbone, all shapes fixed by its settings.

    pictures ─► resize, normalise, patchify ─┐
    prompt head | instruction, padded ───────┴► vision-language model ─► hidden states ─► prefix features

A camera that is missing keeps its place; its tokens are masked, for the language model and for the heads.

Shapes: B batch, C cameras, L text tokens (``max_tokens``), P prompt tokens (head and text), D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vla.errors import ConfigError, ObservationError, UnknownNameError
from vla.models.backbones.families import FAMILIES, Family, check_prompt
from vla.models.backbones.inputs import Geometry, encode_base, frames
from vla.models.backbones.interface import PrefixFeatures, check_pictures
from vla.models.backbones.loading import (
    ASKER_FOLDER,
    cut_layers,
    drop_layers,
    family_of,
    load_language,
    load_vlm,
    read_config,
    read_tokenizer,
    recompute,
)
from vla.models.backbones.pixels import prepare, whole
from vla.models.backbones.preprocessor import read_pixels
from vla.models.backbones.prompt import PromptTokenizer
from vla.models.backbones.settings import from_settings
from vla.models.backbones.words import Tokens
from vla.models.downsample import ConnectorName, build_connector
from vla.models.lora import LoraConfig, add_lora, freeze
from vla.models.tokens import visual_grid

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ATTENTIONS = ("sdpa", "eager", "flash_attention_2")
_DEFAULT_SIDE = 224  # px, of families that take any size


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig:
    """Settings of a :class:`PretrainedVLM`; JSON-able.

    Args:
        model: local folder or hub name with config, tokenizer and weights.
        pretrained: false: fresh weights for that config.
        embodiments, camera_roles: names by id; one picture a role.
        image_size: side that the model sees, px (None: the config's, or 224 rounded to what fits).
        tiles: shows each picture whole and in ``tiles`` * ``tiles`` parts of that side, for families that can
            (docs/backbones.md says what each was trained with). More is seen, in as many times the time.
        max_tokens: of the prompt behind the pictures; longer instructions lose words, which are reported.
        prompt: instead of the family's; see :class:`vla.models.backbones.families.Family`.
        num_layers: use the first N language layers alone (None: all).
        freeze: ``vision``, ``language``, ``all`` or ``none``. LoRA weights are trained in any case.
        lora: arguments of :class:`vla.models.lora.LoraConfig`, for the language part.
        language: local folder or hub name of a causal language model whose weights the language part starts
            from, where the rest has fresh ones; see :func:`vla.models.backbones.loading.load_language`.
        dtype: of the model's weights; features come out in float32.
        attention: ``sdpa`` (``eager`` in a language part that transformers offers no other for), ``eager`` or
            ``flash_attention_2`` (its package, CUDA and a 16-bit dtype).
        gradient_checkpointing: recompute layers in the backward pass instead of keeping them.
        four_bit: language weights in 4-bit blocks, frozen (arXiv:2305.14314); needs bitsandbytes.
        connector: ``own``, or MobileVLM's light down-sampling ``ldp`` or ``ldpv2`` (a quarter of the tokens).
    """

    model: str
    pretrained: bool = True
    embodiments: tuple[str, ...] = ("unknown",)
    camera_roles: tuple[str, ...] = ("front", "wrist")
    image_size: int | None = None
    tiles: int = 1
    max_tokens: int = 48
    prompt: str | None = None
    num_layers: int | None = None
    freeze: Literal["none", "vision", "language", "all"] = "none"
    lora: Mapping[str, Any] | None = None
    language: str | None = None
    dtype: str = "float32"
    attention: str = "sdpa"
    gradient_checkpointing: bool = False
    four_bit: bool = False
    connector: ConnectorName = "own"

    def __post_init__(self) -> None:
        for kind, given, known in (
            ("dtype", self.dtype, _DTYPES),
            ("part to freeze", self.freeze, ("none", "vision", "language", "all")),
            ("connector", self.connector, ("own", "ldp", "ldpv2")),
            ("attention", self.attention, _ATTENTIONS),
        ):
            if given not in known:
                raise UnknownNameError(kind, given, known)
        if not self.camera_roles or not self.embodiments or self.max_tokens < 1 or self.tiles < 1:
            raise ConfigError(
                "A backbone needs a camera, an embodiment, max_tokens >= 1 and tiles >= 1: "
                f"{self.camera_roles}, {self.embodiments}, {self.max_tokens}, {self.tiles}."
            )
        if self.attention == "flash_attention_2" and self.dtype == "float32":
            raise ConfigError("flash_attention_2 computes in 16 bits: set dtype to bfloat16 or float16.")
        if self.language is not None and self.pretrained:
            raise ConfigError(
                "`language` starts the language part of a model whose weights are fresh: set `pretrained` to "
                "false, or leave `language` out."
            )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> PretrainedConfig:
        """Strict: unknown keys raise UnknownNameError, a missing ``model`` ConfigError."""
        return from_settings(cls, "pretrained", settings, {"model": "a local folder or hub name"})


def choose_side(family: Family, config: Any, settings: PretrainedConfig) -> int:
    """Side of the pictures that the model sees, px; adapts ``config`` where fresh weights allow it.

    Raises:
        ConfigError: a side that the vision encoder cannot take.
    """
    vision = config.vision_config
    own = getattr(vision, "image_size", None)
    own = own[0] if isinstance(own, (list, tuple)) else own
    side = settings.image_size or own
    if family.unit is not None:
        unit = family.unit(config)
        side = side or max(1, round(_DEFAULT_SIDE / unit)) * unit
        if side % unit:
            raise ConfigError(f"image_size must be a multiple of {unit} px for {config.model_type}: {side}.")
    assert side is not None
    if own is not None and side != own and family.fixed_side:
        if settings.pretrained:
            raise ConfigError(
                f"{config.model_type} at {settings.model!r} was trained on pictures of {own} px and its "
                f"learned positions fit no other size: leave image_size out or say {own} (given: {side})."
            )
        vision.image_size = side
    return side


class PretrainedVLM(nn.Module):
    """Images, instruction and embodiment -> prefix features (see :class:`vla.models.backbones.Backbone`).

    The embodiment becomes one more token behind those of the prompt; features [B P+1 D], mask always given.
    """

    head_ids_1H: Tensor
    head_camera_H: Tensor
    visual_VRC: Tensor
    holders_1P: Tensor

    def __init__(self, name: str, settings: PretrainedConfig) -> None:
        super().__init__()
        config = read_config(settings.model)
        self.name, self.family = family_of(name, config)
        self.settings, family = settings, self.family
        most = 1 if family.tiling is None else family.max_tiles
        if settings.tiles > most:
            raise ConfigError(
                f"The family {self.name!r} is shown pictures in {most} x {most} tiles at most: tiles must be "
                f"1..{most}, not {settings.tiles}."
            )
        if settings.connector != "own" and not family.can_replace_connector:
            able = [name for name, known in FAMILIES.items() if known.can_replace_connector]
            raise ConfigError(f"The connector of {self.name!r} cannot be replaced; of these it can: {able}.")
        if settings.num_layers is not None:
            cut_layers(config, settings.num_layers)
        side = choose_side(family, config, settings)
        self.geometry = Geometry(config, side, settings.tiles)
        fixed = side if family.fixed_side and settings.pretrained else None
        self.pixels, self.pixels_from = read_pixels(settings.model, family, config, fixed)
        if family.tiling is not None and hasattr(config, "image_grid_pinpoints"):
            config.image_grid_pinpoints = [[side * settings.tiles] * 2]
        self.vlm: Any = load_vlm(
            settings.model,
            config,
            family,
            pretrained=settings.pretrained,
            dtype=_DTYPES[settings.dtype],
            attention=settings.attention,
            num_layers=settings.num_layers,
        )
        if settings.num_layers is not None:
            drop_layers(self.vlm, settings.num_layers)
        if settings.language is not None:
            load_language(self.vlm.get_submodule(family.language[0]), settings.language, self.name)
        self.image_text = family.image_text(settings.tiles)
        self.num_holders = family.num_tokens(self.geometry)
        if settings.connector != "own":
            self.vlm.multi_modal_projector = build_connector(
                settings.connector, config.vision_config.hidden_size, config.get_text_config().hidden_size
            ).to(_DTYPES[settings.dtype])
            self.num_holders = (self.geometry.patches // 2) ** 2
        self.num_image_tokens = self.num_holders * self.image_text.count("{tokens}")
        self._prepare_prompt(config)
        self.width: int = config.get_text_config().hidden_size
        self.embodiment = nn.Embedding(len(settings.embodiments), self.width)
        nn.init.normal_(self.embodiment.weight, std=0.02)
        self._prepare_training()

    def _prepare_prompt(self, config: Any) -> None:
        settings, family = self.settings, self.family
        if settings.prompt is not None:
            check_prompt(settings.prompt)
        holder = getattr(config, "image_token_id", None)
        holder = config.vision_config.image_token_id if holder is None else holder
        self.tokenizer = PromptTokenizer(
            read_tokenizer(settings.model),
            settings.prompt or family.prompt,
            self.image_text,
            settings.max_tokens,
            holder,
        )
        self.asker: PromptTokenizer | None = None
        if family.asks_with_instruction:
            asker = read_tokenizer(settings.model, ASKER_FOLDER)
            self.asker = PromptTokenizer(asker, "{images}{instruction}", "{tokens}", settings.max_tokens, -1)
        head = self.tokenizer.head(len(settings.camera_roles), self.num_holders)
        text = torch.zeros(1, settings.max_tokens, dtype=torch.bool)
        holders = torch.cat([torch.from_numpy(head.holders)[None], text], dim=1)
        self._constant("head_ids_1H", torch.from_numpy(head.ids)[None])
        self._constant("head_camera_H", torch.from_numpy(head.camera))
        self._constant("holders_1P", holders)
        cells = family.cells if settings.tiles == 1 else None
        self._constant("visual_VRC", visual_grid(holders[0], len(settings.camera_roles), cells))
        ids_1P = torch.cat([self.head_ids_1H, torch.zeros_like(text, dtype=torch.long)], dim=1)
        extras = family.extras(holders, ids_1P, self.geometry, self.vlm) if family.extras else {}
        self._extras = tuple(extras)
        for name, value in extras.items():
            self._constant(f"extra_{name}", value)

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def _prepare_training(self) -> None:
        settings, family = self.settings, self.family
        if settings.lora is not None:
            add_lora(self.vlm, LoraConfig.from_settings(settings.lora), within=family.language)
        frozen = {
            "none": (),
            "vision": family.vision,
            "language": family.language,
            "all": ("",),
        }[settings.freeze]
        self._frozen = freeze(self.vlm, frozen, but=family.connector if settings.freeze == "vision" else ())
        if settings.four_bit:
            from vla.models.four_bit import to_four_bit

            to_four_bit(self.vlm, within=family.language)
        if settings.gradient_checkpointing:
            recompute(family.blocks(self.vlm) if family.blocks else ())
            self.vlm.activation_checkpointing_enable({"use_reentrant": False})

    @property
    def max_tokens(self) -> int:
        return self.settings.max_tokens * (1 if self.asker is None else 2)

    def tokenize(self, instructions: list[str]) -> Tokens:
        """Rows of ``max_tokens`` (of twice that where the pictures' tokens are asked for by instruction)."""
        tokens = self.tokenizer.encode(instructions)
        if self.asker is None:
            return tokens
        asked = self.asker.encode(instructions)
        return Tokens(
            np.concatenate([tokens.ids, asked.ids], axis=1),
            np.concatenate([tokens.mask, asked.mask], axis=1),
            tokens.unknown,
        )

    def forward(
        self,
        images: Tensor,
        image_mask: Tensor | None,
        token_ids: Tensor,
        token_mask: Tensor,
        embodiment_id: Tensor,
    ) -> PrefixFeatures:
        """uint8 [B C H W 3], bool [B C], int64 [B L], bool [B L], int64 [B] -> features [B P+1 D], mask.

        Raises:
            ObservationError: pictures that are not uint8, another number of cameras or of tokens than the
                settings say.
        """
        batch, cameras = images.shape[:2]
        self._check(images, token_ids.shape[1])
        there = images.new_ones(batch, cameras, dtype=torch.bool) if image_mask is None else image_mask
        there = torch.cat([there.new_ones(batch, 1), there], dim=1)  # what belongs to no camera is there
        text = self.settings.max_tokens
        ids_BP = torch.cat([self.head_ids_1H.expand(batch, -1), token_ids[:, :text]], dim=1)
        mask_BP = torch.cat([there[:, self.head_camera_H], token_mask[:, :text]], dim=1)
        given = self._given(images)
        if self.asker is not None:
            given["qformer_input_ids"] = token_ids[:, text:].repeat_interleave(cameras, dim=0)
            given["qformer_attention_mask"] = token_mask[:, text:].long().repeat_interleave(cameras, dim=0)
        encode = self.family.encode or encode_base
        hidden_BPD = encode(self.vlm, ids_BP, mask_BP, self.holders_1P.expand(batch, -1), given)
        body_BD = self.embodiment(embodiment_id)
        hidden_BPD = hidden_BPD.to(body_BD.dtype).masked_fill(~mask_BP[..., None], 0.0)
        mask = torch.cat([mask_BP, mask_BP.new_ones(batch, 1)], dim=1)
        return PrefixFeatures(torch.cat([hidden_BPD, body_BD[:, None]], dim=1), mask, visual=self.visual_VRC)

    def _given(self, images: Tensor) -> dict[str, Tensor]:
        """Everything the model is told besides ids and mask."""
        batch, cameras = images.shape[:2]
        tiling, side = self.family.tiling or whole, self.geometry.side
        x = prepare(images.flatten(0, 1), side, self.pixels, tiles=self.settings.tiles, tiling=tiling)
        x = x.to(self.vlm.dtype).unflatten(0, (batch, cameras))
        given = (self.family.inputs or frames)(x, self.geometry)
        for name in self._extras:
            value = getattr(self, f"extra_{name}")
            given[name] = value.expand(*value.shape[:-2], batch, value.shape[-1])
        return given

    def _check(self, images: Tensor, tokens: int) -> None:
        check_pictures(images)
        cameras = images.shape[1]
        wanted = self.max_tokens
        if cameras != len(self.settings.camera_roles) or tokens != wanted:
            raise ObservationError(
                f"This backbone takes pictures of {self.settings.camera_roles} and {wanted} tokens a row (as "
                f"tokenize() gives); given were {cameras} pictures and {tokens} tokens."
            )

    def train(self, mode: bool = True) -> PretrainedVLM:
        """Frozen parts stay in evaluation mode: no dropout there."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self
