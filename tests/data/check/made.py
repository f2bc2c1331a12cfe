"""Clean demonstrations in memory, in which a test plants one fault."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from tests.data.worlds import make_arm
from vla.data.source import EpisodeInfo, Fault
from vla.embodiment import Embodiment
from vla.errors import DatasetError

LENGTH = 40
GOALS = ("red square", "blue square", "green square")


class MadeSource:
    """An ``EpisodeSource`` over arrays; ``pictures[episode][camera]`` is a list whose None is undecodable."""

    path = Path("made")

    def __init__(self, *, count: int = 24, size: int = 48) -> None:
        self.arm = make_arm("alpha", image_size=size)
        self.values: list[dict[str, np.ndarray]] = []
        self.pictures: list[dict[str, list[np.ndarray | None]]] = []
        self.lost: list[Fault] = []
        self.episodes: Sequence[EpisodeInfo] = []
        infos = []
        for i in range(count):
            values, film = _demonstration(i, self.arm.control_hz, size)
            self.values.append({name: column.copy() for name, column in values.items()})
            self.pictures.append({camera: list(pictures) for camera, pictures in film.items()})
            infos.append(
                EpisodeInfo(
                    index=i,
                    length=LENGTH,
                    instruction=f"reach the {GOALS[i % 3]}",
                    embodiment="alpha",
                    success=True,
                    provenance={"seed": i},
                )
            )
        self.episodes = infos

    @property
    def embodiments(self) -> Mapping[str, Embodiment]:
        return {self.arm.name: self.arm}

    def __len__(self) -> int:
        return len(self.episodes)

    def columns(self, index: int) -> list[str]:
        return list(self.values[index])

    def column(self, index: int, name: str) -> np.ndarray:
        return self.values[index][name]

    def cameras(self, index: int) -> list[str]:
        return list(self.pictures[index])

    def frame_reader(self, index: int, camera: str) -> _Pictures:
        return _Pictures(self.pictures[index][camera], self.arm.cameras[0].height)

    def faults(self) -> list[Fault]:
        return self.lost

    def index_checksum(self) -> int:
        return zlib.crc32(b"".join(v["state"].tobytes() for v in self.values))

    def close(self) -> None:
        pass

    # what tests plant

    def rename(self, index: int, instruction: str) -> None:
        infos = list(self.episodes)
        infos[index] = replace(infos[index], instruction=instruction)
        self.episodes = infos

    def repeat(self, index: int, of: int) -> None:
        self.values[index] = {k: v.copy() for k, v in self.values[of].items()}
        self.pictures[index] = self.pictures[of]
        self.rename(index, self.episodes[of].instruction)

    def cut(self, index: int, length: int) -> None:
        self.values[index] = {k: v[:length] for k, v in self.values[index].items()}
        self.pictures[index] = {k: v[:length] for k, v in self.pictures[index].items()}
        infos = list(self.episodes)
        infos[index] = replace(infos[index], length=length)
        self.episodes = infos

    def stand_still(self, index: int, first: int, last: int) -> None:
        """Repeat a step: the world stops and nothing is asked."""
        at = np.arange(LENGTH) - np.clip(np.arange(LENGTH) - first, 0, last - first)
        for name, column in self.values[index].items():
            if name != "time_s":
                self.values[index][name] = column[at].copy()
                if name != "state":
                    self.values[index][name][first : last + 1, :4] = 0
        film = self.pictures[index]
        self.pictures[index] = {camera: [film[camera][t] for t in at] for camera in film}


class _Pictures:
    def __init__(self, pictures: Sequence[np.ndarray | None], size: int) -> None:
        self._pictures, self.shape = pictures, (size, size)

    def __len__(self) -> int:
        return len(self._pictures)

    def read(self, step: int, out: np.ndarray) -> None:
        picture = self._pictures[step]
        if picture is None:
            raise DatasetError(f"the frame of step {step} does not decode")
        out[:] = picture


@cache
def _demonstration(
    seed: int, control_hz: float, size: int
) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray | None]]]:
    values = _reach(np.random.default_rng(seed), control_hz)
    return values, _film(values["state"], size)


def _reach(rng: np.random.Generator, control_hz: float) -> dict[str, np.ndarray]:
    """A smooth way through three points; the action is the change it makes, and joints follow the tool."""
    knots = rng.uniform(-0.3, 0.3, (4, 3))
    t = np.linspace(0, 3, LENGTH + 1)
    way = np.stack([np.interp(t, range(4), knots[:, i]) for i in range(3)], axis=1)
    delta = np.clip(np.diff(way, axis=0) + rng.normal(0, 0.002, (LENGTH, 3)), -0.0299, 0.0299)
    tcp = way[0] + np.concatenate([np.zeros((1, 3)), np.cumsum(delta, axis=0)[:-1]])
    mix = np.random.default_rng(0).normal(size=(3, 7))
    opening = np.where(np.arange(LENGTH) < 30, 1.0, 0.2)[:, None]
    yaw = rng.normal(0, 0.02, (LENGTH, 1))
    action = np.concatenate([delta, yaw, np.where(opening > 0.5, -1.0, 1.0)], axis=1).astype(np.float32)
    return {
        "state": np.concatenate([tcp, tcp @ mix, opening], axis=1).astype(np.float32),
        "action": action,
        "executed": action.copy(),
        "time_s": np.arange(LENGTH) / control_hz,
    }


def _film(state: np.ndarray, size: int) -> dict[str, list[np.ndarray | None]]:
    """A dot where the tool is, over a background with a gradient; the hand camera sees the ground pass."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    ground = np.stack([90 + 40 * x, 110 + 30 * y, 120 + 20 * x * y], axis=-1)
    film: dict[str, list[np.ndarray | None]] = {"front": [], "hand": []}
    for tcp in state[:, :3].astype(float):
        front = ground.copy()
        front[np.hypot(x - 2 * tcp[0], y - 2 * tcp[1]) < 0.25] = (240, 240, 240)
        hand = 110 + 60 * np.sin(12 * (x + 4 * tcp[0]))[..., None] * np.cos(9 * (y + 4 * tcp[1]))[..., None]
        film["front"].append(front.astype(np.uint8))
        film["hand"].append(np.repeat(hand, 3, axis=2).astype(np.uint8))
    return film
