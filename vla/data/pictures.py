"""The pictures of a batch of windows: cameras found by role, frames decoded straight into the batch."""

from __future__ import annotations

import multiprocessing as mp
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import cv2
import numpy as np

from vla.data.frames import FrameReader, prefetch
from vla.data.source import EpisodeInfo, EpisodeSource, Frames
from vla.errors import ConfigError, UnknownNameError

_Loaded = tuple[FrameReader, int, bytes, np.ndarray]
_MAX_THREADS = 4  # in the main process; loader workers have one each
_MAX_READERS = 16_384  # some 4 kB each for episodes of 100 steps


class PictureReader:
    """Random access to what the cameras of some episodes saw.

    Args:
        members: episodes with their sources; episodes are numbered by their places here.
        roles: cameras by role, in the order of the pictures.
        image_size: height and width of the pictures, pixels.
        resize: area-resize frames of another size (otherwise they raise).

    Raises:
        ConfigError: a camera has another size, and ``resize`` is false.
        UnknownNameError: no episode has a camera of a role.
    """

    def __init__(
        self,
        members: Sequence[tuple[EpisodeSource, EpisodeInfo]],
        *,
        roles: Sequence[str],
        image_size: int,
        resize: bool,
    ) -> None:
        self._members, self._roles, self._size = members, tuple(roles), image_size
        self._cameras = _find_cameras(members, roles, image_size, resize)
        self._readers: dict[tuple[int, int], Frames] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For another process: it opens its own frames."""
        return {**self.__dict__, "_readers": {}}

    def read(self, episodes: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [B C h w 3], and bool [B C]: which of them there are (the others are black)."""
        size = self._size
        images = np.empty((len(episodes), len(self._roles), size, size, 3), np.uint8)
        wanted = [
            (frames, step)
            for episode, step in zip(episodes.tolist(), steps.tolist(), strict=True)
            for frames in self._frames(episode)
        ]
        prefetch(wanted)
        loaded: list[_Loaded] = []
        for (frames, step), out in zip(wanted, images.reshape(-1, size, size, 3), strict=True):
            if frames is None:
                out[:] = 0
            elif isinstance(frames, FrameReader) and frames.independent:
                loaded.append((frames, step, frames.fetch(step), out))
            else:
                _fit(frames.shape, out, partial(frames.read, step))
        _decode(loaded)
        mask = np.array([frames is not None for frames, _ in wanted]).reshape(images.shape[:2])
        return images, mask

    def _frames(self, episode: int) -> list[Frames | None]:
        found: list[Frames | None] = []
        for c, camera in enumerate(self._cameras[episode]):
            frames = None if camera is None else self._readers.get((episode, c))
            if frames is None and camera is not None:
                source, info = self._members[episode]
                if len(self._readers) >= _MAX_READERS:
                    del self._readers[next(iter(self._readers))]
                frames = self._readers[episode, c] = source.frame_reader(info.index, camera)
            found.append(frames)
        return found


def _decode(loaded: list[_Loaded]) -> None:
    """Decode in as many threads as help: the libraries let go of Python's lock while they do."""
    count = 1 if mp.parent_process() is not None else min(_MAX_THREADS, len(os.sched_getaffinity(0)))
    if len(loaded) < 2 * count:
        count = 1
    others = [_pool(os.getpid()).submit(_decode_all, loaded[i::count]) for i in range(1, count)]
    _decode_all(loaded[::count])
    for other in others:
        other.result()


def _decode_all(loaded: list[_Loaded]) -> None:
    for frames, step, raw, out in loaded:
        _fit(frames.shape, out, partial(frames.decode, step, raw))


def _fit(shape: tuple[int, int], out: np.ndarray, read: Callable[[np.ndarray], None]) -> None:
    """Fill ``out`` with a picture of ``shape``, area-resized where it has another size."""
    if shape == out.shape[:2]:
        read(out)
        return
    whole = np.empty((*shape, 3), np.uint8)
    read(whole)
    cv2.resize(whole, out.shape[1::-1], dst=out, interpolation=cv2.INTER_AREA)


@cache
def _pool(_: int) -> ThreadPoolExecutor:
    """A process's own threads."""
    return ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="vla-decode")


def _find_cameras(
    members: Sequence[tuple[EpisodeSource, EpisodeInfo]], roles: Sequence[str], size: int, resize: bool
) -> list[tuple[str | None, ...]]:
    """Per episode and role, the camera's name."""
    names: dict[tuple[int, str], tuple[str | None, ...]] = {}
    found = []
    for source, info in members:
        key = id(source), info.embodiment
        if key not in names:
            cameras = source.embodiments[info.embodiment].cameras
            by_role = {camera.role: camera for camera in cameras}
            for role in roles:
                camera = by_role.get(role)
                if camera is not None and (camera.height, camera.width) != (size, size) and not resize:
                    raise ConfigError(
                        f"Camera {camera.name!r} of {info.embodiment!r} in {source.path} is "
                        f"{camera.height}x{camera.width}, image_size is {size}: set resize=True, or "
                        "image_size to match."
                    )
            names[key] = tuple(by_role[role].name if role in by_role else None for role in roles)
        found.append(names[key])
    for c, role in enumerate(roles):
        if all(row[c] is None for row in found):
            known = {
                cam.role
                for source, _ in members
                for arm in source.embodiments.values()
                for cam in arm.cameras
            }
            if known:
                raise UnknownNameError("camera role of these stores", role, known)
    return found
