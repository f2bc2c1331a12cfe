"""Random access to the frames of one camera in one episode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from vla.data.arrays import ArrayReader
from vla.data.remote import RemoteFiles, Span
from vla.data.shards import crc32c
from vla.data.source import Frames
from vla.errors import StoreError
from vla.text import sentence

Decode = Callable[[bytes, np.ndarray], None]
#: The pictures of a camera as a store keeps them, and what the codec's index says of each besides its place.
Encoded = tuple[list[bytes], list[list[int]]]


@runtime_checkable
class EncodedFrames(Protocol):
    """What pictures may offer besides: themselves as they are stored."""

    def encoded(self, steps: Sequence[int]) -> Encoded | None: ...


def encoded(frames: Frames, steps: Sequence[int]) -> Encoded | None:
    """The pictures of these steps as they are stored; None where they must be encoded anew."""
    return frames.encoded(steps) if isinstance(frames, EncodedFrames) else None


class FrameReader:
    """Reads, checks and decodes single frames; got from ``EpisodeStore.frame_reader``.

    Args:
        origin: what to call it in an error.
        shape: (height, width) of a frame, pixels.
        index: int64 [T n], the codec's ``frame_columns``: start, length, crc32c of each frame, ...
        array: the bytes of all frames.
        decode: ``(frame, out) -> None``.
    """

    #: Whether frames decode by themselves, in any thread and order.
    independent = True
    __slots__ = ("_array", "_decode", "_facts", "_width", "index", "origin", "shape")

    def __init__(
        self, *, origin: str, shape: tuple[int, int], index: np.ndarray, array: ArrayReader, decode: Decode
    ) -> None:
        self.origin, self.shape, self.index = origin, shape, index
        self._array, self._decode = array, decode
        self._facts = index.data.cast("B").cast("q")  # an element costs 40 ns, of numpy's 100
        self._width = index.shape[1]

    def __len__(self) -> int:
        return len(self.index)

    def read(self, step: int, out: np.ndarray) -> None:
        """Decode the frame of a step into ``out`` uint8 [h w 3], contiguous."""
        self.decode(step, self.fetch(step), out)

    def fetch(self, step: int) -> bytes:
        """The frame of a step as stored, checked; an error names camera and step."""
        try:
            return self.stored(step)
        except StoreError as error:
            raise self._named(step, error) from error

    def decode(self, step: int, frame: bytes, out: np.ndarray) -> None:
        """Decode what :meth:`fetch` gave; other threads may do so at the same time."""
        try:
            self._decode(frame, out)
        except StoreError as error:
            raise self._named(step, error) from error

    def stored(self, step: int) -> bytes:
        """The frame of a step as stored; a damaged one raises :class:`StoreError`."""
        start, length, checksum = self._facts[step * self._width : step * self._width + 3]
        raw = self._array.read_bytes(start, length)
        if crc32c(raw) != checksum:
            raise StoreError("it is damaged (checksum)")
        return raw

    def encoded(self, steps: Sequence[int]) -> Encoded | None:
        """The frames of these steps as stored; None where they do not stand by themselves."""
        return [self.fetch(step) for step in steps], []

    def first(self, step: int) -> int:
        """The first step whose stored frame is needed to decode that of ``step``."""
        return step

    def spans(self, step: int) -> list[Span]:
        """What of which files the frame of a step takes."""
        start, (last, length) = self._facts[self.first(step) * self._width], self.index[step, :2].tolist()
        return self._array.spans(start, last + length - start)

    @property
    def remote(self) -> RemoteFiles | None:
        """The object store that the frames come from; None where they are on this machine."""
        files = self._array.files
        return files if isinstance(files, RemoteFiles) else None

    def _named(self, step: int, error: StoreError) -> StoreError:
        return StoreError(
            f"{self.origin}: the frame of step {step}: {sentence(error)} skip_damaged=True (import: "
            "--skip-damaged) leaves damaged episodes out and says which."
        )


def prefetch(wanted: Iterable[tuple[Frames | None, int]]) -> None:
    """Get the frames of one batch that lie in object stores, all at once; others are left for later."""
    spans: dict[int, tuple[RemoteFiles, list[Span]]] = {}
    for frames, step in wanted:
        if isinstance(frames, FrameReader) and (remote := frames.remote) is not None:
            spans.setdefault(id(remote), (remote, []))[1].extend(frames.spans(step))
    for remote, pieces in spans.values():
        remote.prefetch(pieces)
