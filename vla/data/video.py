"""Video files: random access to single frames, and an encoder with the settings LeRobot uses.

A frame is found by its time. The decoder seeks to the keyframe before it and decodes on from there; where the
wanted frame follows the last one closely it decodes on without seeking, so reading in order costs one decode
a frame. Open files are few, and a forked process opens its own.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from vla.data.guard import reading
from vla.errors import DatasetError
from vla.text import sentence

MAX_OPEN_FILES = 16
_SMALLEST = 64  # pixels a side that the AV1 encoder takes
_NEAR = 3  # frames ahead that are reached by decoding on even across a keyframe


class VideoFile:
    """One open video; not safe to share between processes (see :class:`VideoFiles`).

    Raises:
        DatasetError: the file is missing, is no video, or its frames cannot be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DatasetError(f"The video {path} is missing.")
        with reading(path, "video"):
            self._container = av.open(str(path))
            stream = self._container.streams.video[0]
        if stream.time_base is None or not stream.average_rate:
            raise DatasetError(f"{path} states no frame rate: it is truncated or no video of frames.")
        self._stream: VideoStream = stream
        stream.codec_context.thread_count = 1  # frame threads would have to be filled after every seek
        self.rate_hz = float(stream.average_rate)
        self.shape = (stream.codec_context.height, stream.codec_context.width)
        self._ticks = 1.0 / float(stream.time_base)
        self._frame_ticks = self._ticks / self.rate_hz
        self._keyframes = np.array([e.timestamp for e in stream.index_entries if e.is_keyframe], np.int64)
        self._reformatter = VideoReformatter()
        self._frames: Iterator[VideoFrame] = iter(())
        self._last: VideoFrame | None = None

    @property
    def duration_s(self) -> float:
        """Length as the file states it; 0 where it does not."""
        return (self._stream.duration or 0) / self._ticks

    @property
    def first_frame_s(self) -> float:
        """Time of the first frame, as the file states it."""
        return (self._stream.start_time or 0) / self._ticks

    @property
    def last_frame_s(self) -> float:
        """Time of the last frame that the file holds whole, by its index; infinite where it has none.

        Frames are counted, at the stated rate from the first one on: none is decoded.
        """
        entries, size = self._stream.index_entries, self.path.stat().st_size
        if not len(entries):
            return np.inf
        whole = next((k for k, e in enumerate(entries) if e.pos + e.size > size), len(entries))
        return self.first_frame_s + (whole - 1) / self.rate_hz

    def read(self, time_s: float, out: np.ndarray) -> None:
        """Decode the frame shown at a time (its own, within half a frame) into ``out`` uint8 [h w 3], RGB.

        Raises:
            DatasetError: there is no frame within half a frame of that time.
        """
        frame = self._find(round(time_s * self._ticks), time_s)
        picture = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        if picture.shape != out.shape:
            raise DatasetError(
                f"{self.path} holds pictures of {picture.shape[0]}x{picture.shape[1]}, expected "
                f"{out.shape[0]}x{out.shape[1]}."
            )
        out[:] = picture

    def close(self) -> None:
        self._frames, self._last = iter(()), None
        self._container.close()

    def _find(self, wanted: int, time_s: float) -> VideoFrame:
        half = self._frame_ticks / 2
        last = self._last
        if last is not None and last.pts is not None and abs(last.pts - wanted) <= half:
            return last
        try:
            if not self._near(wanted):
                self._seek(wanted + int(half / 2))
            frame = self._decode_to(wanted - half)
        except FFmpegError as error:
            self._frames, self._last = iter(()), None
            raise DatasetError(f"{self.path} is damaged near {time_s:.3f} s: {sentence(error)}") from error
        if frame is None:
            raise DatasetError(
                f"{self.path} ends before {time_s:.3f} s (it states {self.duration_s:.3f} s): the video is "
                "shorter than its episode. Fetch it again, or drop the episode."
            )
        assert frame.pts is not None
        if abs(frame.pts - wanted) > half:
            raise DatasetError(
                f"{self.path} has no frame at {time_s:.3f} s; the next is at {frame.pts / self._ticks:.3f} s "
                f"and frames are {1 / self.rate_hz:.3f} s apart."
            )
        return frame

    def _near(self, wanted: int) -> bool:
        """Whether decoding on gets there sooner than seeking."""
        if self._last is None or self._last.pts is None or self._last.pts >= wanted:
            return False
        if wanted - self._last.pts <= _NEAR * self._frame_ticks:
            return True
        between = np.searchsorted(self._keyframes, (self._last.pts, wanted), side="right")
        return bool(len(self._keyframes) and between[0] == between[1])

    def _seek(self, ticks: int) -> None:
        self._container.seek(max(ticks, 0), stream=self._stream)
        self._frames, self._last = self._decoded(), None

    def _decoded(self) -> Iterator[VideoFrame]:
        """What ``container.decode`` yields; PyAV 18 loses memory with each ``demux`` that is not closed."""
        packets = cast(Generator[av.Packet], self._container.demux(self._stream))
        try:
            for packet in packets:
                yield from cast(list[VideoFrame], packet.decode())
        finally:
            packets.close()

    def _decode_to(self, ticks: float) -> VideoFrame | None:
        """The first frame at or after ``ticks``; None where the video ends before."""
        for frame in self._frames:
            if frame.pts is not None and frame.pts >= ticks:
                self._last = frame
                return frame
        self._last = None
        return None


class VideoFiles:
    """Videos opened as they are read: at most 16 at a time, one reader at a time, reopened after a fork."""

    def __init__(self) -> None:
        self._reset()

    def read(self, path: Path, time_s: float, out: np.ndarray) -> None:
        """See :meth:`VideoFile.read`."""
        if self._pid != os.getpid():
            self._reset()
        with self._lock:
            self._get(path).read(time_s, out)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _get(self, path: Path) -> VideoFile:
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = VideoFile(path)
            if len(self._files) > MAX_OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(path)
        return file

    def _reset(self) -> None:
        self._files: OrderedDict[Path, VideoFile] = OrderedDict()
        self._lock, self._pid = threading.Lock(), os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a spawned process opens its own

    def __setstate__(self, _: dict[str, Any]) -> None:
        self._reset()


@dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """How frames are compressed; the defaults are those of lerobot 0.6.1.

    Args:
        keyframe_interval: every n-th frame is decodable by itself.
        crf: quality, lower is better and larger.
        preset: speed of the AV1 encoder, 0 (slow, small) .. 13.
    """

    keyframe_interval: int = 2
    crf: int = 30
    preset: int = 12

    @property
    def encoder(self) -> str:
        """``libsvtav1``, or ``libx264`` where this build of FFmpeg has no AV1 encoder."""
        return "libsvtav1" if "libsvtav1" in av.codecs_available else "libx264"

    @property
    def codec(self) -> str:
        """``av1`` or ``h264``."""
        return "av1" if self.encoder == "libsvtav1" else "h264"

    def options(self) -> Mapping[str, str]:
        """Options of the encoder; one thread, so that equal frames give equal bytes."""
        common = {"g": str(self.keyframe_interval), "crf": str(self.crf)}
        if self.codec == "av1":
            return {**common, "preset": str(self.preset), "svtav1-params": "lp=1"}
        return {**common, "preset": "medium", "bf": "0", "threads": "1"}


class VideoWriter:
    """Writes frames to an MP4 at a constant rate; the file is whole once closed.

    Raises:
        DatasetError: a size that YUV 4:2:0 does not have (odd).
    """

    def __init__(
        self, path: Path, *, height: int, width: int, rate_hz: float, settings: VideoSettings
    ) -> None:
        _check_size(height, width)
        os.environ.setdefault("SVT_LOG", "1")  # errors only: the encoder prints its settings otherwise
        self.num_frames = self.num_bytes = 0
        self._container = av.open(str(path), "w", format="mp4")
        rate = Fraction(rate_hz).limit_denominator(100_000)
        stream = self._container.add_stream(settings.encoder, rate=rate, options=dict(settings.options()))
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        self._stream = stream

    def write(self, picture: np.ndarray) -> None:
        """Append a frame: uint8 [h w 3], RGB."""
        frame = VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = self.num_frames
        self.num_frames += 1
        self._mux(self._stream.encode(frame))

    def close(self) -> None:
        self._mux(self._stream.encode(None))
        self._container.close()

    def _mux(self, packets: Iterable[av.Packet]) -> None:
        for packet in packets:
            self.num_bytes += packet.size
            self._container.mux(packet)


def _check_size(height: int, width: int) -> None:
    if height % 2 or width % 2:
        raise DatasetError(
            f"Pictures of {height}x{width} cannot become video: height and width must be even. Store them as "
            "images instead."
        )
    if min(height, width) < _SMALLEST:
        raise DatasetError(
            f"Pictures of {height}x{width} are too small for the AV1 encoder (from {_SMALLEST} a side). "
            "Store them as images instead."
        )
