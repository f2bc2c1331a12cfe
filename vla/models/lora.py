"""Low-rank adapters (LoRA, arXiv:2106.09685) through peft, and what stays frozen."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from vla.errors import ConfigError, UnknownNameError

ALL_LINEAR = "all-linear"


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Size and place of the adapters.

    Args:
        rank: of each update, >= 1.
        alpha: the update is scaled by alpha / rank.
        dropout: of the adapters' input, 0..1.
        targets: last parts of the names of linear layers (``q_proj``), or ``all-linear``.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = (ALL_LINEAR,)

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1 or not self.targets:
            raise ConfigError(f"LoRA needs rank >= 1, alpha > 0, dropout in 0..1 and targets: {self}.")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> LoraConfig:
        """Strict: unknown keys raise."""
        known = [f.name for f in fields(cls)]
        for key in settings:
            if key not in known:
                raise UnknownNameError("LoRA setting", key, known)
        values: dict[str, Any] = {key: tuple(v) if key == "targets" else v for key, v in settings.items()}
        return cls(**values)


def is_within(name: str, parts: Sequence[str]) -> bool:
    """Whether a dotted name is one of the parts or below it; ``""`` holds everything."""
    return any(not part or name == part or name.startswith(part + ".") for part in parts)


def add_lora(model: nn.Module, config: LoraConfig, within: Sequence[str] = ("",)) -> list[str]:
    """Wrap linear layers in place, all else frozen by nobody; the names of those wrapped.

    The model computes the same as before until an adapter learns. Its state dict gains ``lora_A``,
    ``lora_B`` and calls the wrapped weights ``base_layer``.

    Raises:
        ConfigError: a target that is no linear layer of these parts.
    """
    import peft

    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and is_within(name, within)
    ]
    chosen = [
        name for name in linear if ALL_LINEAR in config.targets or name.rpartition(".")[2] in config.targets
    ]
    found = {name.rpartition(".")[2] for name in chosen}
    missing = [target for target in config.targets if target != ALL_LINEAR and target not in found]
    if missing or not chosen:
        known = sorted({name.rpartition(".")[2] for name in linear})
        raise ConfigError(
            f"LoRA targets {missing} name no linear layer of {tuple(within)}; there are {known}."
        )
    needed = {name: weight.requires_grad for name, weight in model.named_parameters()}
    peft_config = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # declared an int, used as a factor
        lora_dropout=config.dropout,
        target_modules="|".join(
            re.escape(name) for name in chosen
        ),  # whole names: a list would match endings
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # peft's hints on merging tied weights, which this package does itself
        peft.inject_adapter_in_model(peft_config, model)
    for name, weight in model.named_parameters():  # peft froze the rest; whether to is freeze's business
        if not is_adapter(name):
            weight.requires_grad_(needed[name.replace(".base_layer", "")])
    return chosen


def is_adapter(name: str) -> bool:
    """Whether a parameter's name is that of an adapter."""
    return ".lora_" in name


def merge_lora(model: nn.Module) -> int:
    """Fold the adapters into the weights they adapt, in place; how many. The model has plain layers again."""
    from peft.tuners.lora import LoraLayer

    wrapped = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    for name, module in wrapped:
        module.merge()  # type: ignore[operator]
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, module.get_base_layer())
    return len(wrapped)


def freeze(model: nn.Module, parts: Sequence[str], but: Sequence[str] = ()) -> list[nn.Module]:
    """No gradients for these parts, adapters excepted; the modules that hold nothing left to learn.

    Raises:
        ConfigError: a part that the model has not.
    """
    modules = dict(model.named_modules())
    for part in parts:
        if part not in modules:
            raise ConfigError(
                f"There is no part {part!r} to freeze; there are {sorted(dict(model.named_children()))}."
            )
    for name, weight in model.named_parameters():
        if is_within(name, parts) and not is_within(name, but) and not is_adapter(name):
            weight.requires_grad_(False)
    return [
        module
        for name, module in modules.items()
        if is_within(name, parts)
        and not is_within(name, but)
        and not any(weight.requires_grad for weight in module.parameters())
    ]


def trainable(model: nn.Module) -> dict[str, torch.nn.Parameter]:
    """Parameters that learn, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
