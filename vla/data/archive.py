"""Archives: the same episode store with its frames as AV1 video, for a small fraction of the bytes.

A stored frame is one AV1 temporal unit. Every ``gop``-th frame stands alone; the index says from which
one a frame must be decoded, so that any frame is at most ``gop`` units away.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from vla.data.arrays import ArrayReader
from vla.data.frames import Encoded, FrameReader
from vla.data.shards import crc32c
from vla.data.source import EpisodeSource, read_episode
from vla.errors import ConfigError, StoreError, VlaError
from vla.files import written_whole

if TYPE_CHECKING:
    from vla.data.store import EpisodeStore

os.environ.setdefault("SVT_LOG", "1")  # the encoder speaks of errors only
import av
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext

_SMALLEST = 64  # pixels a side that the encoder takes
_MAX_GOP = 1000  # drawing one picture decodes up to this many


@dataclass(frozen=True, kw_only=True)
class VideoCodec:
    """AV1 video, encoded by SVT-AV1 and decoded by dav1d.

    Args:
        crf: 1..63, the lower the better and larger.
        gop: 1..1000, frames from one that stands alone to the next.
        preset: 0..13, the lower the slower to encode and the smaller; 8 takes 3 ms for a frame of 128 px,
            and half of the bytes of 12 at 256 px.
    """

    crf: int = 33
    gop: int = 2
    preset: int = 8

    def __post_init__(self) -> None:
        if not (1 <= self.crf <= 63 and 1 <= self.gop <= _MAX_GOP and 0 <= self.preset <= 13):
            raise ConfigError(
                f"VideoCodec needs crf in 1..63, gop in 1..{_MAX_GOP} and preset in 0..13; given crf "
                f"{self.crf}, gop {self.gop}, preset {self.preset}."
            )

    def __str__(self) -> str:
        alone = "every frame" if self.gop == 1 else f"one frame in {self.gop}"
        return f"AV1 video, crf {self.crf}, {alone} stands alone (archive)"

    @property
    def encoder(self) -> str:
        return "libsvtav1"

    @property
    def frame_columns(self) -> tuple[str, ...]:
        return ("start", "length", "crc32c", "first")

    def to_json(self) -> dict[str, Any]:
        return {"name": "av1", "crf": self.crf, "gop": self.gop, "preset": self.preset}

    def encode_episode(self, images: Sequence[np.ndarray]) -> tuple[list[bytes], list[list[int]]]:
        """Temporal units, and for each the step of the first unit that decoding it needs."""
        pictures = [_padded(np.asarray(image)) for image in images]
        context = av.CodecContext.create("libsvtav1", "w")
        context.height, context.width = pictures[0].shape[:2]
        context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 30)
        context.framerate, context.gop_size, context.thread_count = Fraction(30), self.gop, 1
        context.options = {
            "crf": str(self.crf),
            "preset": str(self.preset),
            "svtav1-params": "lp=1",
        }
        packets = []
        for step, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
            frame.pts = step
            packets += context.encode(frame)
        packets += context.encode(None)
        if [packet.pts for packet in packets] != list(range(len(images))):
            raise StoreError("The AV1 encoder did not give one packet a frame in order: use another gop.")
        keys = np.flatnonzero([packet.is_keyframe for packet in packets])
        first = keys[np.searchsorted(keys, np.arange(len(images)), side="right") - 1]
        return [bytes(packet) for packet in packets], [first.tolist()]

    def frame_reader(
        self, *, origin: str, shape: tuple[int, int], index: np.ndarray, array: ArrayReader
    ) -> FrameReader:
        return VideoReader(origin=origin, shape=shape, index=index, array=array, decode=_no_single_frame)


class VideoReader(FrameReader):
    """Random access to frames of video; reading in order decodes each unit once."""

    independent = False
    __slots__ = ()

    def first(self, step: int) -> int:
        return self._facts[step * self._width + 3]

    def encoded(self, steps: Sequence[int]) -> Encoded | None:
        if list(steps) != list(range(len(self))):  # a unit says which one before it it needs
            return None
        return [self.fetch(step) for step in steps], [self.index[:, 3].tolist()]

    def read(self, step: int, out: np.ndarray) -> None:
        decoder, wanted = _decoder(), (self.origin, step)
        try:
            if decoder.shown != wanted:
                origin, last = decoder.shown
                begin = self.first(step)
                if origin == self.origin and begin <= last < step:
                    begin = last + 1
                for unit in self._units(step)[begin - step - 1 :]:
                    decoder.decode(unit)
                decoder.shown = wanted
            decoder.show(out)
        except StoreError as error:
            decoder.reset()
            raise self._named(step, error) from error

    def _units(self, step: int) -> list[bytes]:
        """What decoding a step takes, in one piece from the disk, each unit checked."""
        rows = self.index[self.first(step) : step + 1]
        begin = int(rows[0, 0])
        raw = self._array.read_bytes(begin, int(rows[-1, 0] + rows[-1, 1]) - begin)
        units = [raw[start - begin : start - begin + length] for start, length, *_ in rows.tolist()]
        if any(crc32c(unit) != row[2] for unit, row in zip(units, rows.tolist(), strict=True)):
            raise StoreError("it, or one that it needs, is damaged (checksum)")
        return units


class _Decoder:
    """One AV1 decoder; ``shown`` says whose frame, of which step, it decoded last."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.reset()

    def reset(self) -> None:
        self.shown: tuple[str, int] = ("", -1)
        self._frame: av.VideoFrame | None = None
        self._context = cast(VideoCodecContext, av.CodecContext.create("libdav1d", "r"))
        self._context.thread_count = 1
        self._context.flags |= Flags.low_delay  # a frame out for each unit in

    def decode(self, unit: bytes) -> None:
        try:
            frames = self._context.decode(av.Packet(unit))
        except av.FFmpegError as error:
            raise StoreError(f"its video does not decode ({error})") from error
        if len(frames) != 1:
            raise StoreError(f"its video gave {len(frames)} pictures for one")
        self._frame = frames[0]

    def show(self, out: np.ndarray) -> None:
        """The picture decoded last, as RGB."""
        assert self._frame is not None
        height, width = out.shape[:2]
        padded = _size(height), _size(width)
        if (self._frame.height, self._frame.width) != padded:
            raise StoreError(
                f"its video is {self._frame.height}x{self._frame.width}, expected {padded[0]}x{padded[1]}"
            )
        planes = self._frame.to_ndarray()
        if padded == (height, width):
            cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420, dst=out)
        else:
            out[:] = cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420)[:height, :width]


_local = threading.local()


def _decoder() -> _Decoder:
    """This thread's, made anew in a forked process."""
    decoder = getattr(_local, "decoder", None)
    if decoder is None or decoder.pid != os.getpid():
        decoder = _local.decoder = _Decoder()
    return decoder


def _no_single_frame(_: bytes, __: np.ndarray) -> None:
    raise StoreError("A video frame is not decoded by itself.")


def _size(pixels: int) -> int:
    """What the encoder takes: even, and not too small."""
    return max(_SMALLEST, pixels + pixels % 2)


def _padded(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    bottom, right = _size(height) - height, _size(width) - width
    if not bottom and not right:
        return np.ascontiguousarray(image)
    return cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)


def write_archive(source: EpisodeSource, out: Path, codec: VideoCodec) -> None:
    """All episodes of ``source`` into a new store of video; low-dimensional columns stay exact.

    What does not come to its end leaves nothing at ``out``.

    Raises:
        StoreError: ``out`` exists and is not empty.
    """
    from vla.data.mixture import held_fields, stated_ranges
    from vla.data.store import EpisodeStore
    from vla.data.summary import left_out

    if isinstance(source, EpisodeStore):
        facts = {("archived_import" if k == "import" else k): v for k, v in source.provenance.items()}
    else:
        held = sorted(held_fields(source))
        facts = {"ranges": stated_ranges(source), "held": held, "left_out": left_out(source)}
    with written_whole(out) as begun:
        arms = source.embodiments.values()
        _write_all(source, EpisodeStore.create(begun, embodiments=arms, provenance=facts, codec=codec))


def _write_all(source: EpisodeSource, store: EpisodeStore) -> None:
    with store:
        for info in source.episodes:
            try:
                number = store.append(read_episode(source, info.index))
            except VlaError as error:
                raise StoreError(f"Episode {info.index} of {source.path}: {error}") from error
            for name in source.columns(info.index):
                if not np.array_equal(
                    store.column(number, name), source.column(info.index, name), equal_nan=True
                ):
                    raise StoreError(
                        f"Column {name!r} of episode {info.index} of {source.path} did not survive: its "
                        "values need more than float32. Remove it, or shift its origin."
                    )
