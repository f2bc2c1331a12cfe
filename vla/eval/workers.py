"""The processes that run episodes: each loads the policy once and keeps the envs it has built.

Master and worker talk through one pipe each, so a worker that dies is seen at once (end of file) and
cannot damage what the others say. Worker to master: ``("ready", None)``, ``("record", EpisodeRecord)``,
``("refused", VlaError text)``; master to worker: a list of keys, or None to leave.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2

from vla import registry
from vla.control.policies import EXECUTION_HORIZON, PolicySpec
from vla.data.recorder import StoreRecorder
from vla.data.store import EpisodeStore
from vla.errors import ActionError, ContractError, IncompatibleError, ObservationError, StatisticsError
from vla.eval.grid import EvalConfig
from vla.eval.records import EpisodeKey, EpisodeRecord
from vla.eval.rollout import run_episode
from vla.interfaces import Env, Policy, Suite
from vla.report.figures import film_strip
from vla.report.video import StateTrace, write_video
from vla.types import Observation

LOG = logging.getLogger(__name__)

#: Envs a worker keeps; each holds a compiled model and a renderer.
MAX_ENVS = 4

#: Policy and arm do not fit: true of every episode, so the run stops instead of counting crashes.
UNFIT = (ActionError, ContractError, IncompatibleError, ObservationError, StatisticsError)


class EpisodeRunner:
    """Runs episodes of one evaluation in this process.

    Args:
        config: resolved: nothing is left to the policy's contract.
        out: run directory; videos go to ``out/videos``.
        suite: the suite, loaded.
    """

    def __init__(self, config: EvalConfig, out: Path, suite: Suite) -> None:
        self._config, self._out, self._suite = config, out, suite
        self._spec = PolicySpec.parse(config.policy)
        self._policy = None if self._spec.is_bound else self._spec.build()
        self._envs: dict[tuple[str, str], tuple[Env, Policy]] = {}
        self._filmed: dict[tuple[str, str, str], int] = {}
        self._store = EpisodeStore.open(config.record) if config.record else None

    def run(self, key: EpisodeKey) -> EpisodeRecord:
        """One episode; a crash of the simulation becomes a record with its error.

        Raises:
            ActionError, ContractError, IncompatibleError, ObservationError, StatisticsError: the policy does
                not fit this arm.
        """
        try:
            return self._run(key)
        except UNFIT:
            raise
        except Exception as error:  # noqa: BLE001  # process edge: whatever a simulation throws is recorded
            LOG.debug("%s crashed:\n%s", key, traceback.format_exc())
            self._forget(key)
            return EpisodeRecord.crashed(self._config.suite, key, f"{type(error).__name__}: {error}")

    def close(self) -> None:
        for env, _ in self._envs.values():
            env.close()
        self._envs.clear()
        if self._store is not None:
            self._store.close()

    def _run(self, key: EpisodeKey) -> EpisodeRecord:
        env, policy = self._env(key)
        early = key.seed - self._config.first_seed < self._config.videos_per_cell
        place = (key.task, key.embodiment, key.condition)
        may_film = self._filmed.get(place, 0) < self._config.failure_videos_per_cell
        trace = StateTrace(env) if early or may_film else None
        with self._recorder(env, key) as recorder:
            record = run_episode(
                env,
                policy,
                suite=self._config.suite,
                key=key,
                execution_horizon=self._config.execution_horizon or EXECUTION_HORIZON,
                execution=self._config.execution,
                latency_s=self._config.latency_s,
                safety=self._config.safety,
                hooks=[hook for hook in (trace, recorder) if hook is not None],
                first_sight=self._sight(key),
            )
        if trace is None or (not early and record.success):
            return record
        if not record.success:
            self._filmed[place] = self._filmed.get(place, 0) + 1
        path = self._out / "videos" / f"{key.label}.mp4"
        write_video(path, trace.frames(), fps=env.embodiment.control_hz)
        return replace(record, video=path.name)

    def _sight(self, key: EpisodeKey) -> Callable[[Observation], None] | None:
        """Keeps what the policy was first shown, once for each condition of an audited run."""
        path = self._out / "sights" / f"{key.condition.replace(' ', '-')}.jpg"
        if self._config.audit == "off" or key.seed != self._config.first_seed or path.exists():
            return None

        def keep(given: Observation) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            strip = film_strip(list(given.images.values()))
            cv2.imwrite(str(path), strip[..., ::-1])
            path.with_suffix(".txt").write_text(given.instruction)

        return keep

    def _recorder(self, env: Env, key: EpisodeKey) -> AbstractContextManager[StoreRecorder | None]:
        """Adds the episode to the store that the configuration names, if it names one."""
        if self._store is None:
            return contextlib.nullcontext()
        facts = {"suite": self._config.suite, **asdict(key), "source": self._config.policy}
        return StoreRecorder(self._store, env.embodiment, {**facts, "recorded_by": "vla.eval"})

    def _env(self, key: EpisodeKey) -> tuple[Env, Policy]:
        place = (key.task, key.embodiment)
        if place not in self._envs:
            while len(self._envs) >= MAX_ENVS:
                self._forget_place(next(iter(self._envs)))
            env = make_env(self._suite, self._config, *place)
            policy = self._policy or self._spec.build(suite=self._suite, env=env)
            self._envs[place] = (env, policy)
        return self._envs[place]

    def _forget(self, key: EpisodeKey) -> None:
        self._forget_place((key.task, key.embodiment))

    def _forget_place(self, place: tuple[str, str]) -> None:
        if place in self._envs:
            env, _ = self._envs.pop(place)
            env.close()


def make_env(suite: Suite, config: EvalConfig, task: str, embodiment: str) -> Env:
    """Build an env as the configuration asks."""
    wanted: dict[str, Any] = {} if config.image_size is None else {"image_size": config.image_size}
    if config.detailed:
        wanted["detailed"] = True
    return suite.make(task, embodiment, **wanted)


@dataclass
class Worker:
    """The master's end of one process: what it has been given and not yet answered for."""

    index: int
    process: BaseProcess
    pipe: Connection
    pending: list[EpisodeKey]

    def give(self, keys: Sequence[EpisodeKey]) -> None:
        self.pending = list(keys)
        with contextlib.suppress(BrokenPipeError):  # it died: its end of file is read next
            self.pipe.send(list(keys))

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
    with _one_thread():
        process = context.Process(target=work, args=(config, out, theirs), daemon=True, name=f"eval-{index}")
        process.start()
    theirs.close()
    return Worker(index, process, ours, [])


def work(config: EvalConfig, out: Path, pipe: Connection) -> None:
    """A worker's life: load, say ready, run what comes until told to leave."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the master decides
    try:
        runner = EpisodeRunner(config, out, registry.suite(config.suite))
    except Exception as error:  # noqa: BLE001  # process edge: reported to the master, which stops the run
        pipe.send(("refused", f"{type(error).__name__}: {error}"))
        return
    try:
        pipe.send(("ready", None))
        while (keys := pipe.recv()) is not None:
            for key in keys:
                pipe.send(("record", runner.run(key)))
            pipe.send(("ready", None))
    except UNFIT as error:
        pipe.send(("refused", f"{type(error).__name__}: {error}"))
    except (EOFError, BrokenPipeError):
        pass  # the master is gone; nothing left to answer
    finally:
        runner.close()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
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
