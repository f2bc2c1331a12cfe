"""Random access to the frames of one camera in one episode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vla.data.shards import crc32c
from vla.errors import StoreError


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameReader:
    """Reads, checks and decodes single frames; got from ``EpisodeStore.frame_reader``.

    Args:
        origin: what to call it in an error.
        shape: (height, width) of a frame, pixels.
        index: int64 [T 3], start, length and crc32c of each frame.
        read_bytes: ``(start, length) -> bytes``.
        decode: ``(jpeg, out) -> None``.
    """

    origin: str
    shape: tuple[int, int]
    index: np.ndarray
    read_bytes: Callable[[int, int], bytes]
    decode: Callable[[bytes, np.ndarray], None]

    def read(self, step: int, out: np.ndarray) -> None:
        """Decode the frame of a step into ``out`` uint8 [h w 3], contiguous."""
        self.decode(self.jpeg(step), out)

    def jpeg(self, step: int) -> bytes:
        """The frame of a step as stored; a damaged one raises :class:`StoreError`."""
        start, length, checksum = self.index[step].tolist()
        try:
            raw = self.read_bytes(start, length)
        except StoreError as error:
            raise StoreError(f"{self.origin}: {error}") from error
        if crc32c(raw) != checksum:
            raise StoreError(f"{self.origin}: the frame of step {step} is damaged (checksum).")
        return raw
