"""The processes that run episodes: each loads the policy once and keeps the envs it has built.

Master and worker talk through one pipe each, so a worker that dies is seen at once (end of file) and
cannot damage what the others say. Worker to master: ``("ready", None)``, ``("record", EpisodeRecord)``,
``("refused", VlaError text)``; master to worker: a list of groups, or None to leave.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from vla import registry
from vla.errors import EnvError
from vla.eval.grid import EvalConfig
from vla.eval.groups import Group, Queue
from vla.eval.records import EpisodeKey, EpisodeRecord
from vla.eval.runners import UNFIT, GroupRunner

LOG = logging.getLogger(__name__)


def run_in_processes(
    config: EvalConfig, out: Path, groups: Sequence[Group]
) -> Generator[EpisodeRecord, None, None]:
    """Hand out groups until every episode has a record; closing the generator ends the workers."""
    queue = Queue(groups, workers=max(1, config.workers))
    workers = {i: start_worker(i, config, out) for i in range(min(config.workers, len(groups)))}
    try:
        while workers:
            pipes = {worker.pipe: worker for worker in workers.values()}
            for pipe in wait(list(pipes)):
                worker = pipes[pipe]  # type: ignore[index]
                try:
                    kind, content = worker.pipe.recv()
                except (EOFError, ConnectionResetError):
                    yield from _bury(worker, queue, config)
                    del workers[worker.index]
                    if len(queue):
                        workers[worker.index] = start_worker(worker.index, config, out)
                    continue
                if kind == "refused":
                    raise EnvError(f"A worker stopped the run: {content}")
                if kind == "record":
                    worker.answered(content.key)
                    yield content
                    continue
                taken = queue.take(worker.index)
                if taken:
                    worker.give(taken)
                else:
                    workers.pop(worker.index).dismiss()
    finally:
        for worker in workers.values():
            worker.end()


def _bury(worker: Worker, queue: Queue, config: EvalConfig) -> Iterator[EpisodeRecord]:
    """A worker died: what it was at is run once more, then recorded as crashed; the rest goes back."""
    worker.process.join(timeout=10)
    code = worker.process.exitcode
    worker.pipe.close()
    if not worker.pending:
        raise EnvError(f"Worker {worker.index} died (exit code {code}) before it ran anything.")
    place = worker.pending[0].label
    LOG.warning("Worker %d died (exit code %s) in %s; it is replaced.", worker.index, code, place)
    given_up = queue.bury(worker.pending)
    if given_up is not None:
        yield EpisodeRecord.crashed(config.suite, given_up, f"the worker died twice (exit code {code})")


@dataclass
class Worker:
    """The master's end of one process: what it has been given and not yet answered for."""

    index: int
    process: BaseProcess
    pipe: Connection
    pending: list[Group]

    def give(self, groups: Sequence[Group]) -> None:
        self.pending = list(groups)
        with contextlib.suppress(BrokenPipeError):  # it died: its end of file is read next
            self.pipe.send(list(groups))

    def answered(self, key: EpisodeKey) -> None:
        """A record has come; it answers in the order of what it was given."""
        first = self.pending[0].without(key)
        self.pending[:1] = [first] if first.wanted else []

    def dismiss(self) -> None:
        """Ask it to leave, and end it if it does not."""
        with contextlib.suppress(BrokenPipeError, OSError):
            self.pipe.send(None)
        self.process.join(timeout=10)
        self.end()

    def end(self) -> None:
        """End it in the middle of whatever it does; what it has not reported is not recorded."""
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(timeout=5)
        self.pipe.close()


def start_worker(index: int, config: EvalConfig, out: Path) -> Worker:
    """Start a process (spawned: an OpenGL context does not survive a fork)."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with one_thread():
        process = context.Process(target=work, args=(config, out, theirs), daemon=True, name=f"eval-{index}")
        process.start()
    theirs.close()
    return Worker(index, process, ours, [])


def work(config: EvalConfig, out: Path, pipe: Connection) -> None:
    """A worker's life: load, say ready, run what comes until told to leave."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the master decides
    try:
        runner = GroupRunner(config, out, registry.suite(config.suite))
    except Exception as error:  # noqa: BLE001  # process edge: reported to the master, which stops the run
        pipe.send(("refused", f"{type(error).__name__}: {error}"))
        return
    try:
        pipe.send(("ready", None))
        while (groups := pipe.recv()) is not None:
            for group in groups:
                for record in runner.run(group):
                    pipe.send(("record", record))
            pipe.send(("ready", None))
    except UNFIT as error:
        pipe.send(("refused", f"{type(error).__name__}: {error}"))
    except (EOFError, BrokenPipeError):
        pass  # the master is gone; nothing left to answer
    finally:
        runner.close()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Children inherit one thread each: pools in several busy processes only wait for one another."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in (*names, "LP_NUM_THREADS")}
    os.environ.update({**dict.fromkeys(names, "1"), "LP_NUM_THREADS": "0"})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
