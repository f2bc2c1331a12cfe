"""Batches made ahead of time by worker processes, the same ones in the same order for any number of them.

Batch k depends on (seed, k) alone, so worker w of N makes batches w, w + N, ... and a run resumed at batch k
sees what it would have seen. Pixels cross through shared memory that no crash can leave behind; a worker
ends when its pipe closes, whatever ended the main process.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from vla.errors import ConfigError, LoaderError, VlaError

B_co = TypeVar("B_co", covariant=True)
B = TypeVar("B")

_ALIGN = 64  # bytes
_SLOTS = 2  # batches of a worker that may be ready at once
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Batches(Protocol[B_co]):
    """Whatever makes the batch of a step (``WindowDataset``); workers get a pickled copy of it."""

    def step_batch(self, *, seed: int, step: int, batch_size: int, rank: int = 0, world: int = 1) -> B_co: ...


class BatchLoader(Generic[B]):
    """Iterates over the batches of steps ``start``, ``start + 1``, ... without end.

    Args:
        dataset: makes batches: dataclasses of arrays, dicts of arrays and anything small.
        batch_size: windows of this rank's batch.
        seed: of the order.
        start: first step, to resume.
        rank, world: this process among those that share each draw.
        num_workers: processes; 0 makes each batch when it is asked for.

    Raises:
        LoaderError: a worker failed or died, when its batch is asked for.
    """

    def __init__(
        self,
        dataset: Batches[B],
        *,
        batch_size: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
    ) -> None:
        if batch_size < 1 or num_workers < 0:
            raise ConfigError(f"A loader of batches of {batch_size} with {num_workers} workers.")
        self.step = start
        self._dataset, self._num_workers = dataset, num_workers
        self._draw = {"seed": seed, "batch_size": batch_size, "rank": rank, "world": world}
        self._workers: list[_Worker] = []
        self._closed = False

    def __iter__(self) -> Iterator[B]:
        return self

    def __next__(self) -> B:
        if self._closed:
            raise LoaderError("This loader is closed.")
        if not self._workers:  # the first batch tells how large the workers' memory must be
            batch = self._dataset.step_batch(step=self.step, **self._draw)
            if self._num_workers:
                self._start(batch)
        else:
            try:
                batch = self._workers[(self.step - self._first) % self._num_workers].take(self.step)
            except BaseException:
                self.close()
                raise
        self.step += 1
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers and wait for them."""
        self._closed = True
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers = []

    def _start(self, example: B) -> None:
        self._first = self.step + 1
        before = {name: os.environ.get(name) for name in _ONE_THREAD}
        os.environ.update(_ONE_THREAD)
        try:
            for number in range(self._num_workers):
                work = {**self._draw, "first": self._first + number, "stride": self._num_workers}
                self._workers.append(_Worker(self._dataset, example, work))
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@dataclass(frozen=True)
class _Refusal:
    """Why a worker could not make a batch: an error of this package, or the traceback of any other."""

    text: str


class _Worker:
    """One process, its pipe and the memory that it fills."""

    def __init__(self, dataset: Batches[Any], example: Any, work: dict[str, int]) -> None:
        context = mp.get_context("spawn")
        arrays = _arrays(example)
        size = sum(-(-array.nbytes // _ALIGN) * _ALIGN for array in arrays) or _ALIGN
        self._memory = [context.RawArray("B", size) for _ in range(_SLOTS)]
        self._views = [np.frombuffer(memory, np.uint8) for memory in self._memory]
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(dataset, work, self._memory, theirs), daemon=True, name="vla-loader"
        )
        try:
            self.process.start()
        except (TypeError, AttributeError, mp.ProcessError) as error:  # what pickle says of open files
            raise LoaderError(
                f"{type(dataset).__name__} cannot be sent to a worker process ({error}): use num_workers=0."
            ) from error
        theirs.close()
        for slot in range(_SLOTS):
            self.connection.send(slot)

    def take(self, step: int) -> Any:
        """The batch of a step, copied out of the shared memory."""
        ready = wait([self.connection, self.process.sentinel])
        try:
            answer = self.connection.recv() if self.connection in ready else None
        except (EOFError, ConnectionResetError):
            answer = None
        if answer is None:
            self.process.join(timeout=1)
            raise LoaderError(
                f"A loader worker died (exit code {self.process.exitcode}) before the batch of step {step}: "
                "out of memory, or killed. Resume with fewer workers or a smaller batch."
            )
        number, slot, skeleton, places = answer
        if isinstance(skeleton, _Refusal):
            raise LoaderError(f"The batch of step {number} cannot be made. {skeleton.text}")
        assert number == step, (number, step)
        view = self._views[slot]
        arrays = iter(
            [
                view[start : start + size].view(dtype).reshape(shape).copy()
                for start, size, dtype, shape in places
            ]
        )
        batch = _map_arrays(skeleton, lambda _: next(arrays))
        with suppress(BrokenPipeError, ConnectionResetError):  # told when its next batch is asked for
            self.connection.send(slot)
        return batch


def _serve(dataset: Batches[Any], work: dict[str, int], memory: list[Any], connection: Connection) -> None:
    """A worker's life: fill the slots that the main process hands over, until it hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
    views = [np.frombuffer(part, np.uint8) for part in memory]
    draw = {name: work[name] for name in ("seed", "batch_size", "rank", "world")}
    step = work["first"]
    try:
        while True:
            slot = connection.recv()
            refused = False
            try:
                batch = dataset.step_batch(step=step, **draw)
                places = _write(_arrays(batch), views[slot])
                answer = ForkingPickler.dumps((step, slot, _map_arrays(batch, lambda _: _HOLE), places))
            except Exception as error:  # noqa: BLE001  # a worker's edge: it is told to the main process
                text = str(error) if isinstance(error, VlaError) else f"\n{traceback.format_exc()}"
                answer, refused = ForkingPickler.dumps((step, slot, _Refusal(text), [])), True
            connection.send_bytes(answer)
            if refused:
                return
            step += work["stride"]
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the main process has closed the loader, or is gone


def _write(arrays: list[np.ndarray], view: np.ndarray) -> list[tuple[int, int, str, tuple[int, ...]]]:
    """Arrays side by side into shared memory; where each lies."""
    places, start = [], 0
    for array in arrays:
        if start + array.nbytes > len(view):
            raise LoaderError("A batch is larger than the first one: its arrays must keep their sizes.")
        target = view[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        target[...] = array
        places.append((start, array.nbytes, array.dtype.str, array.shape))
        start += -(-array.nbytes // _ALIGN) * _ALIGN
    return places


_HOLE = np.zeros(0, np.uint8)  # stands for an array that went through shared memory


def _arrays(tree: Any) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    _map_arrays(tree, lambda array: (found.append(array), array)[1])
    return found


def _map_arrays(tree: Any, change: Any) -> Any:
    """The same dataclass, dict or tuple with ``change`` applied to every array in it."""
    if isinstance(tree, np.ndarray):
        return change(tree)
    if isinstance(tree, dict):
        return {key: _map_arrays(value, change) for key, value in tree.items()}
    if isinstance(tree, tuple) and not hasattr(tree, "_fields"):
        return tuple(_map_arrays(value, change) for value in tree)
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{f.name: _map_arrays(getattr(tree, f.name), change) for f in fields(tree)})
    return tree
