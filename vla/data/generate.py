"""Parallel demonstrations: experts act in a suite's envs, successful episodes go into a store.

Each worker process writes its own part of the store; this process only hands out seeds. Seeds are
handed out in order and no more than are needed, so the same episodes result from any number of workers,
and a run that was stopped continues where it was.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vla import registry
from vla.data.extension import check_extension
from vla.data.generate_workers import Job, WorkerConfig, workers
from vla.data.record import NoiseConfig
from vla.data.store import EpisodeStore
from vla.errors import ConfigError, EnvError, UnknownNameError
from vla.files import exclusive
from vla.interfaces import TRAIN_SEED, Cell, variants_of
from vla.provenance import package_versions

_PACKAGES = ("vla", "numpy", "gymnasium", "mujoco")
_MAX_WORKERS, _MAX_IMAGE_SIZE = 1024, 2048
_MIN_ATTEMPTS = 10  # before a cell is judged by its rejects


@dataclass(frozen=True, kw_only=True)
class CellReport:
    """Demonstrations of a cell: in the store already, added now, and rejected (the expert failed)."""

    cell: Cell
    existing: int
    added: int
    rejected: int


@dataclass(frozen=True, kw_only=True)
class GenerationReport:
    """What :func:`generate` did."""

    path: Path
    cells: tuple[CellReport, ...]
    wall_s: float

    @property
    def added(self) -> int:
        return sum(cell.added for cell in self.cells)


def generate(
    suite_name: str,
    cells: Sequence[Cell],
    episodes_per_cell: int,
    path: str | Path,
    *,
    image_size: int = 64,
    num_workers: int = 2,
    noise: NoiseConfig | None = NoiseConfig(),  # noqa: B008  # frozen
    seed0: int = TRAIN_SEED,
    progress: bool = True,
) -> GenerationReport:
    """Fill a store with ``episodes_per_cell`` successful demonstrations of each cell.

    Half of a cell's demonstrations carry the instruction of the ``base`` variant, half of the ``swapped``
    one, where the suite has that. Demonstrations that are in the store already are kept and counted; run it
    again to continue.

    Args:
        suite_name: registered name, or ``module:Class``.
        cells: which tasks with which arms.
        episodes_per_cell: successful episodes wanted in the store for each cell.
        path: store to create or extend.
        image_size: camera height and width, px.
        num_workers: processes.
        noise: disturbance of the expert (None: none).
        seed0: demonstration i of a cell resets its env with ``seed0 + i``; seeds below ``TRAIN_SEED`` are
            for evaluation.
        progress: show a bar on standard error.

    Raises:
        EnvError: a worker failed, or an expert fails in more than half of a cell's episodes.
        IncompatibleError: the store holds demonstrations made in another way (image size, env, noise).
        VlaError: another process is generating into ``path``.
    """
    cells = tuple(dict.fromkeys(cells))
    _check(suite_name, cells, episodes_per_cell, num_workers, image_size, seed0)
    path, started = Path(path), time.monotonic()
    with exclusive(path, "generating"):
        variants = variants_of(registry.suite(suite_name))  # demonstration i uses number i % len(variants)
        plan = _Plan(cells, variants, episodes_per_cell, seed0, _committed(suite_name, path, cells))
        check_extension(suite_name, plan.incomplete(), path, image_size=image_size, noise=noise)
        config = WorkerConfig(
            suite_name=suite_name,
            cells=cells,
            path=str(path),
            image_size=image_size,
            noise=noise,
            versions=package_versions(_PACKAGES),
        )
        total = len(cells) * episodes_per_cell
        with (
            tqdm(total=total, initial=total - plan.missing, disable=not progress, unit="episode") as bar,
            workers(config, min(num_workers, plan.missing)) as pipes,
        ):
            _serve(plan, pipes, bar)
        return GenerationReport(path=path, cells=plan.reports(), wall_s=time.monotonic() - started)


class _Plan:
    """Which seed comes next; keeps no cell's successes and running episodes above what is wanted."""

    def __init__(
        self,
        cells: tuple[Cell, ...],
        variants: Sequence[str],
        wanted: int,
        seed0: int,
        committed: dict[tuple[Cell, str], set[int]],
    ) -> None:
        self.cells, self.added, self.rejected = cells, Counter[int](), Counter[int]()
        self._existing = [sum(len(committed.get((cell, v), ())) for v in variants) for cell in cells]
        self._left: Counter[tuple[int, str]] = Counter()  # episodes still to be started
        self._seeds: dict[tuple[int, str], Iterator[int]] = {}
        self.missing = 0
        for number, cell in enumerate(cells):
            for place, variant in enumerate(variants):
                done, count = committed.get((cell, variant), set()), len(variants)
                self._left[number, variant] = max(0, (wanted + count - 1 - place) // count - len(done))
                self._seeds[number, variant] = _fresh(seed0 + place, count, done)
                self.missing += self._left[number, variant]

    def next(self, preferred: int | None) -> Job | None:
        """A job, of the cell a worker has its env open for if there is one, else of the least begun."""
        open_cells = [key for key, count in self._left.items() if count > 0]
        if not open_cells:
            return None
        key = max(open_cells, key=lambda k: (k[0] == preferred, self._left[k], -k[0]))
        self._left[key] -= 1
        return Job(cell=key[0], seed=next(self._seeds[key]), variant=key[1])

    def finished(self, job: Job, success: bool) -> None:
        """Book a result; a rejected episode is replaced by the next seed."""
        if success:
            self.added[job.cell] += 1
            self.missing -= 1
            return
        self.rejected[job.cell] += 1
        self._left[job.cell, job.variant] += 1
        rejected = self.rejected[job.cell]
        # existing ones count too: a resumed run meets the rejected seeds of the first run again
        attempts = rejected + self.added[job.cell] + self._existing[job.cell]
        if attempts >= _MIN_ATTEMPTS and rejected > attempts / 2:
            cell = self.cells[job.cell]
            raise EnvError(
                f"The expert failed in {rejected} of {attempts} episodes of {cell.task!r} with "
                f"{cell.embodiment!r}: mend the expert or lower the noise. What was committed is kept."
            )

    def incomplete(self) -> list[Cell]:
        """Cells with episodes still to be started."""
        unfinished = {number for (number, _), count in self._left.items() if count}
        return [cell for i, cell in enumerate(self.cells) if i in unfinished]

    def reports(self) -> tuple[CellReport, ...]:
        return tuple(
            CellReport(cell=c, existing=self._existing[i], added=self.added[i], rejected=self.rejected[i])
            for i, c in enumerate(self.cells)
        )


def _serve(plan: _Plan, pipes: list[Connection], bar: Any) -> None:
    """Hand out jobs and book results until nothing is missing."""
    running: dict[Connection, Job | None] = dict.fromkeys(pipes)
    idle, last = deque(pipes), dict[Connection, int]()
    while plan.missing:
        for _ in range(len(idle)):
            pipe = idle.popleft()
            job = plan.next(last.get(pipe))
            if job is None:
                idle.append(pipe)
                continue
            running[pipe], last[pipe] = job, job.cell
            pipe.send(job)
        for pipe in wait([p for p in pipes if running[p] is not None]):
            assert isinstance(pipe, Connection)
            job = running[pipe]
            assert job is not None
            try:
                success, trouble = pipe.recv()
            except EOFError:
                success, trouble = False, "the process died (killed, or out of memory)"
            if trouble:
                cell = plan.cells[job.cell]
                raise EnvError(
                    f"A worker failed at {cell.task!r} with {cell.embodiment!r}, seed {job.seed}, variant "
                    f"{job.variant!r}: {trouble}"
                )
            running[pipe] = None
            idle.append(pipe)
            plan.finished(job, success)
            bar.update(int(success))
            bar.set_postfix(rejected=sum(plan.rejected.values()), refresh=False)


def _check(
    suite_name: str,
    cells: tuple[Cell, ...],
    episodes_per_cell: int,
    num_workers: int,
    image_size: int,
    seed0: int,
) -> None:
    suite = registry.suite(suite_name)
    for cell in cells:
        if cell.task not in suite.tasks:
            raise UnknownNameError(f"task of suite {suite_name!r}", cell.task, suite.tasks)
        if cell.embodiment not in suite.embodiments:
            raise UnknownNameError(f"embodiment of suite {suite_name!r}", cell.embodiment, suite.embodiments)
    if not cells or episodes_per_cell < 1 or num_workers < 1:
        raise ConfigError(
            f"Nothing to generate: {len(cells)} cells x {episodes_per_cell} episodes, {num_workers} workers."
        )
    if num_workers > _MAX_WORKERS or not 1 <= image_size <= _MAX_IMAGE_SIZE:
        raise ConfigError(
            f"{num_workers} workers and pictures of {image_size} px: expected 1..{_MAX_WORKERS} workers and "
            f"1..{_MAX_IMAGE_SIZE} px a side."
        )
    if seed0 < TRAIN_SEED:
        raise ConfigError(
            f"seed0 is {seed0}: demonstrations use seeds from {TRAIN_SEED} on; lower ones are for evaluation."
        )


def _committed(suite_name: str, path: Path, cells: tuple[Cell, ...]) -> dict[tuple[Cell, str], set[int]]:
    """Seeds in the store by cell and variant; makes the store if there is none."""
    if not (path / "zarr.json").exists():
        EpisodeStore.create(path, provenance={"suite": suite_name, "made_by": "vla.data.generate"}).close()
    found: dict[tuple[Cell, str], set[int]] = {}
    with EpisodeStore.open(path) as store:
        for info in store.episodes:
            origin = info.provenance
            cell = Cell(task=str(origin.get("task")), embodiment=info.embodiment)
            if cell in cells and origin.get("suite") == suite_name and info.success:
                found.setdefault((cell, str(origin.get("variant"))), set()).add(int(origin["seed"]))
    return found


def _fresh(seed: int, stride: int, done: set[int]) -> Iterator[int]:
    """Every ``stride``-th seed from ``seed`` on (the others belong to other variants), without those done."""
    while True:
        if seed not in done:
            yield seed
        seed += stride
