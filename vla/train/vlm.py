"""A pretrained vision-language backbone as a recipe describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from vla.errors import ConfigError
from vla.models.lora import LoraConfig

if TYPE_CHECKING:
    from vla.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class VLMConfig:
    """Where a backbone of transformers comes from, and how it is used.

    Args:
        model: local folder or hub name with config, tokenizer and weights.
        pretrained: false: fresh weights for that config.
        image_size: side that the model sees, px (None: its own).
        freeze: ``vision``, ``language``, ``all`` or ``none``: what no stage trains, adapters excepted.
        lora: adapters in the language part (None: none).
        four_bit: language weights in 4-bit blocks (needs ``vla[quant]``).
        gradient_checkpointing: recompute layers in the backward pass: same gradients, less memory, more time.
        language: weights that the language part starts from, where the rest has fresh ones.
        tiles, max_tokens, prompt, num_layers, dtype, attention, connector: see
            :class:`vla.models.backbones.pretrained.PretrainedConfig`.
    """

    model: str
    pretrained: bool = True
    image_size: int | None = None
    tiles: int = 1
    max_tokens: int = 48
    prompt: str | None = None
    num_layers: int | None = None
    freeze: Literal["none", "vision", "language", "all"] = "none"
    lora: LoraConfig | None = None
    language: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: str = "sdpa"
    gradient_checkpointing: bool = False
    four_bit: bool = False
    connector: Literal["own", "ldp", "ldpv2"] = "own"


@dataclass(frozen=True, kw_only=True)
class ExamplesConfig:
    """Example episodes in the prompt; see :class:`vla.models.backbones.in_context.InContextConfig`.

    Args:
        num_episodes, num_steps: shown with every sample: other episodes of its task, steps spread over each.
        num_latents, num_layers, num_heads: of what reads them.
        hidden_share: of training samples that are shown none, so that the policy works without, too.
    """

    num_episodes: int = 2
    num_steps: int = 4
    num_latents: int = 8
    num_layers: int = 2
    num_heads: int = 4
    hidden_share: float = 0.1

    def __post_init__(self) -> None:
        if min(self.num_episodes, self.num_steps, self.num_latents, self.num_layers, self.num_heads) < 1:
            raise ConfigError(f"Examples need 1 or more of everything that is counted: {self}.")
        if not 0 <= self.hidden_share < 1:
            raise ConfigError(f"hidden_share is a share of samples, in [0, 1): {self.hidden_share}.")


def with_examples(
    examples: ExamplesConfig, base: str, settings: Mapping[str, Any], *, state_dim: int, action_dim: int
) -> dict[str, Any]:
    """Settings of a backbone ``in_context`` around this one."""
    sizes = {key: value for key, value in asdict(examples).items() if key != "hidden_share"}
    return {
        "base": base,
        "base_settings": dict(settings),
        "state_dim": state_dim,
        "action_dim": action_dim,
        **sizes,
    }


def vlm_notes(config: TrainConfig) -> list[str]:
    """What a person should know of the backbone: how pictures are prepared where no file of its says so, and
    where another attention runs than was asked for.
    """
    vlm = config.model.vlm
    if vlm is None:
        return []
    from vla.models.backbones.loading import family_of, language_attention, read_config
    from vla.models.backbones.preprocessor import DEFAULTS, read_pixels

    described = read_config(vlm.model)
    name, family = family_of("auto", described)
    pixels, origin = read_pixels(vlm.model, family, described)
    notes = []
    if origin == DEFAULTS:
        notes.append(
            f"{vlm.model} has no preprocessor file: pictures are prepared as usual for {name!r} ({pixels})"
        )
    runs = language_attention(described, vlm.attention)
    if runs != vlm.attention:
        notes.append(f"the language part of {vlm.model} has no {vlm.attention} attention and runs {runs}")
    return notes


def vlm_settings(config: TrainConfig, embodiments: Sequence[str]) -> dict[str, Any]:
    """``PolicyNetConfig.backbone_settings`` of a recipe whose backbone is not ``tiny``.

    Raises:
        ConfigError: settings that such a backbone cannot be trained with.
    """
    name, vlm = config.model.backbone, config.model.vlm
    if name == "in_context":
        raise ConfigError(
            "Name the backbone that sees in model.backbone, and set model.examples: it then reads examples."
        )
    if vlm is None:
        raise ConfigError(
            f"The backbone {name!r} needs model.vlm: at least vlm.model, a local folder or hub name."
        )
    if config.model.locate_by_sight:
        raise ConfigError(
            f"The backbone {name!r} has no keypoint tokens: set model.locate_by_sight to false."
        )
    augments = [stage.augment or config.augment for stage in config.schedule]
    if any(augment.word_dropout for augment in augments):
        raise ConfigError(
            f"The backbone {name!r} has tokens of its own, none of which means 'unknown word': set "
            "augment.word_dropout to 0 in every stage."
        )
    own = json.loads(json.dumps(asdict(vlm)))
    return {**own, "embodiments": list(embodiments), "camera_roles": list(config.data.camera_roles)}
