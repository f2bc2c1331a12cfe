"""Running the episodes of an evaluation in this process: one after the other, or a group side by side."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2

from vla.control.policies import EXECUTION_HORIZON, PolicySpec
from vla.data.recorder import StoreRecorder
from vla.data.store import EpisodeStore
from vla.errors import ActionError, ContractError, IncompatibleError, ObservationError, StatisticsError
from vla.eval.grid import EvalConfig
from vla.eval.groups import Group
from vla.eval.meeting import Meeting, Seat
from vla.eval.records import EpisodeKey, EpisodeRecord
from vla.eval.rollout import run_episode
from vla.interfaces import DrawsOnDemand, Env, Policy, Suite
from vla.report.figures import film_strip
from vla.report.video import StateTrace, write_video
from vla.types import Observation

LOG = logging.getLogger(__name__)

#: Envs a worker keeps; each holds a compiled model and a renderer.
MAX_ENVS = 4

#: Policy and arm do not fit: true of every episode, so the run stops instead of counting crashes.
UNFIT = (ActionError, ContractError, IncompatibleError, ObservationError, StatisticsError)


class GroupRunner:
    """Runs groups of episodes of one evaluation; several of a group ask one policy together.

    Args:
        config: resolved: nothing is left to the policy's contract.
        out: run directory; videos go to ``out/videos``.
        suite: the suite, loaded.
    """

    def __init__(self, config: EvalConfig, out: Path, suite: Suite) -> None:
        spec = PolicySpec.parse(config.policy)
        policy, filmed = None if spec.is_bound else spec.build(), Counter[tuple[str, str, str]]()
        self._alone = EpisodeRunner(config, out, suite, policy, filmed)
        self._meeting, self._seats = None, list[EpisodeRunner]()
        if policy is not None and (config.batch or 1) > 1:
            self._meeting = Meeting(policy)
            self._seats = [
                EpisodeRunner(config, out, suite, Seat(self._meeting, place), filmed, max_envs=1)
                for place in range(config.batch or 1)
            ]
        # one thread each, for good: what draws belongs to the thread that made it
        self._threads = [ThreadPoolExecutor(1, f"episode-{place}") for place in range(len(self._seats))]

    @property
    def policy(self) -> Policy | None:
        """What is asked; None where each env has one of its own."""
        return self._alone.policy

    def run(self, group: Group) -> Iterator[EpisodeRecord]:
        """The records that are wanted of a group; a crash of the simulation is a record with its error.

        Raises:
            ActionError, ContractError, IncompatibleError, ObservationError, StatisticsError: the policy does
                not fit this arm.
        """
        if len(group.keys) == 1 or self._meeting is None:
            yield from (self._alone.run(key) for key in group.keys if key in group.wanted)
            return
        self._meeting.call(range(len(group.keys)))
        running = [
            thread.submit(self._attend, place, key, key in group.wanted)
            for place, (thread, key) in enumerate(zip(self._threads, group.keys, strict=False))
        ]
        self._meeting.serve()
        records = [future.result() for future in running]
        yield from (record for record in records if record.key in group.wanted)

    def close(self) -> None:
        self._alone.close()
        for seat, thread in zip(self._seats, self._threads, strict=True):
            thread.submit(seat.close).result()
            thread.shutdown()

    def _attend(self, place: int, key: EpisodeKey, wanted: bool) -> EpisodeRecord:
        assert self._meeting is not None
        with self._meeting.attended(place):
            return self._seats[place].run(key, film=wanted)


class EpisodeRunner:
    """Runs one episode after the other and keeps the envs it has built.

    Args:
        config, out, suite: as for :class:`GroupRunner`.
        policy: None: made anew for each env.
        filmed: failures that have a film, by task, arm and condition.
        max_envs: that are kept.
    """

    def __init__(
        self,
        config: EvalConfig,
        out: Path,
        suite: Suite,
        policy: Policy | None,
        filmed: Counter[tuple[str, str, str]] | None = None,
        *,
        max_envs: int = MAX_ENVS,
    ) -> None:
        self._config, self._out, self._suite = config, out, suite
        self._spec, self.policy = PolicySpec.parse(config.policy), policy
        self._envs: dict[tuple[str, str], tuple[Env, Policy]] = {}
        self._filmed = Counter() if filmed is None else filmed
        self._max_envs = max_envs
        self._store = EpisodeStore.open(config.record) if config.record else None

    def run(self, key: EpisodeKey, *, film: bool = True) -> EpisodeRecord:
        """One episode; a crash of the simulation becomes a record with its error.

        Args:
            key: which.
            film: whether it may be filmed, where the configuration asks for it.

        Raises:
            ActionError, ContractError, IncompatibleError, ObservationError, StatisticsError: the policy does
                not fit this arm.
        """
        try:
            return self._run(key, film)
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

    def _run(self, key: EpisodeKey, film: bool) -> EpisodeRecord:
        env, policy = self._env(key)
        early = key.seed - self._config.first_seed < self._config.videos_per_cell
        place = (key.task, key.embodiment, key.condition)
        may_film = self._filmed[place] < self._config.failure_videos_per_cell
        trace = StateTrace(env) if film and (early or may_film) else None
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
            self._filmed[place] += 1
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
            while len(self._envs) >= self._max_envs:
                self._forget_place(next(iter(self._envs)))
            env = make_env(self._suite, self._config, *place)
            if isinstance(env, DrawsOnDemand):  # a store keeps every picture, a policy looks at some
                env.draws_on_demand = self._store is None
            policy = self.policy or self._spec.build(suite=self._suite, env=env)
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
