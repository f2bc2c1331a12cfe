"""What a set of demonstrations is to the rest of the package, whatever format it lies in.

::

    raw files ──► RawDataset ──(DatasetDescription)──► MappedSource ┐
    our zarr ───────────────────────────────────────► EpisodeStore ┴► EpisodeSource ──► windows, statistics,
                                                                                       check, view, export

A reader (``vla.data.readers``) knows a format and nothing of robots: it gives columns as they are stored.
A description (``vla.data.description``) says what each column means. Both together are an
:class:`EpisodeSource`, as our own store is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from vla.data.time_stamps import check_rising
from vla.embodiment import Embodiment
from vla.errors import StoreError, UnknownNameError
from vla.text import counted
from vla.types import Episode, Observation, Step

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class EpisodeInfo:
    """What is known of an episode without reading its columns; ``length`` counts steps, ``success`` is None
    where nobody said."""

    index: int
    length: int
    instruction: str
    embodiment: str
    success: bool | None
    provenance: Mapping[str, Any]


class Frames(Protocol):
    """Random access to the pictures of one camera in one episode."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, pixels."""
        ...

    def __len__(self) -> int: ...

    def read(self, step: int, out: np.ndarray) -> None:
        """Put the picture of a step into ``out`` uint8 [h w 3], RGB, contiguous."""
        ...


@runtime_checkable
class EpisodeSource(Protocol):
    """Episodes in units, frames and slots that their embodiments state; numbered from 0, read-only."""

    @property
    def path(self) -> Path | str: ...

    @property
    def embodiments(self) -> Mapping[str, Embodiment]: ...

    @property
    def episodes(self) -> Sequence[EpisodeInfo]: ...

    def __len__(self) -> int: ...

    def columns(self, index: int) -> list[str]:
        """Names of the low-dimensional columns of an episode."""
        ...

    def column(self, index: int, name: str) -> np.ndarray:
        """``state`` float32 [T S], ``action`` [T A], ``executed`` [T A], ``time_s`` float64 [T],
        ``aux/<key>`` [T k]."""
        ...

    def cameras(self, index: int) -> list[str]:
        """Names of the cameras of an episode."""
        ...

    def frame_reader(self, index: int, camera: str) -> Frames: ...

    def index_checksum(self) -> int:
        """CRC-32C that changes when the episodes, their order or their content change."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class BatchedColumns(Protocol):
    """What a source may offer besides: a column of many episodes in few reads."""

    def stacked_column(self, indices: Sequence[int], name: str) -> np.ndarray:
        """The rows of these episodes, one episode after the other."""
        ...


#: An episode's number, or None where a file of no one episode is concerned, which the text names; and why.
Fault = tuple[int | None, str]


@runtime_checkable
class Faulty(Protocol):
    """What a source may offer besides: what of its data it could not open, or left out because of damage."""

    def faults(self) -> list[Fault]: ...


@dataclass(frozen=True, kw_only=True)
class RawColumn:
    """A low-dimensional column as stored: entries a step (trailing dimensions flattened) and their names.

    ``names`` is empty where the file does not name the entries.
    """

    name: str
    size: int
    dtype: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{counted(self.size, 'number')} a step ({self.dtype})"


@dataclass(frozen=True, kw_only=True)
class RawCamera:
    """A camera as stored; ``height`` and ``width`` in pixels."""

    name: str
    height: int
    width: int

    def __str__(self) -> str:
        return f"pictures of {self.height}x{self.width}"


@dataclass(frozen=True, kw_only=True)
class RawEpisode:
    """An episode as stored; ``instruction`` is empty and ``success`` None where the file says nothing."""

    index: int
    length: int
    instruction: str
    success: bool | None = None
    provenance: Mapping[str, Any]


@runtime_checkable
class RawDataset(Protocol):
    """A data set in its own format: columns and pictures as they are stored, nothing interpreted."""

    @property
    def path(self) -> Path: ...

    @property
    def format(self) -> str:
        """``lerobot_v3``, ``lerobot_v2``, ``robomimic``, ``libero``, ``aloha``, ``rlds`` ..."""
        ...

    @property
    def control_hz(self) -> float | None:
        """Steps per second as the file states it; None where it does not."""
        ...

    @property
    def damaged(self) -> Sequence[str]:
        """What was left out on opening because it is damaged, and why; empty unless that was asked for."""
        ...

    @property
    def robot(self) -> str | None:
        """The robot's name as the file states it; None where it does not."""
        ...

    @property
    def columns(self) -> Mapping[str, RawColumn]: ...

    @property
    def cameras(self) -> Mapping[str, RawCamera]: ...

    @property
    def unread(self) -> Mapping[str, str]:
        """What of every step is neither a column nor a camera to the reader, by name, and what it is."""
        ...

    @property
    def episodes(self) -> Sequence[RawEpisode]: ...

    def column(self, index: int, name: str) -> np.ndarray:
        """A column of an episode, [T size], in the stored dtype."""
        ...

    def time_s(self, index: int) -> np.ndarray | None:
        """float64 [T], seconds, as stored (rising or not); None where the file has no time stamps."""
        ...

    def frame_reader(self, index: int, camera: str) -> Frames:
        """Pictures as stored, but always RGB order as the format defines it."""
        ...

    def checksum(self) -> int:
        """CRC-32C that changes when the files' content does, as far as ``readers.fingerprint`` reads; copying
        them does not change it."""
        ...

    def close(self) -> None: ...


def check_episode(index: int, count: int, path: Path | str) -> None:
    """Raise :class:`StoreError` where a source of ``count`` episodes has none of this number."""
    if not 0 <= index < count:
        has = f"{counted(count, 'episode')}, numbered from 0"
        raise StoreError(f"There is no episode {index} in {path}, which has {has}.")


def chosen(cameras: Mapping[str, T], wanted: Collection[str] | None, path: Path | str) -> dict[str, T]:
    """Those of a data set's cameras that are wanted (None: all).

    Raises:
        UnknownNameError: one that is wanted is not among them.
    """
    for name in wanted or ():
        if name not in cameras:
            raise UnknownNameError(f"camera of {path}", name, cameras)
    return {name: camera for name, camera in cameras.items() if wanted is None or name in wanted}


def read_episode(source: EpisodeSource, index: int, cameras: Sequence[str] | None = None) -> Episode:
    """The whole episode in memory, with auxiliary quantities and the pictures of ``cameras`` (None: all)."""
    info, embodiment = source.episodes[index], source.embodiments[source.episodes[index].embodiment]
    columns = {name: source.column(index, name) for name in source.columns(index)}
    frames = {
        name: source.frame_reader(index, name)
        for name in (source.cameras(index) if cameras is None else cameras)
    }
    images = {name: read_frames(reader, range(info.length)) for name, reader in frames.items()}
    states = columns.get("state", np.zeros((info.length, 0), np.float32))
    steps = []
    for t in range(info.length):
        observation = Observation(
            images={name: pictures[t] for name, pictures in images.items()},
            state=embodiment.unpack_state(states[t]),
            instruction=info.instruction,
            embodiment=info.embodiment,
            time_s=float(columns["time_s"][t]),
            aux={
                name.removeprefix("aux/"): values[t]
                for name, values in columns.items()
                if name.startswith("aux/")
            },
        )
        steps.append(
            Step(observation=observation, action=columns["action"][t], executed=columns["executed"][t])
        )
    return Episode(
        steps=tuple(steps),
        instruction=info.instruction,
        embodiment=info.embodiment,
        success=info.success,
        provenance=info.provenance,
    )


def read_through(source: EpisodeSource, index: int) -> None:
    """Read every number and picture of an episode and keep none.

    Raises:
        DatasetError, StoreError: something in it is damaged, or its time stamps do not rise.
    """
    for name in source.columns(index):
        source.column(index, name)
    check_rising(source.column(index, "time_s"), episode_name(source, index))
    for camera in source.cameras(index):
        frames = source.frame_reader(index, camera)
        picture = np.empty((*frames.shape, 3), np.uint8)
        for step in range(source.episodes[index].length):
            frames.read(step, picture)


def episode_name(source: EpisodeSource, index: int) -> str:
    """For errors: an episode's number, its source, and its file where the format tells."""
    facts = source.episodes[index].provenance
    file = facts.get("table") or facts.get("file")
    return f"Episode {index} of {source.path}" + (f" ({file})" if file else "")


def stacked_column(source: EpisodeSource, indices: Sequence[int], name: str) -> np.ndarray:
    """A column of one or more episodes, one episode after the other, in as few reads as the source can."""
    if isinstance(source, BatchedColumns):
        return source.stacked_column(indices, name)
    return np.concatenate([source.column(index, name) for index in indices])


def read_frames(reader: Frames, steps: Sequence[int] | range) -> np.ndarray:
    """Pictures at ``steps``: uint8 [n h w 3]."""
    out = np.empty((len(steps), *reader.shape, 3), np.uint8)
    for step, picture in zip(steps, out, strict=True):
        reader.read(int(step), picture)
    return out
