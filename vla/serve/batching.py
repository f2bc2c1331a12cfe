"""One thread that owns the policy: builds it, asks it, and answers everybody who asked meanwhile at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vla.embodiment import Embodiment
from vla.errors import ActionError, ConfigError, ObservationError, RemoteError, VlaError
from vla.interfaces import Policy
from vla.serve.metrics import Metrics
from vla.types import ActionChunk, Observation

LOG = logging.getLogger(__name__)

#: Longest wait for the policy's last answer when the server stops, s.
CLOSE_S = 30.0
#: Episodes that one client may have at once.
MAX_EPISODES = 64


@runtime_checkable
class Shared(Policy, Protocol):
    """A policy that serves many episodes at once, each of which can end alone.

    ``remembers``: an answer depends on what was seen before in the same episode (``Observation.episode``).
    """

    @property
    def remembers(self) -> bool: ...

    @property
    def contract(self) -> Any: ...

    def check(self, embodiment: Embodiment) -> Embodiment:
        """The training embodiment that fits, or :class:`IncompatibleError`."""
        ...

    def forget(self, episodes: Collection[int]) -> None:
        """Drop what is kept of these episodes, and of no other."""
        ...


#: Takes the answer in the policy's thread, which waits until it returns: it must be quick.
Deliver = Callable[[list[ActionChunk] | VlaError], None]


@dataclass(frozen=True)
class _Question:
    observations: Sequence[Observation]
    deliver: Deliver


@dataclass(frozen=True)
class _Farewell:
    episodes: tuple[int, ...]


class PolicyThread:
    """The policy behind a queue. What arrives while it thinks is asked in one batch, in order of arrival.

    An observation that the policy refuses fails alone: a batch with one in it is asked again one by one.

    Args:
        build: makes the policy, in the thread that then calls it (threads of torch belong to a thread).
        max_batch: most observations of one question.
        metrics: counts batches and their time.

    Raises:
        VlaError: what ``build`` raises.
        ConfigError: the policy cannot forget one episode among several, so that clients would not be alone.
    """

    def __init__(self, build: Callable[[], Policy], *, max_batch: int, metrics: Metrics) -> None:
        self._max_batch, self._metrics = max_batch, metrics
        self._inbox: queue.SimpleQueue[_Question | _Farewell | None] = queue.SimpleQueue()
        self._numbers = count()
        built: Future[Shared] = Future()
        self._thread = threading.Thread(target=self._run, args=(build, built), name="policy", daemon=True)
        self._thread.start()
        self.policy = built.result()

    def seat(self) -> Seat:
        """A place for one client."""
        return Seat(self, self._numbers)

    def ask(self, observations: Sequence[Observation], deliver: Deliver) -> None:
        """One chunk each, or the error; their ``episode`` numbers must come from a :class:`Seat`."""
        self._inbox.put(_Question(observations, deliver))

    def forget(self, episodes: Collection[int]) -> None:
        """After everything asked before, drop what is remembered of these episodes."""
        self._inbox.put(_Farewell(tuple(episodes)))

    def close(self) -> None:
        """Answer what was asked, and end the thread."""
        self._inbox.put(None)
        self._thread.join(CLOSE_S)

    def _run(self, build: Callable[[], Policy], built: Future[Shared]) -> None:
        try:
            policy = build()
            if not isinstance(policy, Shared):
                raise ConfigError(
                    f"{type(policy).__name__} cannot be served to several clients: it needs a contract, "
                    "check(embodiment), remembers and forget(episodes)."
                )
        except Exception as error:  # noqa: BLE001  # handed to whoever waits for the thread to start
            built.set_exception(error)
            return
        built.set_result(policy)
        while (first := self._inbox.get()) is not None:
            questions, farewells, leaving = self._gather(first)
            if questions:
                self._answer(policy, questions)
            for farewell in farewells:
                policy.forget(farewell.episodes)
            if leaving:
                break

    def _gather(self, first: _Question | _Farewell) -> tuple[list[_Question], list[_Farewell], bool]:
        """What has arrived by now, up to the size of a batch; whether the end is among it."""
        questions: list[_Question] = []
        farewells: list[_Farewell] = []
        room = self._max_batch
        item: _Question | _Farewell | None = first
        while True:
            if item is None:
                return questions, farewells, True
            if isinstance(item, _Farewell):
                farewells.append(item)
            else:
                questions.append(item)
                room -= len(item.observations)
            if room <= 0:
                return questions, farewells, False
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                return questions, farewells, False

    def _answer(self, policy: Shared, questions: list[_Question]) -> None:
        observations = [observation for question in questions for observation in question.observations]
        began = time.perf_counter()
        try:
            chunks = checked(policy.act(observations), len(observations))
        except Exception as error:  # noqa: BLE001  # a policy's failure is the asker's answer, not the server's end
            if len(questions) > 1:
                for question in questions:
                    self._answer(policy, [question])
                return
            questions[0].deliver(_told(error))
            return
        self._metrics.batch(len(observations), time.perf_counter() - began)
        for question in questions:
            mine, chunks = chunks[: len(question.observations)], chunks[len(question.observations) :]
            question.deliver(mine)


class Seat:
    """One client's place at the shared policy, itself a policy: its episodes are nobody else's.

    The client's own episode numbers become numbers that no other client has or had.
    """

    def __init__(self, thread: PolicyThread, numbers: count[int]) -> None:
        self._thread, self._numbers = thread, numbers
        self._episodes: dict[int, int] = {}

    @property
    def contract(self) -> Any:
        """That of the shared policy."""
        return self._thread.policy.contract

    def check(self, embodiment: Embodiment) -> Embodiment:
        """Refuse what the shared policy refuses."""
        return self._thread.policy.check(embodiment)

    def reset(self) -> None:
        """Forget this client's episodes."""
        if self._episodes:
            self._thread.forget(self._episodes.values())
            self._episodes = {}

    async def ask(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """One chunk each; other clients are served meanwhile."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[ActionChunk] | VlaError] = loop.create_future()

        def arrived(said: list[ActionChunk] | VlaError) -> None:
            if not answer.done():  # its session ended meanwhile
                answer.set_result(said)

        def deliver(said: list[ActionChunk] | VlaError) -> None:
            with contextlib.suppress(RuntimeError):  # the server ended meanwhile
                loop.call_soon_threadsafe(arrived, said)

        self._thread.ask(self._placed(observations), deliver)
        return _or_raise(await answer)

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """One chunk each; this thread waits for them."""
        answer: queue.SimpleQueue[list[ActionChunk] | VlaError] = queue.SimpleQueue()
        self._thread.ask(self._placed(observations), answer.put)
        return _or_raise(answer.get())

    def _placed(self, observations: Sequence[Observation]) -> list[Observation]:
        return [replace(seen, episode=self._number(seen.episode)) for seen in observations]

    def _number(self, episode: int) -> int:
        if episode not in self._episodes:
            if len(self._episodes) == MAX_EPISODES:
                raise ObservationError(
                    f"Episode {episode} is one more than a client's {MAX_EPISODES}: reset before new ones."
                )
            self._episodes[episode] = next(self._numbers)
        return self._episodes[episode]


def checked(chunks: list[ActionChunk], num_observations: int) -> list[ActionChunk]:
    """The chunks, where there is one for each observation and all their numbers are finite."""
    if len(chunks) != num_observations:
        raise ActionError(f"The policy answered {num_observations} observations with {len(chunks)} chunks.")
    for chunk in chunks:
        if not chunk.horizon or not np.isfinite(chunk.actions).all():
            raise ActionError(
                f"The policy answered with a chunk that is empty or not finite: {chunk.actions}."
            )
    return chunks


def _or_raise(said: list[ActionChunk] | VlaError) -> list[ActionChunk]:
    if isinstance(said, VlaError):
        raise said
    return said


def _told(error: Exception) -> VlaError:
    """An error that may cross the wire; one that nobody planned is logged here and told without detail."""
    if isinstance(error, VlaError):
        return error
    LOG.error("the policy failed", exc_info=error)
    return RemoteError(f"The policy failed ({type(error).__name__}); the server's log says where.")
