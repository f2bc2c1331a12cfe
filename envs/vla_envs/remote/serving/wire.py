"""What passes between a client and the server of a benchmark: msgpack maps behind their length.

message  4 bytes, big endian: length of what follows; then one msgpack map
array    msgpack extension 1: msgpack [dtype, shape] behind its length (2 bytes), then the raw bytes, C order

Requests are ``{"call": name, "arguments": {...}}``, answers ``{"value": ...}`` or ``{"error": {"kind",
"message", "traceback"}}``. Nothing is ever unpickled; only numbers and truth values come as arrays.
"""

from __future__ import annotations

import math
import socket
import struct
from typing import Any

import msgpack
import numpy as np

#: Raised by one whenever messages change their meaning; both sides must agree.
PROTOCOL = 2
MAX_BYTES = 1 << 28
_ARRAY = 1
_DTYPES = frozenset(np.dtype(name).str for name in ("bool", "u1", "i4", "i8", "f4", "f8"))


class WireError(Exception):
    """Bytes that are no message of this protocol."""


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Write one message; arrays may stand anywhere in it."""
    body: bytes = msgpack.packb(message, default=_pack_array)  # type: ignore[assignment]
    if len(body) > MAX_BYTES:
        raise WireError(f"A message of {len(body)} bytes; at most {MAX_BYTES} are sent.")
    connection.sendall(struct.pack(">I", len(body)) + body)


def receive(connection: socket.socket) -> dict[str, Any]:
    """The next message; EOFError where the other side has gone."""
    (length,) = struct.unpack(">I", _read(connection, 4))
    if length > MAX_BYTES:
        raise WireError(f"A message of {length} bytes is announced; at most {MAX_BYTES} are read.")
    try:
        message = msgpack.unpackb(_read(connection, length), ext_hook=_unpack_array)
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError(f"No message: {error}") from error
    if not isinstance(message, dict):
        raise WireError(f"A message is a map, not {type(message).__name__}.")
    return message


def _read(connection: socket.socket, size: int) -> bytes:
    parts, missing = [], size
    while missing:
        part = connection.recv(min(missing, 1 << 20))
        if not part:
            raise EOFError("the other side has gone")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _pack_array(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{type(value).__name__} cannot be sent; numbers, texts, lists, maps and arrays can")
    if value.dtype.str not in _DTYPES:
        raise TypeError(f"arrays of {value.dtype} are not sent")
    head: bytes = msgpack.packb([value.dtype.str, list(value.shape)])  # type: ignore[assignment]
    return msgpack.ExtType(_ARRAY, struct.pack(">H", len(head)) + head + value.tobytes())


def _unpack_array(code: int, data: bytes) -> np.ndarray:
    if code != _ARRAY or len(data) < 2:
        raise ValueError(f"extension {code} of {len(data)} bytes")
    (length,) = struct.unpack(">H", data[:2])
    head = msgpack.unpackb(data[2 : 2 + length])
    if not isinstance(head, list) or len(head) != 2 or head[0] not in _DTYPES:
        raise ValueError(f"an array of {head!r}")
    dtype, shape = np.dtype(head[0]), tuple(int(n) for n in head[1])
    body = data[2 + length :]
    if min(shape, default=0) < 0 or len(body) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{len(body)} bytes for an array {dtype} {shape}")
    return np.frombuffer(body, dtype).reshape(shape).copy()
