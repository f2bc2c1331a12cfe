"""Settings of a backbone from JSON: strict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from vla.errors import ConfigError, UnknownNameError

_Config = TypeVar("_Config")


def from_settings(
    cls: type[_Config], what: str, settings: Mapping[str, Any], required: Mapping[str, str]
) -> _Config:
    """A ``cls`` of these settings; lists become tuples.

    Args:
        cls: a dataclass.
        what: it is for, as errors say.
        settings: by name.
        required: what each setting without a default is.

    Raises:
        UnknownNameError: an unknown key. ConfigError: a required one is missing.
    """
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in settings:
        if key not in known:
            raise UnknownNameError(f"{what} backbone setting", key, known)
    missing = [f"`{key}` ({text})" for key, text in required.items() if key not in settings]
    if missing:
        raise ConfigError(f"The {what} backbone needs the setting {', '.join(missing)}.")
    return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()})
