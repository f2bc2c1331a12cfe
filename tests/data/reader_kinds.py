"""A small data set in each format that is read, and a source that notes who reads what.

Importable by spawned workers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.data import test_diffusion_policy, test_rlds
from tests.data.lerobot_worlds import describe_v21, write_v21
from tests.data.memory import memory_source
from tests.data.test_hdf5 import write_aloha, write_robomimic
from tests.data.worlds import make_arm, make_episode
from vla.data.archive import VideoCodec
from vla.data.codec import Codec
from vla.data.description import DatasetDescription
from vla.data.exporting import ImageStorage, export_lerobot
from vla.data.readers import open_raw, open_source
from vla.data.readers.known import known_description
from vla.data.source import EpisodeSource, Frames
from vla.data.source_view import SourceView
from vla.data.store import EpisodeStore


@dataclass(frozen=True, kw_only=True)
class Made:
    """A data set on disk and how to open it."""

    path: Path
    description: DatasetDescription | None = None
    instruction: str = ""

    def open(self, path: Path | None = None) -> EpisodeSource:
        return open_source(path or self.path, self.description, instruction=self.instruction)


def store(folder: Path, codec: Codec | None = None) -> Made:
    rng, arm = np.random.default_rng(5), make_arm(wrist=False)
    with EpisodeStore.create(folder / "demos.zarr", embodiments=[arm], codec=codec) as demos:
        for length in (6, 7):
            demos.append(make_episode(rng, arm, length=length, provenance={"task": "reach"}))
    return Made(path=folder / "demos.zarr")


def lerobot_v3(folder: Path, storage: ImageStorage = "video") -> Made:
    with EpisodeStore.open(store(folder).path) as demos:
        return Made(path=export_lerobot(demos, folder / "v3", image_storage=storage).path)


def diffusion_policy(folder: Path, *, zipped: bool = False) -> Made:
    path = folder / "push.zarr"
    test_diffusion_policy.write(path)
    if zipped:
        path = Path(shutil.make_archive(str(path), "zip", path))
    return Made(path=path, description=test_diffusion_policy.describe())


def aloha(folder: Path, *, compress: bool = False) -> Made:
    write_aloha(folder / "plain")
    write_aloha(folder / "aloha", compress=compress)
    return Made(
        path=folder / "aloha",
        description=known_description(open_raw(folder / "plain")),
        instruction="fold it",
    )


def rlds(folder: Path) -> Made:
    (folder / "rlds").mkdir()
    test_rlds.write(folder / "rlds", [test_rlds.episode(0), test_rlds.episode(1, 6)])
    return Made(path=folder / "rlds")


#: Makes the data set of a kind in an empty folder.
KINDS: dict[str, Callable[[Path], Made]] = {
    "store": store,
    "archive": lambda folder: store(folder, VideoCodec()),
    "lerobot v3": lerobot_v3,
    "lerobot v3 images": lambda folder: lerobot_v3(folder, "image"),
    "lerobot v2": lambda folder: Made(path=write_v21(folder / "v2"), description=describe_v21()),
    "robomimic": lambda folder: Made(path=write_robomimic(folder / "a.hdf5"), instruction="lift it"),
    "libero": lambda folder: Made(path=write_robomimic(folder / "a.hdf5", libero=True)),
    "aloha": aloha,
    "aloha jpeg": lambda folder: aloha(folder, compress=True),
    "rlds": rlds,
    "diffusion policy": diffusion_policy,
    "diffusion policy zip": lambda folder: diffusion_policy(folder, zipped=True),
}


def open_kind(kind: str, folder: Path) -> EpisodeSource:
    """A data set of a kind, made and opened; ``memory`` lies nowhere."""
    return memory_source() if kind == "memory" else KINDS[kind](folder).open()


class LoggedSource(SourceView):
    """A source that notes every picture that is read of it, in a file of the process that reads.

    Args:
        source: closed with this one.
        folder: for the notes: ``<pid>.log``, a line ``episode step`` a picture.
        first: number of its first episode.
        arm: what its one arm is called here.
    """

    def __init__(self, source: EpisodeSource, folder: Path, *, first: int = 0, arm: str = "") -> None:
        [(name, embodiment)] = source.embodiments.items()
        arm = arm or name
        super().__init__(
            source,
            embodiments={arm: replace(embodiment, name=arm)},
            episodes=[replace(info, embodiment=arm) for info in source.episodes],
            places=range(len(source.episodes)),
            facts=[],
        )
        self._folder, self._start = folder, first

    def frame_reader(self, index: int, camera: str) -> Frames:
        return _LoggedFrames(super().frame_reader(index, camera), self._folder, self._start + index)


class _LoggedFrames:
    def __init__(self, frames: Frames, folder: Path, episode: int) -> None:
        self._frames, self._folder, self._episode = frames, folder, episode
        self.shape = frames.shape

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, step: int, out: np.ndarray) -> None:
        with (self._folder / f"{os.getpid()}.log").open("a") as log:
            log.write(f"{self._episode} {step}\n")
        self._frames.read(step, out)


def logged(file: Path) -> list[tuple[int, int]]:
    """Windows (episode, step) whose pictures a process has read, in order; cameras of one count once."""
    rows = [tuple(map(int, line.split())) for line in file.read_text().splitlines()] if file.exists() else []
    return [row for number, row in enumerate(rows) if not number or rows[number - 1] != row]  # type: ignore[misc]
