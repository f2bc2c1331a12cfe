"""Camera frames as JPEG: the one place where pixels become bytes and back.

``simplejpeg`` (the ``fast`` extra) runs when it is installed, OpenCV otherwise; both write baseline
JPEG with full colour resolution (4:4:4), so a store made with one is read by the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from vla.errors import ConfigError, MissingExtraError, StoreError, UnknownNameError


def _optional_simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


simplejpeg = _optional_simplejpeg()

BACKENDS = ("simplejpeg", "opencv")


def default_backend() -> str:
    """The fastest backend that is installed."""
    return "opencv" if simplejpeg is None else "simplejpeg"


@dataclass(frozen=True, kw_only=True)
class JpegCodec:
    """Encodes and decodes single RGB frames.

    Args:
        quality: 1..100; 95 keeps the mean error of a 64 px camera image near one grey level.
        backend: ``simplejpeg`` or ``opencv``; which one runs is readable here and stored.
    """

    quality: int = 95
    backend: str = field(default_factory=default_backend)

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"JPEG quality is {self.quality}, expected 1..100.")
        if self.backend not in BACKENDS:
            raise UnknownNameError("JPEG backend", self.backend, BACKENDS)
        if self.backend == "simplejpeg" and simplejpeg is None:
            raise MissingExtraError("simplejpeg", "fast", "JPEG backend 'simplejpeg'")

    def encode(self, image: np.ndarray) -> bytes:
        """uint8 [h w 3] RGB -> JPEG bytes."""
        image = np.ascontiguousarray(image)
        if self.backend == "simplejpeg":
            return simplejpeg.encode_jpeg(image, self.quality, colorspace="RGB", colorsubsampling="444")
        options = [
            cv2.IMWRITE_JPEG_QUALITY,
            self.quality,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ]
        return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()

    def decoder(self) -> Callable[[bytes, np.ndarray], None]:
        """A function ``decode(jpeg, out)`` that fills ``out`` uint8 [h w 3], contiguous, with RGB.

        It raises :class:`StoreError` where the bytes are no image of that size.
        """
        return _decode_simplejpeg if self.backend == "simplejpeg" else _decode_opencv


def _decode_simplejpeg(jpeg: bytes, out: np.ndarray) -> None:
    try:
        image = simplejpeg.decode_jpeg(jpeg, "RGB", buffer=out)
    except ValueError as error:
        raise StoreError(
            f"A frame of {len(jpeg)} bytes does not decode into {out.shape}: {error}."
        ) from error
    if image.shape != out.shape:
        raise StoreError(f"A frame has shape {image.shape}, expected {out.shape}.")


def _decode_opencv(jpeg: bytes, out: np.ndarray) -> None:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise StoreError(f"A frame of {len(jpeg)} bytes is not a JPEG image.")
    if image.shape != out.shape:
        raise StoreError(f"A frame has shape {image.shape}, expected {out.shape}.")
    cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=out)
