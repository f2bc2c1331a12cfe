"""The processes that make demonstrations: each keeps an env open and writes its own part of the store."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import traceback
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection

import numpy as np

from vla import registry
from vla.data.extension import fingerprint_of
from vla.data.record import NoiseConfig, record_episode
from vla.data.store import EpisodeStore
from vla.errors import VlaError
from vla.interfaces import Cell

_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",  # llvmpipe: render in the calling thread
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode to be made; ``cell`` counts those of the config."""

    cell: int
    seed: int
    variant: str


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What every worker knows from the start."""

    suite_name: str
    cells: tuple[Cell, ...]
    path: str
    image_size: int
    noise: NoiseConfig | None
    versions: dict[str, str]


@contextmanager
def workers(config: WorkerConfig, count: int) -> Iterator[list[Connection]]:
    """Worker processes and the pipes to them; on leaving they stop, after the episode at hand or at once."""
    context, pipes, processes = mp.get_context("spawn"), [], []
    inherited = {key: os.environ.get(key) for key in _ONE_THREAD}
    finished = False
    try:
        os.environ.update(_ONE_THREAD)  # read when a child imports numpy
        for _ in range(count):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(config, there), daemon=True)
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        yield pipes
        finished = True
    finally:
        for key, value in inherited.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(timeout=30 if finished else 2)
            if process.is_alive():  # the store loses nothing committed
                process.kill()
                process.join()


def _work(config: WorkerConfig, pipe: Connection) -> None:
    """Body of a worker: record what is asked for until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    try:
        with CellRecorder(config) as recorder:
            while True:
                pipe.send((recorder.record(pipe.recv()), None))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent is done, or gone
        return
    except VlaError as error:
        pipe.send((False, str(error)))
    except Exception:  # noqa: BLE001  # process edge: the parent raises it
        pipe.send((False, traceback.format_exc()))


class CellRecorder:
    """Keeps the env of the cell at hand open and commits its successful episodes."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._suite = registry.suite(config.suite_name)
        self._store = EpisodeStore.open(config.path)
        self._cell, self._env, self._expert = -1, None, None

    def __enter__(self) -> CellRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._env is not None:
            self._env.close()
        self._store.close()

    def record(self, job: Job) -> bool:
        """Whether the expert succeeded; then the episode is committed."""
        config, cell = self._config, self._config.cells[job.cell]
        if self._cell != job.cell or self._env is None or self._expert is None:
            if self._env is not None:
                self._env.close()
            self._env = self._suite.make(cell.task, cell.embodiment, image_size=config.image_size)
            self._expert, self._cell = self._suite.expert(self._env), job.cell
            self._store.add_embodiment(self._env.embodiment)
        name = f"{cell.task}/{cell.embodiment}/{job.variant}"
        episode = record_episode(
            self._env,
            self._expert,
            seed=job.seed,
            options={"variant": job.variant, "wording": "train"},
            noise=config.noise,
            rng=np.random.default_rng([job.seed, zlib.crc32(name.encode())]),
            provenance={
                "suite": config.suite_name,
                **asdict(cell),
                "source": type(self._expert).__qualname__,
                "versions": config.versions,
                "fingerprint": fingerprint_of(self._env),
            },
        )
        succeeded = episode.success is True
        if succeeded:
            self._store.append(episode)
        return succeeded
