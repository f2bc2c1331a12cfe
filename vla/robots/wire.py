"""Readings and commands as msgpack frames between a driver's process and the loop's; never a pickle.

A frame is its length (4 bytes, big-endian) and a msgpack map. Arrays are ``{"__array__", "shape", "data"}``;
of ``Reading.info`` what is text, a number, a truth value, an array or a map or list of these goes along.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from vla.errors import RobotError
from vla.robots import Reading
from vla.types import Observation

#: Largest frame that is believed: two cameras of 4 megapixels are 25 MB.
MAX_FRAME = 256 * 2**20
_DTYPES = ("float32", "float64", "uint8", "int32", "int64", "bool")


class Lost(RobotError):
    """The other side is gone."""


class Late(RobotError):
    """The other side did not answer in time."""


def send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """Write one frame; raises :class:`Lost`."""
    data: bytes = msgpack.packb(_plain(message), use_bin_type=True)  # type: ignore[assignment]
    try:
        connection.sendall(struct.pack(">I", len(data)) + data)
    except OSError as error:
        raise Lost(f"The connection is broken: {error}.") from error


def receive(connection: socket.socket, timeout_s: float | None = None) -> dict[str, Any]:
    """Read one frame; raises :class:`Lost` at its end and :class:`Late` after ``timeout_s``."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    (size,) = struct.unpack(">I", _exactly(connection, 4, deadline))
    if size > MAX_FRAME:
        raise Lost(f"A frame of {size} bytes was announced; expected at most {MAX_FRAME}.")
    data = _exactly(connection, size, deadline)
    try:
        message = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except ValueError as error:
        raise Lost(f"A frame is no msgpack: {error}.") from error
    if not isinstance(message, dict):
        raise Lost(f"A frame holds a {type(message).__name__}; expected a map.")
    return {name: _array(value) for name, value in message.items()}


def reading_to_wire(reading: Reading) -> dict[str, Any]:
    """The parts of a reading."""
    seen = reading.observation
    return {
        "images": dict(seen.images),
        "state": dict(seen.state),
        "instruction": seen.instruction,
        "embodiment": seen.embodiment,
        "time_s": seen.time_s,
        "aux": dict(seen.aux),
        "info": {name: value for name, value in reading.info.items() if _travels(value)},
        "done": reading.done,
        "taken_s": reading.taken_s,
    }


def reading_from_wire(parts: Mapping[str, Any]) -> Reading:
    """Inverse of :func:`reading_to_wire`."""
    observation = Observation(
        images=parts["images"],
        state=parts["state"],
        instruction=parts["instruction"],
        embodiment=parts["embodiment"],
        time_s=parts["time_s"],
        aux=parts["aux"],
    )
    return Reading(observation=observation, info=parts["info"], done=parts["done"], taken_s=parts["taken_s"])


def _exactly(connection: socket.socket, size: int, deadline: float | None) -> bytes:
    parts, missing = [], size
    while missing:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            ready, _, _ = select.select([connection], [], [], left)
            if not ready:
                raise Late("No answer in time.")
            part = connection.recv(min(missing, 1 << 20))
        except (OSError, ValueError) as error:  # reset by the other side, or closed here
            raise Lost(f"The connection is broken: {error}.") from error
        if not part:
            raise Lost("The other side has ended.")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _travels(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _travels(x) for name, x in value.items())
    if isinstance(value, list | tuple):
        return all(_travels(x) for x in value)
    if isinstance(value, np.ndarray):
        return value.dtype.name in _DTYPES
    return value is None or isinstance(value, bool | int | float | str | np.bool_ | np.integer | np.floating)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    if isinstance(value, np.ndarray):
        whole = np.ascontiguousarray(value)
        return {"__array__": whole.dtype.name, "shape": list(value.shape), "data": whole.tobytes()}
    return value.item() if isinstance(value, np.generic) else value


def _array(value: Any) -> Any:
    if isinstance(value, list):
        return [_array(x) for x in value]
    if not isinstance(value, dict):
        return value
    if "__array__" not in value:
        return {name: _array(x) for name, x in value.items()}
    if value["__array__"] not in _DTYPES:
        raise Lost(f"An array of {value['__array__']!r} was sent; expected one of {_DTYPES}.")
    return np.frombuffer(value["data"], value["__array__"]).reshape(value["shape"]).copy()
