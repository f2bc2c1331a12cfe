"""Frozen configurations back from JSON; what they do not know is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from vla.errors import UnknownNameError


def from_json(cls: type, data: Mapping[str, Any]) -> Any:
    """The strict inverse of ``dataclasses.asdict`` through JSON; keys that are not there keep their defaults.

    Lists become tuples, objects the dataclasses that the types of ``cls`` name.

    Raises:
        UnknownNameError: a key that the dataclass does not have.
    """
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    values = {}
    for key, value in data.items():
        if key not in known:
            raise UnknownNameError(f"{cls.__name__} key", key, known)
        inner = next((t for t in (hints[key], *getattr(hints[key], "__args__", ())) if is_dataclass(t)), None)
        values[key] = _value(value, inner if isinstance(inner, type) else None)
    return cls(**values)


def _value(value: Any, inner: type | None) -> Any:
    if isinstance(value, list):
        return tuple(_value(item, inner) for item in value)
    if isinstance(value, Mapping) and inner is not None:
        return from_json(inner, value)
    return value
