"""msgpack with numpy arrays, strictly: what comes over a socket is checked before it becomes an object.

An array is a map ``{__ndarray__: true, data, dtype, shape}``, a numpy number ``{__npgeneric__: true, data,
dtype}``. openpi writes these keys as bytes, vla-eval as text; both are read. Nothing is ever unpickled:
dtypes are those of ``DTYPES``, sizes must agree with the data, and a message holds a limited number of
containers, since a byte of msgpack can become a hundred bytes of memory.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast, get_args

import msgpack
import numpy as np

from vla.errors import WireError

#: Little-endian booleans, integers and floats; no objects, no records, no text, no complex numbers.
DTYPES = frozenset(["|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"])

#: Axes of an array: a batch of image stacks has five.
MAX_AXES = 5
#: Entries of one map or list; more numbers than this come as an array.
MAX_ENTRIES = 1024
#: Bytes of one text.
MAX_TEXT = 1 << 16
#: Maps and lists of one message.
MAX_CONTAINERS = 512

KeyStyle = Literal["bytes", "text"]

_ARRAY, _NUMBER = "__ndarray__", "__npgeneric__"
_NAMES = {_ARRAY: {_ARRAY, "data", "dtype", "shape"}, _NUMBER: {_NUMBER, "data", "dtype"}}


def _encoded(keys: KeyStyle, item: object) -> dict[Any, Any]:
    if isinstance(item, np.ndarray):
        array = np.ascontiguousarray(item).reshape(item.shape)  # ascontiguousarray makes 0-d arrays 1-d
        data = array.data if array.size else b""
        fields = {_ARRAY: True, "data": data, "dtype": _writable(item), "shape": item.shape}
    elif isinstance(item, np.generic):
        fields = {_NUMBER: True, "data": item.item(), "dtype": _writable(item)}
    else:
        raise WireError(f"A message cannot hold a {type(item).__name__}: {item!r:.80}.")
    return fields if keys == "text" else {name.encode(): part for name, part in fields.items()}


class _Packers(threading.local):
    """One encoder a thread and key style, whose buffer is used again."""

    def __init__(self) -> None:
        self.of = {keys: msgpack.Packer(default=partial(_encoded, keys)) for keys in get_args(KeyStyle)}


_PACKERS = _Packers()


def pack(value: Any, keys: KeyStyle = "bytes") -> bytes:
    """Bytes of maps, lists, texts, numbers and numpy arrays.

    Args:
        keys: how arrays are marked: ``bytes`` as openpi does, ``text`` as vla-eval does.

    Raises:
        WireError: something else is in there, or an array of a dtype that no message may hold.
    """
    try:
        return cast(bytes, _PACKERS.of[keys].pack(value))
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(error, WireError):
            raise
        raise WireError(f"A message that cannot be written: {error}.") from error


def openpi_array(value: dict[Any, Any]) -> Any:
    """What a map means that :func:`pack` made of numpy data; any other map as it is."""
    for marker in (_ARRAY, _NUMBER):
        if marker in value or marker.encode() in value:
            return _decoded(value, marker)
    return value


def unpack(
    data: bytes,
    *,
    max_containers: int = MAX_CONTAINERS,
    special: Callable[[dict[Any, Any]], Any] = openpi_array,
) -> Any:
    """Inverse of :func:`pack`; arrays are read-only views of the message.

    Args:
        data: the message.
        max_containers: maps and lists that it may hold.
        special: what a map means; the same map where it is a plain one.

    Raises:
        WireError: damaged, ambiguous, or beyond a limit; says what was found and what is allowed.
    """
    num_containers = 0

    def counted() -> None:
        nonlocal num_containers
        num_containers += 1
        if num_containers > max_containers:
            raise WireError(f"A message of more than {max_containers} maps and lists.")

    def on_list(items: list[Any]) -> list[Any]:
        counted()
        return items

    def on_map(pairs: list[tuple[Any, Any]]) -> Any:
        counted()
        value = dict(pairs)
        if len(value) != len(pairs):
            raise WireError("A message with a map that has the same key twice.")
        if (meant := special(value)) is not value:
            return meant
        for key in value:
            if not isinstance(key, str):
                raise WireError(f"A message with the key {key!r:.80}; keys are texts.")
        return value

    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=on_map,
            list_hook=on_list,
            max_str_len=MAX_TEXT,
            max_array_len=MAX_ENTRIES,
            max_map_len=MAX_ENTRIES,
            max_ext_len=0,
        )
    except WireError:
        raise
    except (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"{len(data)} bytes that are not a readable message: {error!s:.200}.") from error


def _decoded(value: dict[Any, Any], marker: str) -> Any:
    fields = {
        key.decode("ascii", "replace") if isinstance(key, bytes) else key: v for key, v in value.items()
    }
    if set(fields) != _NAMES[marker] or len(fields) != len(value) or fields[marker] is not True:
        raise WireError(
            f"A message with an array of the keys {sorted(map(str, fields))!s:.200}; "
            f"expected {sorted(_NAMES[marker])}."
        )
    if marker == _NUMBER:
        return _number(fields["data"], np.dtype(_allowed(fields["dtype"])))
    return array_of(fields["dtype"], fields["shape"], fields["data"])


def array_of(dtype: object, shape: object, data: object) -> np.ndarray:
    """A read-only view of ``data`` as ``dtype`` (numpy's short name, one of ``DTYPES``) of a shape, C order.

    Raises:
        WireError: another dtype, or sizes that do not agree with the data.
    """
    allowed = _allowed(dtype)
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_AXES
        or not all(type(n) is int and 0 <= n < 2**31 for n in shape)
    ):
        raise WireError(
            f"A message with an array of shape {shape!r:.80}; expected at most {MAX_AXES} sizes from 0."
        )
    expected = math.prod(shape) * np.dtype(allowed).itemsize
    if not isinstance(data, bytes) or len(data) != expected:
        given = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise WireError(f"A message with an array {dtype} {shape} of {given}; expected {expected} bytes.")
    return np.frombuffer(data, allowed).reshape(shape)


def _allowed(dtype: object) -> str:
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise WireError(
            f"A message with an array of dtype {dtype!r:.80}; allowed: {', '.join(sorted(DTYPES))}."
        )
    return dtype


def _number(data: object, dtype: np.dtype[Any]) -> Any:
    if type(data) not in (bool, int, float):
        raise WireError(f"A message with a {dtype} number that is a {type(data).__name__}.")
    with np.errstate(all="ignore"):
        value = np.array(data).astype(dtype)[()]
    if dtype.kind != "f" and value != data:
        raise WireError(f"A message with the number {data!r:.80}, which no {dtype} can be.")
    return value


def _writable(item: np.ndarray | np.generic) -> str:
    if item.dtype.str not in DTYPES:
        raise WireError(
            f"A message cannot hold numpy data of dtype {item.dtype}; allowed: {', '.join(sorted(DTYPES))}."
        )
    return item.dtype.str
