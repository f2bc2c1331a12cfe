"""Backbones: real transformers models behind one small adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla.errors import ConfigError, UnknownNameError
from vla.models.backbones.interface import Backbone, PrefixFeatures

__all__ = ["BACKBONES", "Backbone", "PrefixFeatures", "build_backbone"]

BACKBONES = ("tiny",)


def build_backbone(name: str, config: Mapping[str, Any]) -> Backbone:
    """A backbone with fresh weights.

    Args:
        name: one of ``BACKBONES``.
        config: its own settings (``tiny``: the arguments of ``TinyVLMConfig``); unknown keys raise.
    """
    if name not in BACKBONES:
        raise UnknownNameError("backbone", name, BACKBONES)
    from vla.models.backbones.tiny import TinyVLM, TinyVLMConfig

    known = set(TinyVLMConfig.__init__.__annotations__) - {"return", "kwargs"}
    for key in config:
        if key not in known:
            raise UnknownNameError(f"{name} backbone setting", key, known)
    try:
        return TinyVLM(TinyVLMConfig(**dict(config)))
    except ValueError as error:
        raise ConfigError(f"Backbone {name!r}: {error}.") from error
