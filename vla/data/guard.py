"""The one seam between the bytes of foreign files and the rest: whatever they cause is a DatasetError.

Libraries that read files answer damaged bytes with almost any exception (``BadZipFile``, ``RuntimeError``,
``KeyError``, ``AttributeError``, ``MemoryError`` ...). Readers say what they can say better themselves; all
else ends here, named and with what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from vla.data.damage import LEAVE_OUT
from vla.data.source import Frames, RawCamera, RawColumn, RawDataset, RawEpisode
from vla.errors import DatasetError, VlaError


@contextmanager
def reading(what: object, expected: str = "") -> Iterator[None]:
    """Let errors of this package pass, and make a :class:`~vla.errors.DatasetError` of everything else.

    Args:
        what: is read: the file, and the place in it where that is known.
        expected: what it should be, without an article, where its name does not tell.
    """
    try:
        yield
    except (VlaError, ImportError):
        raise
    except Exception as error:  # a guard: what damaged bytes raise is not to be foreseen
        fault = f"is no readable {expected}" if expected else "is damaged"
        raise DatasetError(
            f"{what} {fault} ({type(error).__name__}: {error}). Fetch or write it again, or {LEAVE_OUT}"
        ) from error


class GuardedDataset:
    """A :class:`~vla.data.source.RawDataset` behind :func:`reading`.

    Args:
        raw: opened under :func:`reading` already; closed with this one.
    """

    def __init__(self, raw: RawDataset) -> None:
        self._raw = raw
        self.path, self.format, self.robot, self.control_hz = raw.path, raw.format, raw.robot, raw.control_hz
        self.columns: Mapping[str, RawColumn] = raw.columns
        self.cameras: Mapping[str, RawCamera] = raw.cameras
        self.episodes: Sequence[RawEpisode] = raw.episodes
        self.damaged: Sequence[str] = raw.damaged
        self.unread: Mapping[str, str] = raw.unread

    def column(self, index: int, name: str) -> np.ndarray:
        with reading(f"Column {name!r} of {self._where(index)}"):
            return self._raw.column(index, name)

    def time_s(self, index: int) -> np.ndarray | None:
        with reading(f"The time stamps of {self._where(index)}"):
            return self._raw.time_s(index)

    def frame_reader(self, index: int, camera: str) -> Frames:
        where = f"camera {camera!r} of {self._where(index)}"
        with reading(where):
            return _GuardedFrames(frames=self._raw.frame_reader(index, camera), where=where)

    def checksum(self) -> int:
        with reading(self.path):
            return self._raw.checksum()

    def close(self) -> None:
        self._raw.close()

    def _where(self, index: int) -> str:
        facts = self.episodes[index].provenance if 0 <= index < len(self.episodes) else {}
        file = facts.get("table") or facts.get("file")
        return f"episode {index} of {self.path}" + (f" ({file})" if file else "")


@dataclass(frozen=True, kw_only=True, eq=False)
class _GuardedFrames:
    frames: Frames
    where: str

    @property
    def shape(self) -> tuple[int, int]:
        return self.frames.shape

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, step: int, out: np.ndarray) -> None:
        with reading(f"Step {step}, {self.where}"):
            self.frames.read(step, out)
