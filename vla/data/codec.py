"""How camera frames become bytes and back: JPEG, each frame by itself (video: ``vla.data.archive``).

``simplejpeg`` (the ``fast`` extra) runs when it is installed, OpenCV otherwise; both write baseline
JPEG, so a store made with one is read by the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np

from vla.data.arrays import ArrayReader
from vla.data.frames import FrameReader
from vla.errors import ConfigError, MissingExtraError, StoreError, UnknownNameError
from vla.text import sentence


class Codec(Protocol):
    """How a store keeps its frames."""

    @property
    def encoder(self) -> str:
        """The library that encodes, for the record."""
        ...

    @property
    def frame_columns(self) -> tuple[str, ...]:
        """What the index says of each frame: ``start``, ``length``, ``crc32c`` and what the codec adds."""
        ...

    def encode_episode(self, images: Sequence[np.ndarray]) -> tuple[list[bytes], list[list[int]]]:
        """uint8 [h w 3] images of one camera -> stored frames, and the index columns that are added."""
        ...

    def frame_reader(
        self, *, origin: str, shape: tuple[int, int], index: np.ndarray, array: ArrayReader
    ) -> FrameReader:
        """See :class:`~vla.data.frames.FrameReader`."""
        ...

    def to_json(self) -> dict[str, Any]: ...

    def __str__(self) -> str:
        """For people."""
        ...


def codec_from_json(data: Mapping[str, Any]) -> Codec:
    """The codec that a store's header names."""
    if data["name"] == "jpeg":
        return JpegCodec(quality=data["quality"])
    if data["name"] == "av1":
        from vla.data.archive import VideoCodec

        return VideoCodec(crf=data["crf"], gop=data["gop"], preset=data["preset"])
    raise UnknownNameError("frame codec", str(data["name"]), ("jpeg", "av1"))


def _optional_simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


simplejpeg = _optional_simplejpeg()

BACKENDS = ("simplejpeg", "opencv")
_SMALL, _LARGE = 96, 192  # pixels
_OPENCV_SAMPLING = {
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}


def default_backend() -> str:
    """The fastest backend that is installed."""
    return "opencv" if simplejpeg is None else "simplejpeg"


def default_quality(height: int, width: int) -> tuple[int, str]:
    """JPEG quality and colour subsampling for pictures of a size.

    A small picture shows an object in a few pixels: 95 keeps its mean error at 1.3 grey levels. From 96 px
    on, 85 gives 1.6 levels at 128 px, in 0.6 of the bytes. There, of equal bytes, colour at half resolution
    (4:2:0) is 2 to 3 dB worse. From 192 px on it costs little: 90 with 4:2:0 gives 1.3 to 1.4 levels at
    256 px (docs/results/data.json), in 0.9 of the bytes of 85 with 4:4:4 and 0.65 of the time to decode.
    """
    side = min(height, width)
    return 90 if side >= _LARGE else 95 if side < _SMALL else 85, default_sampling(height, width)


def default_sampling(height: int, width: int) -> str:
    """Colour at half resolution (4:2:0) from 192 px a side on, whatever the quality."""
    return "420" if min(height, width) >= _LARGE else "444"


@dataclass(frozen=True, kw_only=True)
class JpegCodec:
    """Encodes and decodes single RGB frames.

    Args:
        quality: 1..100; None: by size (:func:`default_quality`). Colour subsampling goes by size alone
            (:func:`default_sampling`).
        backend: ``simplejpeg`` or ``opencv``; which one runs is readable here and stored.
    """

    quality: int | None = None
    backend: str = field(default_factory=default_backend)

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ConfigError(f"JPEG quality is {self.quality}, expected 1..100.")
        if self.backend not in BACKENDS:
            raise UnknownNameError("JPEG backend", self.backend, BACKENDS)
        if self.backend == "simplejpeg" and simplejpeg is None:
            raise MissingExtraError("simplejpeg", "fast", "JPEG backend 'simplejpeg'")

    def __str__(self) -> str:
        quality = "quality by size" if self.quality is None else f"quality {self.quality}"
        return f"JPEG, {quality}, decoded by {self.backend}"

    @property
    def encoder(self) -> str:
        return self.backend

    @property
    def frame_columns(self) -> tuple[str, ...]:
        return ("start", "length", "crc32c")

    def to_json(self) -> dict[str, Any]:
        return {"name": "jpeg", "quality": self.quality}

    def encode_episode(self, images: Sequence[np.ndarray]) -> tuple[list[bytes], list[list[int]]]:
        return [self.encode(image) for image in images], []

    def encode(self, image: np.ndarray) -> bytes:
        """uint8 [h w 3] RGB -> JPEG bytes."""
        image = np.ascontiguousarray(image)
        quality, sampling = default_quality(*image.shape[:2])
        if self.quality is not None:
            quality = self.quality
        if self.backend == "simplejpeg":
            return simplejpeg.encode_jpeg(
                image, quality, colorspace="RGB", colorsubsampling=sampling, fastdct=False
            )
        options = [
            cv2.IMWRITE_JPEG_QUALITY,
            quality,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            _OPENCV_SAMPLING[sampling],
        ]
        return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()

    def frame_reader(
        self, *, origin: str, shape: tuple[int, int], index: np.ndarray, array: ArrayReader
    ) -> FrameReader:
        return FrameReader(origin=origin, shape=shape, index=index, array=array, decode=self.decoder())

    def decoder(self) -> Callable[[bytes, np.ndarray], None]:
        """A function ``decode(jpeg, out)`` that fills ``out`` uint8 [h w 3], contiguous, with RGB.

        It raises :class:`StoreError` where the bytes are no image of that size.
        """
        return _decode_simplejpeg if self.backend == "simplejpeg" else _decode_opencv


def _decode_simplejpeg(jpeg: bytes, out: np.ndarray) -> None:
    try:
        image = simplejpeg.decode_jpeg(jpeg, "RGB", buffer=out, fastupsample=True)
    except ValueError as error:
        raise StoreError(
            f"A frame of {len(jpeg)} bytes does not decode into {out.shape}: {sentence(error)}"
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
