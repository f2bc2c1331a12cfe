"""Messages of GR00T's policy client as msgpack, arrays in either of the ways its releases write them.

N1.5 to N1.7 send ``{"__ndarray_class__": True, "as_npy": a .npy file}``; later ones what msgpack-numpy makes,
``{b"nd": True, b"type", b"kind", b"shape", b"data"}``. Both are read, by this code alone: a .npy file is
believed no further than its header agrees with its data, and ``numpy.load`` is never called.
"""

from __future__ import annotations

import re
import struct
from typing import Any, Literal

import msgpack
import numpy as np

from vla.errors import WireError
from vla.serve.wire import array_of, unpack

Style = Literal["npy", "nd"]

_NPY, _FILE = "__ndarray_class__", "as_npy"
_MAGIC = b"\x93NUMPY"
#: The header that ``numpy.save`` writes for what may pass (numpy.lib.format, version 1.0).
_HEADER = re.compile(
    rb"\{'descr': '([|<]..?)', 'fortran_order': (False|True), "
    rb"'shape': \(((?:\d{1,10}, ?)*(?:\d{1,10})?)\), \} *\n"
)
_ND = {"nd", "type", "kind", "shape", "data"}


def read(data: bytes) -> tuple[Any, Style]:
    """A request, and how its arrays are written (npy where there are none).

    Raises:
        WireError: damaged, ambiguous, or beyond a limit; says what was found and what is allowed.
    """
    style: Style = "npy"

    def meant(value: dict[Any, Any]) -> Any:
        nonlocal style
        if _NPY in value:
            if set(value) != {_NPY, _FILE} or value[_NPY] is not True:
                raise WireError(f"A message with an array of the keys {sorted(map(str, value))!s:.200}.")
            return npy(value[_FILE])
        if b"nd" in value or "nd" in value:
            style = "nd"
            return _nd(value)
        return value

    return unpack(data, special=meant), style


def write(message: Any, style: Style) -> bytes:
    """An answer, its arrays as the client writes its own."""

    def encoded(item: object) -> dict[Any, Any]:
        if not isinstance(item, np.ndarray):
            raise TypeError(f"a {type(item).__name__} cannot be sent")
        array = np.ascontiguousarray(item)
        if style == "npy":
            return {_NPY: True, _FILE: npy_file(array)}
        said = {b"nd": True, b"type": array.dtype.str, b"kind": b"", b"shape": array.shape}
        return {**said, b"data": array.tobytes()}

    return msgpack.packb(message, default=encoded)  # type: ignore[return-value]


def npy(data: object) -> np.ndarray:
    """The array in a .npy file, version 1.0, as ``numpy.save`` writes it; or :class:`WireError`."""
    if not isinstance(data, bytes) or not data.startswith(_MAGIC + b"\x01\x00") or len(data) < 10:
        raise WireError("A message with an array that is no .npy file of version 1.0.")
    (length,) = struct.unpack("<H", data[8:10])
    found = _HEADER.fullmatch(data[10 : 10 + length])
    if found is None:
        raise WireError(f"A message with a .npy file of the header {data[10 : 10 + min(length, 80)]!r}.")
    dtype, fortran, sizes = found[1].decode(), found[2] == b"True", found[3].decode()
    shape = [int(size) for size in sizes.replace(" ", "").split(",") if size]
    if not fortran:
        return array_of(dtype, shape, data[10 + length :])
    return array_of(dtype, shape[::-1], data[10 + length :]).T


def npy_file(array: np.ndarray) -> bytes:
    """The inverse: what ``numpy.save`` writes of a contiguous array."""
    header = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}".encode()
    header += b" " * (-(len(_MAGIC) + 4 + len(header) + 1) % 64) + b"\n"
    return _MAGIC + b"\x01\x00" + struct.pack("<H", len(header)) + header + array.tobytes()


def _nd(value: dict[Any, Any]) -> np.ndarray:
    fields = {k.decode("ascii", "replace") if isinstance(k, bytes) else k: v for k, v in value.items()}
    if (
        set(fields) != _ND
        or len(fields) != len(value)
        or fields["nd"] is not True
        or fields["kind"] not in (b"", "")
    ):
        raise WireError(
            f"A message with an array of the keys {sorted(map(str, fields))!s:.200} and kind "
            f"{fields.get('kind')!r:.20}; expected {sorted(_ND)}, kind ''."
        )
    return array_of(fields["type"], fields["shape"], fields["data"])
