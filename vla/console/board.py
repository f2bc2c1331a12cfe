"""What the page shows: a hook that keeps the latest of everything, and gives it away to other threads."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from vla.control.loop import Tick
from vla.embodiment import Embodiment
from vla.robots import Reading

#: Samples of the plots, messages and latencies that are kept.
SAMPLES, MESSAGES, LATENCIES = 600, 200, 200
#: Numbers a sample of the plots may have: what is beyond is not plotted.
MAX_LINES = 16
_JPEG_QUALITY = 80
STOPPED = "stopped"


class Board:
    """Hook that remembers what a person at the page wants to see.

    The loop's thread writes and any other reads: nothing here makes the loop wait but a lock held for
    microseconds; pictures are encoded by whoever asks for them.

    Args:
        robot, policy: as the person named them.
    """

    def __init__(self, robot: str, policy: str) -> None:
        self._lock = threading.Lock()
        self._facts: dict[str, Any] = {"robot": robot, "policy": policy}
        self._embodiment: Embodiment | None = None
        self._reading: Reading | None = None
        self._status, self._steps, self._pictures = "getting ready", 0, 0
        self._counts: Counter[str] = Counter()
        self._latency_s: deque[float] = deque(maxlen=LATENCIES)
        self._ticks_s: deque[float] = deque(maxlen=50)
        self._samples: deque[tuple[int, list[float], list[float]]] = deque(maxlen=SAMPLES)
        self._messages: deque[tuple[int, str]] = deque(maxlen=MESSAGES)
        self._said = self._sampled = 0
        self._suggestions: list[str] = []

    def attach(self, embodiment: Embodiment) -> None:
        """The arm, whose rate and names of actions are shown from now on."""
        with self._lock:
            self._embodiment = embodiment

    def suggest(self, sentences: list[str]) -> None:
        """What can be said, for the page to complete."""
        with self._lock:
            self._suggestions = list(sentences)

    def say(self, message: str) -> None:
        """A line for the person."""
        with self._lock:
            self._said += 1
            self._messages.append((self._said, message))

    def stopped(self) -> None:
        """Somebody stopped the arm: that is shown until a new scene or connection begins."""
        with self._lock:
            self._status = STOPPED

    def started(self, reading: Reading) -> None:
        with self._lock:
            self._status = "holding"
        self._take(reading, "holding")

    def ticked(self, tick: Tick) -> None:
        now = time.monotonic()
        state = np.concatenate(list(_plotted(tick.observation.state).values()))
        sample = ([float(x) for x in state[:MAX_LINES]], [float(x) for x in tick.safe.action[:MAX_LINES]])
        with self._lock:
            self._steps += 1
            self._sampled += 1
            self._ticks_s.append(now)
            self._samples.append((self._sampled, *sample))
            self._counts.update(tick.safe.events)
            if tick.chunk is not None and "latency_s" in tick.chunk.info:
                self._latency_s.append(float(tick.chunk.info["latency_s"]))
        self._take(tick.reading, "holding" if tick.chunk is None else "moving")

    def snapshot(self, seen: Mapping[str, int]) -> dict[str, Any]:
        """All but the pictures, JSON-able; of samples and messages those after the numbers in ``seen``."""
        with self._lock:
            reading, arm = self._reading, self._embodiment
            seconds = self._ticks_s[-1] - self._ticks_s[0] if len(self._ticks_s) > 1 else 0.0
            latency = np.quantile(self._latency_s, (0.5, 0.95)) * 1e3 if self._latency_s else None
            return {
                **self._facts,
                "status": self._status,
                "sentence": "" if reading is None else reading.observation.instruction,
                "success": bool(reading and reading.info.get("success", False)),
                "steps": self._steps,
                "rate_hz": round((len(self._ticks_s) - 1) / seconds, 1) if seconds else 0.0,
                "control_hz": 0.0 if arm is None else arm.control_hz,
                "latency_ms": None if latency is None else [round(float(x), 1) for x in latency],
                "safety": dict(sorted(self._counts.items())),
                "cameras": [] if reading is None else sorted(reading.observation.images),
                "picture": self._pictures,
                "state_names": [] if reading is None else _state_names(reading.observation.state),
                "action_names": [] if arm is None else _action_names(arm),
                "samples": [s for s in self._samples if s[0] > seen.get("samples", 0)],
                "messages": [m for m in self._messages if m[0] > seen.get("messages", 0)],
                "suggestions": self._suggestions,
            }

    def picture(self, camera: int) -> bytes | None:
        """The latest picture of a camera as JPEG; None where there is none."""
        with self._lock:
            if self._reading is None:
                return None
            images = self._reading.observation.images
            names = sorted(images)
            image = images[names[camera]] if 0 <= camera < len(names) else None
        if image is None:
            return None
        bgr = np.ascontiguousarray(image[..., ::-1])
        done, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        return jpeg.tobytes() if done else None

    def _take(self, reading: Reading, status: str) -> None:
        with self._lock:
            self._reading = reading
            self._status = self._status if self._status == STOPPED else status
            self._pictures += 1


def _plotted(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Joints where there are any, else all of the state."""
    chosen = ["joint_position"] if "joint_position" in state else list(state)
    return {name: np.atleast_1d(state[name]).ravel() for name in chosen}


def _state_names(state: Mapping[str, np.ndarray]) -> list[str]:
    return _numbered({name: len(values) for name, values in _plotted(state).items()})


def _action_names(arm: Embodiment) -> list[str]:
    return _numbered({member.name: member.size for member in arm.action})


def _numbered(sizes: Mapping[str, int]) -> list[str]:
    names = [f"{name} {i}" if size > 1 else name for name, size in sizes.items() for i in range(size)]
    return names[:MAX_LINES]
