"""HDF5 demonstrations of robomimic, robosuite, LIBERO and ALOHA; see ``hdf5_layouts`` for what lies where.

Image data sets (uint8 [T h w 3], or JPEG files one a step) are cameras, numeric ones columns, named by their
path below the episode (``obs/robot0_eef_pos``, ``observations/qpos``). Depth maps and pictures of other types
or shapes are ``unread``. JPEG is decoded as JPEG says: a file whose pictures were handed to OpenCV in RGB
order needs ``"bgr": true`` of its camera.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vla.data.damage import lengths_text, no_whole_episode
from vla.data.guard import reading
from vla.data.readers.fingerprint import fingerprint
from vla.data.readers.hdf5_files import Hdf5Files
from vla.data.readers.hdf5_layouts import Demonstration, FileFacts, demonstrations, file_facts, natural
from vla.data.readers.stills import StillFrames, decode_still
from vla.data.shards import crc32c
from vla.data.source import Frames, RawCamera, RawColumn, RawEpisode, check_episode, chosen
from vla.errors import DatasetError, UnknownNameError
from vla.text import quoted

_SUFFIXES = (".hdf5", ".h5")
_LEFT_OUT = ("next_obs", "compress_len")
_ACTIONS = {"robomimic": "actions", "libero": "actions", "aloha": "action"}
_CUT = "Was it cut while recorded? Fetch it again, or leave it out (vla data import --skip-damaged)."
_APART = (
    "Put files with other contents in a folder of their own, or leave such episodes out (vla data import "
    "--skip-damaged)."
)
T = TypeVar("T")


def recognise(path: Path) -> bool:
    """Whether ``path`` is an HDF5 file or a folder with some."""
    return path.suffix in _SUFFIXES if path.is_file() else bool(_files(path))


def open_raw(
    path: Path,
    *,
    skip_damaged: bool = False,
    cameras: Collection[str] | None = None,
    to_look: bool = False,  # what is damaged is left out all the same
) -> Hdf5Dataset:
    return Hdf5Dataset(path, skip_damaged=skip_damaged, cameras=cameras)


class Hdf5Dataset:
    """A :class:`~vla.data.source.RawDataset` of one file or a folder of like files.

    Args:
        path: file or folder.
        skip_damaged: leave unreadable files and episodes that do not fit the first one out; list them in
            ``damaged``.
        cameras: that are read; None: all.

    Raises:
        DatasetError: unreadable or unlike files, missing or ragged data.
        MissingExtraError: h5py is not installed.
    """

    def __init__(
        self, path: Path, *, skip_damaged: bool = False, cameras: Collection[str] | None = None
    ) -> None:
        self.path, self._wanted = path, cameras
        self.columns: Mapping[str, RawColumn] = {}
        self.cameras: Mapping[str, RawCamera] = {}
        self.unread: Mapping[str, str] = {}
        self.episodes: list[RawEpisode] = []
        self._facts: FileFacts | None = None
        self._groups: list[tuple[Path, str]] = []  # file and group of each episode
        self._files = Hdf5Files()
        damaged: list[str] = []
        for file in [path] if path.is_file() else _files(path):
            for opened in self._demonstrations(file, damaged if skip_damaged else None):
                place = f"{file}, {opened.name}"
                _guard(lambda item=opened: self._add(item), place, damaged if skip_damaged else None)
        self.damaged: tuple[str, ...] = tuple(damaged)
        if self._facts is None or not self.episodes:
            raise DatasetError(no_whole_episode(path, damaged))
        self.format: str = self._facts.layout
        self.control_hz, self.robot = self._facts.control_hz or self._clocked(), self._facts.robot

    def column(self, index: int, name: str) -> np.ndarray:
        if name not in self.columns:
            raise UnknownNameError(f"column of {self.path}", name, self.columns)
        values = self._read(index, name, slice(None))
        return values.reshape(len(values), -1)

    def time_s(self, index: int) -> None:
        """These formats define no time stamps; MuJoCo's flattened ``states`` begin with the time."""
        return

    def frame_reader(self, index: int, camera: str) -> Frames:
        if camera not in self.cameras:
            raise UnknownNameError(f"camera of {self.path}", camera, self.cameras)
        stored = self.cameras[camera]
        return StillFrames(
            origin=f"{self._where(index)}, camera {camera!r}",
            shape=(stored.height, stored.width),
            length=self.episodes[index].length,
            read_still=lambda step: self._read(index, camera, step),
        )

    def checksum(self) -> int:
        """Of the files' content (see ``readers.fingerprint``) and of every episode's actions, which are read
        whole however large the files are."""
        folder = self.path if self.path.is_dir() else self.path.parent
        facts: list[Any] = list(fingerprint((file for file, _ in self._groups), folder))
        for index, episode in enumerate(self.episodes):
            actions = self._read(index, _ACTIONS[self.format], slice(None))
            facts.append(
                [episode.length, episode.instruction, crc32c(np.ascontiguousarray(actions).tobytes())]
            )
        return crc32c(json.dumps(facts).encode())

    def close(self) -> None:
        self._files.close()

    def _clocked(self) -> float | None:
        """Steps per second by the simulator's clock in the states of the first episode, where it is even."""
        names = self.columns["states"].names if "states" in self.columns else ()
        if names[:1] != ("time",) or self.episodes[0].length < 3:
            return None
        steps = np.diff(self._read(0, "states", slice(None))[:, 0].astype(np.float64))
        usual = float(np.median(steps))
        even = np.abs(steps - usual) < 0.01 * usual
        return round(1 / usual, 3) if usual > 0 and even.mean() > 0.95 else None

    def _demonstrations(self, path: Path, damaged: list[str] | None) -> Iterator[Demonstration]:
        """Episodes of a file; nothing where it is damaged and that is noted."""
        file = _guard(lambda: self._files.get(path), path, damaged)
        facts = None if file is None else _guard(lambda: file_facts(file, path), path, damaged)
        if facts is None:
            return
        if self._facts is not None and facts.layout != self._facts.layout:
            raise DatasetError(
                f"{path} is of {facts.layout}, files before it of {self._facts.layout}: put "
                "each in its own folder."
            )
        self._facts = self._facts or facts
        for key in ("control_hz", "robot"):
            here, first = getattr(facts, key), getattr(self._facts, key)
            if here != first:
                raise DatasetError(
                    f"{path}: {key} is {here}, in the files before it {first}: put each in its own folder."
                )
        yield from _guard(lambda: list(demonstrations(file, facts, path)), path, damaged) or []

    def _add(self, demo: Demonstration) -> None:
        assert self._facts is not None
        group = demo.group()
        where = f"{group.file.filename}, {group.name}"
        actions = _ACTIONS[self._facts.layout]
        if actions not in group:
            raise DatasetError(f"{where} has no {actions!r}; it has {quoted(sorted(group))}. {_CUT}")
        length, members = len(group[actions]), _datasets(group)
        members = {name: values for name, values in members.items() if _is_of_steps(name)}
        ragged = {name: len(values) for name, values in members.items() if len(values) != length}
        if ragged or not length:
            raise DatasetError(
                f"{where} is ragged: {actions} has {length} steps, but {lengths_text(ragged)}. {_CUT}"
            )
        stated = group.attrs.get("num_samples", length)
        if int(stated) != length:
            raise DatasetError(f"{where}: num_samples says {stated} steps, {actions} has {length}.")
        pictures = {n: v for n, v in members.items() if _is_pictures(v)}
        cameras = {n: _camera(n, v, where) for n, v in chosen(pictures, self._wanted, where).items()}
        columns = {n: self._column(n, v) for n, v in members.items() if _is_numbers(v)}
        if not self.episodes:
            self.columns, self.cameras = columns, cameras
            rest = {n: v for n, v in members.items() if n not in columns and n not in pictures}
            self.unread = {n: _unreadable(v) for n, v in sorted(rest.items())}
        else:
            _check_alike(where, self.columns, columns)
            _check_alike(where, self.cameras, cameras)
        self._groups.append((Path(group.file.filename), group.name))
        self.episodes.append(
            RawEpisode(
                index=len(self.episodes),
                length=length,
                instruction=demo.instruction,
                success=bool(group.attrs["success"]) if "success" in group.attrs else None,
                provenance=demo.facts,
            )
        )

    def _column(self, name: str, values: Any) -> RawColumn:
        assert self._facts is not None
        size, joints = int(np.prod(values.shape[1:])), self._facts.joints
        names = joints if name == "states" and len(joints) == size else ()
        return RawColumn(name=name, size=size, dtype=str(values.dtype), names=names)

    def _read(self, index: int, name: str, rows: slice | int) -> np.ndarray:
        check_episode(index, len(self._groups), self.path)
        with reading(f"{self._where(index)}: {name!r}"):
            return self._files.read(*self._groups[index], name, rows)

    def _where(self, index: int) -> str:
        file, group = self._groups[index]
        return f"{file}, {group}"


def _guard(act: Callable[[], T], what: object, damaged: list[str] | None) -> T | None:
    """What ``act`` gives; where ``damaged`` is given, what is wrong with ``what`` is noted there instead."""
    try:
        with reading(what):
            return act()
    except DatasetError as error:
        if damaged is None:
            raise
        damaged.append(str(error))
        return None


def _datasets(group: Any) -> dict[str, Any]:
    """The arrays of an episode by their path below it."""
    found: dict[str, Any] = {}
    for name, member in group.items():
        if name in _LEFT_OUT:
            continue
        if hasattr(member, "items"):
            found |= {f"{name}/{below}": values for below, values in _datasets(member).items()}
        elif member is None:
            raise DatasetError(f"{group.file.filename}, {group.name}: {name!r} cannot be opened: damaged.")
        elif getattr(member, "shape", None):
            found[name] = member
    return found


def _is_of_steps(name: str) -> bool:
    """Whether it has a row a step; recorders keep streams of other rates in groups of their own."""
    return "/" not in name or name.partition("/")[0] in ("obs", "observations")


def _is_pictures(values: Any) -> bool:
    if values.dtype == np.uint8 and values.ndim == 4:
        return values.shape[3] == 3
    return "images" in values.name.split("/") and values.dtype in (np.uint8, object) and values.ndim < 3


def _is_numbers(values: Any) -> bool:
    numeric = np.issubdtype(values.dtype, np.number) or values.dtype == bool
    return numeric and values.ndim < 4 and not _is_pictures(values)


def _unreadable(values: Any) -> str:
    shape = " ".join(map(str, values.shape[1:]))
    return (
        f"{values.dtype} [{shape}]; pictures are uint8 [height width 3]"
        if values.ndim == 4
        else str(values.dtype)
    )


def _camera(name: str, values: Any, where: str) -> RawCamera:
    if values.ndim == 4:
        return RawCamera(name=name, height=values.shape[1], width=values.shape[2])
    picture = decode_still(np.asarray(values[0]), f"{where}, {name!r}, step 0")
    return RawCamera(name=name, height=picture.shape[0], width=picture.shape[1])


def _check_alike(where: str, first: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    for name in sorted(set(first) | set(here)):
        if name not in first or name not in here:
            raise DatasetError(
                f"{where} {'lacks' if name in first else 'has'} {name!r}, unlike the first one. {_APART}"
            )
        left, right = first[name], here[name]
        if isinstance(left, RawColumn) and left.size == right.size:
            continue
        if left != right:
            raise DatasetError(f"{where}: {name!r} has {right}, in the first episode {left}. {_APART}")


def _files(path: Path) -> list[Path]:
    files = [p for p in path.iterdir() if p.suffix in _SUFFIXES and p.is_file()] if path.is_dir() else []
    return sorted(files, key=lambda p: natural(p.name))
