"""PNG and JPEG that came over the wire: decoded only after their header says how large they are."""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Any

import cv2
import numpy as np

from vla.errors import UnknownNameError, WireError
from vla.serve.keys import MAX_SIDE

_MARKER = "__image__"
_PNG = b"\x89PNG\r\n\x1a\n"


def decoded(images: Any, known: Collection[str]) -> Any:
    """Pictures by name, those that vla-eval encoded (``{__image__, format, data, shape}``) as arrays.

    Args:
        images: a message's map of pictures; anything else is returned as it is, to be refused as such.
        known: names that there may be: a small message could hold very many large pictures.

    Raises:
        UnknownNameError: another name; nothing was decoded.
        WireError: no picture, of another format, larger than allowed, or not of the shape it says.
    """
    if not isinstance(images, dict):
        return images
    for name in images:
        if name not in known:
            raise UnknownNameError("picture", name, known)
    return {
        name: _picture(value) if isinstance(value, dict) and _MARKER in value else value
        for name, value in images.items()
    }


def _picture(value: dict[str, Any]) -> np.ndarray:
    kind, data, shape = value.get("format"), value.get("data"), value.get("shape")
    dtype = value.get("dtype", "|u1")
    if not isinstance(data, bytes) or not isinstance(kind, str) or not isinstance(dtype, str):
        raise WireError(f"A picture with the keys {sorted(value)}; expected format, data, shape.")
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int for n in shape):
        raise WireError(f"A picture of shape {shape!r:.80}; expected [height, width, 3].")
    if kind == "raw":
        if dtype != "|u1":
            raise WireError(f"A raw picture of dtype {dtype!r:.40}; expected '|u1'.")
        if shape[-1] != 3 or not all(0 < n <= MAX_SIDE for n in shape):
            raise WireError(
                f"A raw picture of shape {shape!r:.80}; expected [h, w, 3] of at most {MAX_SIDE} px."
            )
        if len(data) != shape[0] * shape[1] * 3:
            raise WireError(f"A raw picture of shape {shape} in {len(data)} bytes.")
        return np.frombuffer(data, np.uint8).reshape(shape)
    if kind == "png":
        size = png_size(data)
    elif kind == "jpeg":
        size = jpeg_size(data)
    else:
        raise WireError(f"A picture of format {kind!r:.40}; known: png, jpeg, raw.")
    if size is None or not all(0 < side <= MAX_SIDE for side in size):
        raise WireError(f"A {kind} of {size or 'unknown'} px; expected at most {MAX_SIDE} a side.")
    if shape != [*size, 3]:
        raise WireError(f"A {kind} of {size} px that is said to have the shape {shape!r:.80}.")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise WireError(f"A damaged {kind}: {error!s:.200}.") from error
    if image is None or image.shape[:2] != size:
        raise WireError(f"A damaged {kind} of {len(data)} bytes.")
    return image


def png_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) from the header of a PNG; None where there is none (PNG specification, 11.2.2)."""
    if len(data) < 24 or not data.startswith(_PNG) or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return height, width


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) from the first frame header of a JPEG; None without one (ITU-T T.81, B.2.2)."""
    at = 2
    while data.startswith(b"\xff\xd8") and at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return height, width
        at += 2 + max(length, 2)
    return None
