"""A pretrained vision-language backbone as a recipe describes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: str = "sdpa"
    gradient_checkpointing: bool = False
    four_bit: bool = False
    connector: Literal["own", "ldp", "ldpv2"] = "own"


def vlm_settings(config: TrainConfig, embodiments: Sequence[str]) -> dict[str, Any]:
    """``PolicyNetConfig.backbone_settings`` of a recipe whose backbone is not ``tiny``.

    Raises:
        ConfigError: settings that such a backbone cannot be trained with.
    """
    name, vlm = config.model.backbone, config.model.vlm
    if name == "in_context":
        raise ConfigError(
            "A recipe cannot train the backbone 'in_context': nothing shows it demonstrations yet."
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
