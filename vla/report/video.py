"""Moving pictures: H.264 files that every browser plays, and frames re-rendered from saved states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import av
import cv2
import numpy as np

from vla.control.loop import Tick
from vla.interfaces import Env
from vla.robots import Reading

CAPTION_PX = 44
#: A film of a running loop is no longer than this.
MAX_FILM_S = 300.0
#: The last picture stays this long, so that a loop shows how it ended.
LINGER_FRAMES = 8
#: Steps of standing still that a film of a running loop keeps after a motion, so that its end is seen.
SETTLE_STEPS = 8
INK, MUTED, PAPER = (240, 240, 240), (150, 150, 155), (24, 24, 27)
GOOD, BAD = (90, 200, 120), (235, 100, 90)


@runtime_checkable
class FrameRenderer(Protocol):
    """An env that draws larger pictures than its policy sees."""

    def render_frame(self, size: int) -> np.ndarray:
        """uint8 [size size 3]."""
        ...


class VideoWriter:
    """An mp4 (H.264, yuv420p, even sizes), written as frames come; use as a context manager.

    It bears its name once it is finished: a killed writer leaves a ``.part`` beside it, never half a video.

    Args:
        path: its folder is made.
        fps: frames per second, e.g. the control rate for real time.
        crf: quality, lower is better and larger; 26 keeps a 15 s clip of 480 px well under 1 MB.
        keyframe_every: frames from one that stands for itself to the next, few where a page is to jump
            about in the film; None: as the encoder sees fit.
    """

    def __init__(
        self, path: str | Path, *, fps: float, crf: int = 26, keyframe_every: int | None = None
    ) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fps, self._crf = Fraction(fps).limit_denominator(1000), crf
        self._keyframe_every = keyframe_every
        self.num_frames = 0
        self._container: Any = None
        self._stream: Any = None

    def add(self, frame: np.ndarray) -> None:
        """Append uint8 [h w 3] RGB; the first frame sets the size, odd rows or columns are dropped."""
        height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        if self._container is None:
            self._part = self.path.with_suffix(".part")
            self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "+faststart"})
            self._stream = self._container.add_stream("libx264", rate=self._fps)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            self._stream.options = {"crf": str(self._crf), "preset": "veryfast", "threads": "1"}
            if self._keyframe_every is not None:
                self._stream.options |= {"g": str(self._keyframe_every)}
        if (self._stream.height, self._stream.width) != (height, width):
            raise ValueError(
                f"Frame of {frame.shape[:2]} in a video of {(self._stream.height, self._stream.width)}."
            )
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(picture))
        self.num_frames += 1

    @property
    def length_s(self) -> float:
        """Playing time so far."""
        return float(self.num_frames / self._fps)

    def close(self) -> None:
        """Finish the file; without a frame there is none."""
        if self._container is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = None
            self._part.replace(self.path)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()


def write_video(path: str | Path, frames: Iterable[np.ndarray], *, fps: float) -> None:
    """All frames to one mp4."""
    with VideoWriter(path, fps=fps) as writer:
        for frame in frames:
            writer.add(frame)


def read_frames(path: str | Path) -> list[np.ndarray]:
    """Every frame of a video, uint8 [h w 3] RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


class StateTrace:
    """Hook that remembers the simulator's states, so that an episode is drawn only if it is worth it.

    :meth:`frames` restores each of them: it shows exactly what happened, and leaves the env at the end.
    """

    def __init__(self, env: Env, *, size: int = 384) -> None:
        self._env, self._size = env, size
        self.states: list[tuple[dict[str, Any], Reading]] = []  # before the first step and after each

    def started(self, reading: Reading) -> None:
        self.states.append((self._env.save_state(), reading))

    def ticked(self, tick: Tick) -> None:
        self.states.append((self._env.save_state(), tick.reading))

    def frames(self) -> Iterator[np.ndarray]:
        frame = None
        for state, reading in self.states:
            # those of the reading may never have been drawn
            images = self._env.restore_state(state)["images"]
            there = replace(reading, observation=replace(reading.observation, images=images))
            frame = picture(self._env, there, self._size)
            yield frame
        if frame is not None:
            yield from [frame] * LINGER_FRAMES


class LiveVideo:
    """Hook that films a running loop: one picture a control step, written as it comes.

    Every step in which the arm follows an instruction is there, and the first ``SETTLE_STEPS`` of standing
    still after it; the waiting for the next sentence is left out.

    Args:
        env, size: as for :func:`picture`.
        writer: shared by the attempts of a conversation.
        max_s: once the film is this long, nothing is added any more.
        say: is told so.
    """

    def __init__(
        self,
        env: Env,
        writer: VideoWriter,
        *,
        size: int = 384,
        max_s: float = MAX_FILM_S,
        say: Callable[[str], None] = print,
    ) -> None:
        self._env, self._writer, self._size, self._max_s, self._say = env, writer, size, max_s, say
        self._still_steps = 0

    def started(self, reading: Reading) -> None:
        self._film(reading)

    def ticked(self, tick: Tick) -> None:
        self._still_steps = 0 if tick.chunk is not None else self._still_steps + 1
        if self._still_steps <= SETTLE_STEPS:
            self._film(tick.reading)

    def _film(self, reading: Reading) -> None:
        if self._writer.length_s >= self._max_s:
            return
        self._writer.add(picture(self._env, reading, self._size))
        if self._writer.length_s >= self._max_s:
            self._say(f"{self._writer.path} is {self._max_s:g} s long now: what follows is not filmed.")


def picture(env: Env, reading: Reading, size: int = 384) -> np.ndarray:
    """The scene large, the cameras of the policy beside it, instruction and state below; uint8 RGB.

    Args:
        env: at the state to be shown.
        reading: what the policy saw there.
        size: height of the scene in pixels.
    """
    views = [
        cv2.resize(v, (size // 2, size // 2), interpolation=cv2.INTER_NEAREST)
        for v in reading.observation.images.values()
    ]
    if isinstance(env, FrameRenderer):
        scene = env.render_frame(size)
    elif views:
        scene = cv2.resize(views[0], (size, size), interpolation=cv2.INTER_CUBIC)
    else:
        scene = np.full((size, size, 3), PAPER, np.uint8)
    side = np.full((size, size // 2, 3), PAPER, np.uint8)
    for i, view in enumerate(views[:2]):
        side[i * (size // 2) : i * (size // 2) + view.shape[0]] = view
    side[:, 0] = side[size // 2] = PAPER
    return np.vstack([np.hstack([scene, side]), caption(reading, size + size // 2)])


def caption(reading: Reading, width: int) -> np.ndarray:
    """Instruction, clock and outcome as a strip, uint8 [CAPTION_PX width 3]."""
    strip = np.full((CAPTION_PX, width, 3), PAPER, np.uint8)
    succeeded, wrong = reading.info.get("success", False), reading.info.get("wrong", False)
    word, color = ("done", GOOD) if succeeded else ("wrong goal", BAD) if wrong else ("", MUTED)
    _write(strip, f'"{reading.observation.instruction}"', (8, 18), INK, width - 16)
    _write(
        strip,
        f"{reading.observation.embodiment}   {reading.observation.time_s:.1f} s",
        (8, 37),
        MUTED,
        width // 2,
    )
    _write(strip, word, (width // 2, 37), color, width // 2)
    return strip


def _write(image: np.ndarray, text: str, at: tuple[int, int], color: tuple[int, int, int], room: int) -> None:
    """Plain text, made smaller until it fits (the font has ASCII only)."""
    text = text.encode("ascii", "replace").decode()
    scale = 0.48
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    if width > room:
        scale *= room / width
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)
