"""Cameras of a robot: pictures with the time they were taken at, or an error that says why there are none.

A camera that stopped sending, or sends the same picture for ever, is as blind as one that is unplugged; a
policy that keeps acting on its last picture is dangerous. So every picture passes :class:`Freshness`.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vla.errors import ConfigError, RobotError


class CameraError(RobotError):
    """A camera that shows nothing new: it cannot be opened, is lost, stale or frozen."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture, uint8 [h, w, 3] RGB, top row first, and when it arrived, s on the camera's clock."""

    image: np.ndarray
    time_s: float


class CameraDevice(Protocol):
    """Something that a robot sees with."""

    def open(self) -> None:
        """Start; returns once there is a first picture. Opens anew if it was open."""
        ...

    def read(self) -> Frame:
        """The latest picture; :class:`CameraError` where it is too old or has not changed for too long."""
        ...

    def close(self) -> None: ...


class Freshness:
    """Tells a live stream of pictures from a dead one.

    Args:
        name: of the camera, for errors.
        max_age_s: a picture older than this is stale.
        frozen_s: pictures that are equal in every pixel for this long come from a stuck camera (two pictures
            of a real sensor never are); None for sources without noise.
    """

    def __init__(self, name: str, *, max_age_s: float = 0.5, frozen_s: float | None = 1.0) -> None:
        if max_age_s <= 0 or (frozen_s is not None and frozen_s <= 0):
            raise ConfigError(
                f"Camera {name!r}: max_age_s {max_age_s} and frozen_s {frozen_s} are seconds above 0."
            )
        self.name, self._max_age_s, self._frozen_s = name, max_age_s, frozen_s
        self._latest: Frame | None = None
        self._changed_s = 0.0

    def put(self, frame: Frame) -> None:
        """A picture has arrived."""
        if self._latest is None or not np.array_equal(frame.image, self._latest.image):
            self._changed_s = frame.time_s
        self._latest = frame

    def get(self, now_s: float, why: str = "") -> Frame:
        """The latest picture, if it may still be acted on; ``why`` there is none, if known."""
        frame = self._latest
        hint = f" ({why})" if why else ""
        if frame is None:
            raise CameraError(
                f"Camera {self.name!r} has sent nothing{hint}: check that it is plugged in and not in use."
            )
        if now_s - frame.time_s > self._max_age_s:
            raise CameraError(
                f"The last picture of camera {self.name!r} is {now_s - frame.time_s:.1f} s old{hint}, at "
                f"most {self._max_age_s:g} s are allowed: check its cable; it is looked for again by itself."
            )
        if self._frozen_s is not None and frame.time_s - self._changed_s > self._frozen_s:
            raise CameraError(
                f"Camera {self.name!r} has sent one and the same picture for "
                f"{frame.time_s - self._changed_s:.1f} s: it is stuck. Unplug it, plug it in and connect() "
                "again."
            )
        return frame


class OpenCVCamera:
    """A camera (or video file, or stream) that OpenCV can open, read in a thread of its own.

    Args:
        name: for errors.
        source: number of a device, path or URL.
        width, height, fps: asked of the device; it may give others.
        max_age_s, frozen_s: see :class:`Freshness`.
        retry_s: between attempts to open it again after it was lost.
        start_s: longest wait for the first picture.
    """

    def __init__(
        self,
        name: str,
        source: int | str,
        *,
        width: int = 640,
        height: int = 480,
        fps: float = 30.0,
        max_age_s: float = 0.5,
        frozen_s: float | None = 1.0,
        retry_s: float = 0.5,
        start_s: float = 5.0,
    ) -> None:
        self.name, self._source = name, source
        self._wanted = (width, height, fps)
        self._limits = max_age_s, frozen_s
        self._freshness = self._anew()
        self._retry_s, self._start_s = retry_s, start_s
        self._lock = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._why = "not open"
        self.reopened = 0

    def open(self) -> None:
        self.close()
        self._stop.clear()
        self._freshness = self._anew()
        self._thread = threading.Thread(target=self._run, name=f"camera {self.name}", daemon=True)
        self._thread.start()
        with self._lock:
            self._lock.wait_for(lambda: self._why == "", timeout=self._start_s)
        try:
            self.read()
        except CameraError:
            self.close()
            raise

    def read(self) -> Frame:
        with self._lock:
            return self._freshness.get(time.monotonic(), self._why)

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None
        self._why = "not open"

    def _anew(self) -> Freshness:
        return Freshness(self.name, max_age_s=self._limits[0], frozen_s=self._limits[1])

    def _run(self) -> None:
        """Open, read until it fails, wait, open again; until closed."""
        first = True
        while not self._stop.is_set():
            capture = self._capture()
            if capture is not None:
                self.reopened += not first
                first = False
                self._stream(capture)
                capture.release()
            self._stop.wait(self._retry_s)

    def _stream(self, capture: Any) -> None:
        """Pictures until there are no more."""
        import cv2

        while not self._stop.is_set():
            there, image = capture.read()
            if not there:
                self._fail("it stopped sending")
                return
            frame = Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), time.monotonic())
            with self._lock:
                self._why = ""
                self._freshness.put(frame)
                self._lock.notify_all()
            if isinstance(self._source, str):
                self._stop.wait(1.0 / self._wanted[2])  # a file is read as fast as it is asked

    def _capture(self) -> Any:
        import cv2

        capture = cv2.VideoCapture(self._source)
        if not capture.isOpened():
            capture.release()
            self._fail(f"{self._source!r} cannot be opened")
            return None
        width, height, fps = self._wanted
        for key, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, width),
            (cv2.CAP_PROP_FRAME_HEIGHT, height),
            (cv2.CAP_PROP_FPS, fps),
            (cv2.CAP_PROP_BUFFERSIZE, 1),
        ):
            capture.set(key, value)
        return capture

    def _fail(self, why: str) -> None:
        with self._lock:
            self._why = why


def fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of a picture in the wanted shape, scaled to it; uint8 [height, width, 3]."""
    if image.shape[:2] == (height, width):
        return image
    import cv2

    tall, wide = image.shape[:2]
    scale = min(tall / height, wide / width)
    cut_h, cut_w = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (tall - cut_h) // 2, (wide - cut_w) // 2
    cut = np.ascontiguousarray(image[top : top + cut_h, left : left + cut_w])
    smaller = cut_h >= height
    return cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
