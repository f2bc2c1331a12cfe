"""JSON with numpy arrays as json-numpy 2 writes them, strictly: ``{"__numpy__": base64, "dtype", "shape"}``.

``json_numpy.loads`` makes any dtype that a message names and believes its shape; here both are held against
what :mod:`vla.serve.wire` lets in, and a message is measured before it is read.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from typing import Any

import numpy as np

from vla.errors import WireError
from vla.serve.wire import array_of

#: Commas, brackets and braces of one message: three bytes of JSON can become sixty of memory.
MAX_MARKS = 1 << 14

_ARRAY = "__numpy__"


def loads(data: bytes) -> Any:
    """Maps, lists, texts, finite numbers and arrays (read-only) from UTF-8.

    Raises:
        WireError: damaged, ambiguous, or beyond a limit; says what was found and what is allowed.
    """
    marks = sum(data.count(mark) for mark in (b",", b"[", b"{"))
    if marks > MAX_MARKS:
        raise WireError(
            f"A message of {marks} entries; at most {MAX_MARKS} are read. Send pictures and states as "
            "json-numpy arrays, not as lists."
        )
    try:
        return json.loads(data.decode(), object_pairs_hook=_map, parse_constant=_refuse)
    except WireError:
        raise
    except (ValueError, RecursionError) as error:
        raise WireError(f"{len(data)} bytes that are no readable JSON: {error!s:.200}.") from error


def array_to_json(array: np.ndarray) -> dict[str, Any]:
    """The map that json-numpy reads as this array."""
    whole = np.ascontiguousarray(array)
    return {"__numpy__": b64encode(whole.data).decode(), "dtype": array.dtype.str, "shape": array.shape}


def _map(pairs: list[tuple[str, Any]]) -> Any:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise WireError("A message with a map that has the same key twice.")
    if _ARRAY not in value:
        return value
    if set(value) != {_ARRAY, "dtype", "shape"} or not isinstance(value[_ARRAY], str):
        raise WireError(
            f"A message with an array of the keys {sorted(value)!s:.200}; expected {_ARRAY} (base64), dtype, "
            "shape."
        )
    try:
        data = b64decode(value[_ARRAY], validate=True)
    except (binascii.Error, ValueError) as error:
        raise WireError(f"A message with an array that is no base64: {error!s:.80}.") from error
    return array_of(value["dtype"], value["shape"], data)


def _refuse(name: str) -> Any:
    raise WireError(f"A message with the number {name}, which JSON does not have.")
