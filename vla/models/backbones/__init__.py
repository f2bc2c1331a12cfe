"""Backbones: real transformers models behind one small adapter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla.errors import ConfigError, UnknownNameError
from vla.models.backbones.families import FAMILIES, Family, UnknownBackboneError, register_family
from vla.models.backbones.interface import Backbone, PrefixFeatures

__all__ = [
    "Backbone",
    "Family",
    "PrefixFeatures",
    "backbone_names",
    "build_backbone",
    "keep_description",
    "register_family",
    "with_description",
]

#: Backbones without pretrained weights; their settings are those of ``TinyVLMConfig``.
FROM_SCRATCH = ("tiny", "patches")
DESCRIPTION = "backbone"  # folder beside a policy's weights


def backbone_names() -> tuple[str, ...]:
    """What ``build_backbone`` knows; ``auto`` reads the family from the checkpoint."""
    return (*FROM_SCRATCH, "in_context", "auto", *FAMILIES)


def build_backbone(name: str, config: Mapping[str, Any]) -> Backbone:
    """A backbone by name.

    Args:
        name: one of ``backbone_names()``.
        config: its own settings: for ``tiny`` and ``patches`` the arguments of ``TinyVLMConfig``, for
            ``in_context`` those of ``InContextConfig``, else those of ``PretrainedConfig``;
            unknown keys raise.

    Raises:
        UnknownBackboneError: not known; says which are and how to add one.
        ConfigError, CheckpointError, MissingExtraError: see the backbone's own module.
    """
    if name in FROM_SCRATCH:
        return _build_small(name, config)
    if name == "in_context":
        from vla.models.backbones.in_context import InContextBackbone, InContextConfig

        return InContextBackbone(InContextConfig.from_settings(config))
    if name != "auto" and name not in FAMILIES:
        raise UnknownBackboneError(name, backbone_names())
    from vla.models.backbones.pretrained import PretrainedConfig, PretrainedVLM

    return PretrainedVLM(name, PretrainedConfig.from_settings(config))


def _build_small(name: str, config: Mapping[str, Any]) -> Backbone:
    from vla.models.backbones.patches import PatchVLM
    from vla.models.backbones.tiny import TinyVLM, TinyVLMConfig

    known = set(TinyVLMConfig.__init__.__annotations__) - {"return", "kwargs"}
    for key in config:
        if key not in known:
            raise UnknownNameError(f"{name} backbone setting", key, known)
    try:
        made = TinyVLMConfig(**dict(config))
        return TinyVLM(made) if name == "tiny" else PatchVLM(made)
    except ValueError as error:
        raise ConfigError(f"Backbone {name!r}: {error}.") from error


def keep_description(name: str, config: Mapping[str, Any], directory: str | Path) -> None:
    """Put what a backbone needs besides weights (config, tokenizer), if anything, into ``directory``."""
    if name == "in_context":
        keep_description(config["base"], config["base_settings"], directory)
    elif name not in FROM_SCRATCH:
        from vla.models.backbones.loading import copy_description

        copy_description(config["model"], Path(directory) / DESCRIPTION)


def with_description(name: str, config: Mapping[str, Any], directory: str | Path) -> dict[str, Any]:
    """Settings that build the same backbone from what :func:`keep_description` left, without its weights."""
    settings = dict(config)
    if name == "in_context":
        settings["base_settings"] = with_description(config["base"], config["base_settings"], directory)
    elif name not in FROM_SCRATCH:
        settings |= {"model": str(Path(directory) / DESCRIPTION), "pretrained": False, "language": None}
    return settings
