"""A vision-language model from a folder or hub name: config adapted, weights checked, ballast removed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoTokenizer
from transformers.modeling_layers import GradientCheckpointingLayer

from vla.errors import CheckpointError, ConfigError
from vla.models.backbones.families import FAMILIES, Family, UnknownBackboneError
from vla.models.backbones.preprocessor import copy_preprocessor
from vla.models.lora import is_within

ASKER_FOLDER = "qformer_tokenizer"  # where InstructBLIP keeps its second tokenizer
_OUTPUT_LAYERS = re.compile(r"(^|\.)lm_head\.|\.inv_freq$|\.position_ids$")
_LAYER = re.compile(r"(?:^|\.)(?:layers|block)\.(\d+)\.")  # T5 calls them blocks


def read_config(source: str) -> Any:
    """The config of a local folder or hub name.

    Raises:
        CheckpointError: there is none, or transformers does not know its ``model_type``.
    """
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"No model config at {source!r} (a local folder with config.json and tokenizer files, or a hub "
            f"name): {error}"
        ) from error


def read_tokenizer(source: str, subfolder: str = "") -> Any:
    """The tokenizer of a local folder or hub name."""
    try:
        return AutoTokenizer.from_pretrained(source, subfolder=subfolder)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"No tokenizer at {source!r} {subfolder}: {error}") from error


def family_of(name: str, config: Any) -> tuple[str, Family]:
    """The table's entry for a config; ``name`` ``auto`` takes it from there.

    Raises:
        UnknownBackboneError: not in the table.
        ConfigError: the checkpoint is of another family than was asked for.
    """
    if config.model_type not in FAMILIES:
        raise UnknownBackboneError(config.model_type, tuple(FAMILIES))
    if name not in ("auto", config.model_type):
        raise ConfigError(
            f"Backbone {name!r} was asked for, but the checkpoint is of the family {config.model_type!r}."
        )
    return config.model_type, FAMILIES[config.model_type]


def cut_layers(config: Any, num_layers: int) -> None:
    """Keep the first ``num_layers`` language layers (of the encoder, in encoder-decoder families), in place.

    Raises:
        ConfigError: there are not that many.
    """
    text = config.get_text_config()
    there = text.num_hidden_layers
    if not 1 <= num_layers <= there:
        raise ConfigError(
            f"num_layers must lie in 1..{there}, the language layers that there are: {num_layers}."
        )
    if _embeds_per_layer(text):
        return  # its embeddings have a part for every layer: drop_layers after loading
    text.num_hidden_layers = num_layers
    if getattr(text, "layer_types", None):
        text.layer_types = list(text.layer_types[:num_layers])


def _embeds_per_layer(text: Any) -> bool:
    return bool(getattr(text, "hidden_size_per_layer_input", 0))  # Gemma 4


def drop_layers(vlm: Any, num_layers: int) -> None:
    """What :func:`cut_layers` left to do once the model is there."""
    if _embeds_per_layer(vlm.config.get_text_config()):
        del vlm.language_model.layers[num_layers:]


def language_attention(config: Any, wanted: str) -> str:
    """The attention that the language part runs where ``wanted`` was asked for: ``eager`` instead of ``sdpa``
    where transformers offers no other (Gemma 2, in PaliGemma 2, caps its scores).
    """
    model = MODEL_MAPPING.get(type(config.get_text_config()), None)
    return "eager" if wanted == "sdpa" and not getattr(model, "_supports_sdpa", True) else wanted


def load_vlm(
    source: str,
    config: Any,
    family: Family,
    *,
    pretrained: bool,
    dtype: torch.dtype,
    attention: str,
    num_layers: int | None = None,
) -> nn.Module:
    """The model that ``config`` describes, with the weights at ``source`` or fresh ones.

    Args:
        num_layers: language layers to which the config was cut; weights of those beyond are left out.

    Raises:
        CheckpointError: a weight is missing, has another shape, or belongs to no part of the model.
        ConfigError: the model does not offer this attention implementation.
    """
    auto = getattr(transformers, family.auto)
    found: dict[str, Any] = {}
    reads = language_attention(config, attention)
    runs: Any = attention if reads == attention else {"": attention, "text_config": reads}
    try:
        if pretrained:
            vlm, found = auto.from_pretrained(
                source, config=config, dtype=dtype, attn_implementation=runs, output_loading_info=True
            )
        else:
            vlm = auto.from_config(config, dtype=dtype, attn_implementation=runs)
    except (ValueError, ImportError) as error:
        raise ConfigError(_not_built(config.model_type, attention, error)) from error
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"The weights at {source!r} cannot be loaded: {error}") from error
    if pretrained:
        _check_weights(source, found, family, num_layers)
    if family.correct is not None:
        family.correct(vlm)
    for path in family.unused:
        parent, _, name = path.rpartition(".")
        owner = vlm.get_submodule(parent)
        if isinstance(getattr(owner, name, None), nn.Module):
            setattr(owner, name, nn.Identity())
    return vlm


def _not_built(kind: str, attention: str, error: Exception) -> str:
    if attention == "flash_attention_2":
        return (
            f"The backbone {kind!r} cannot use flash_attention_2 here: {error} It needs the package "
            "flash-attn, a CUDA device and a model that offers it; attention 'sdpa' runs everywhere."
        )
    return f"The backbone {kind!r} cannot be built: {error}"


def _check_weights(source: str, found: dict[str, Any], family: Family, num_layers: int | None) -> None:
    """Every weight of the model was in the file; what is left over is of language layers that were cut."""
    missing = sorted(name for name in found["missing_keys"] if not _OUTPUT_LAYERS.search(name))
    wrong = sorted(str(name) for name in found["mismatched_keys"])
    left = sorted(
        name
        for name in found["unexpected_keys"]
        if not _OUTPUT_LAYERS.search(name) and not _was_cut(name, family, num_layers)
    )
    for what, names in (("are missing", missing), ("have another shape", wrong), ("fit no part", left)):
        if names:
            raise CheckpointError(f"{len(names)} weights at {source!r} {what}: {names[:5]}.")


def _was_cut(name: str, family: Family, num_layers: int | None) -> bool:
    layer = _LAYER.search(name) if is_within(name.removeprefix("model."), family.language) else None
    return num_layers is not None and layer is not None and int(layer[1]) >= num_layers


def recompute(blocks: Iterable[nn.Module]) -> None:
    """Make blocks known to transformers' gradient checkpointing, which passes over them otherwise."""
    for block in blocks:
        kind = type(block)
        block.__class__ = type(kind.__name__, (GradientCheckpointingLayer, kind), {})


def copy_description(source: str, target: str | Path) -> None:
    """Config, tokenizers and preprocessor (not weights) of ``source`` into the folder ``target``, so that a
    policy saved there is whole.
    """
    config = read_config(source)
    _, family = family_of("auto", config)
    config.save_pretrained(target)
    read_tokenizer(source).save_pretrained(target)
    copy_preprocessor(source, target)
    if family.asks_with_instruction:
        read_tokenizer(source, ASKER_FOLDER).save_pretrained(Path(target) / ASKER_FOLDER)


def _num_layers(names: Iterable[str]) -> int:
    """Layers that these weights are of."""
    found = (_LAYER.search(name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def load_language(part: nn.Module, source: str, family: str) -> None:
    """Give the language part of a fresh model the weights of a causal language model.

    Both must have the same layers, up to those that were cut off. Where the part knows more tokens (those of
    pictures), their embeddings stay fresh.

    Args:
        part: of a vision-language model; changed in place.
        source: local folder or hub name of the language model.
        family: for errors.

    Raises:
        CheckpointError: no such model, or one of another shape.
    """
    try:
        plain = AutoModel.from_pretrained(source, dtype=next(part.parameters()).dtype)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"No language model at {source!r}: {error}") from error
    given, own = plain.state_dict(), part.state_dict()
    words, inner = plain.get_input_embeddings(), part.get_input_embeddings()  # type: ignore[operator]
    name = next(name for name, module in part.named_modules() if module is inner) + ".weight"
    if name in given and len(words.weight) < len(inner.weight):
        given[name] = torch.cat([words.weight, inner.weight[len(words.weight) :]]).detach()
    kept = _num_layers(own)
    given = {n: value for n, value in given.items() if _num_layers([n]) <= kept}  # the others were cut off
    kinds = plain.config.model_type, part.config.model_type  # type: ignore[union-attr]
    if kinds[0] != kinds[1]:
        raise CheckpointError(
            f"The language model at {source!r} is a {kinds[0]!r}, the language part of this {family!r} a "
            f"{kinds[1]!r}."
        )
    wrong = [n for n in own.keys() & given.keys() if own[n].shape != given[n].shape]
    wrong += sorted(own.keys() ^ given.keys())
    if wrong:
        raise CheckpointError(
            f"The language model at {source!r} has other layers than the language part of this {family!r}: "
            f"{len(wrong)} weights differ in name or shape, such as {wrong[:3]}."
        )
    part.load_state_dict(given, strict=True)
