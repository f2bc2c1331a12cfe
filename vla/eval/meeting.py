"""Where episodes that run side by side meet: once each of them waits for the policy, it is asked for all.

Every episode runs in a thread of its own: the ordinary closed loop, around a policy that is a :class:`Seat`.
One lock is held by whoever runs, so that only one of the threads does anything at a time (simulators share
what is not made for threads); an episode gives it up while it waits for its answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from vla.control.policies import Contract, check_continues, check_contract, contract_of
from vla.embodiment import Embodiment
from vla.errors import ActionError, EnvError
from vla.interfaces import Policy
from vla.types import ActionChunk, Observation


class Meeting:
    """One policy, and the episodes that ask it together.

    Args:
        policy: asked in the thread that calls :meth:`serve`, rows in order of their places.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._turn = threading.Condition()
        self._going: set[int] = set()
        self._asked: dict[int, Observation] = {}
        self._told: dict[int, ActionChunk | Exception] = {}
        self._over = False

    def call(self, places: Sequence[int]) -> None:
        """Begin: an episode will run at each of these places."""
        self.policy.reset()
        self._going, self._over = set(places), False
        self._asked.clear()
        self._told.clear()

    @contextmanager
    def attended(self, place: int) -> Iterator[None]:
        """Around an episode, in its own thread; afterwards nobody waits for it any more."""
        with self._turn:
            try:
                yield
            finally:
                self._going.discard(place)
                self._turn.notify_all()

    def serve(self) -> None:
        """Answer until every episode has ended."""
        with self._turn:
            try:
                while self._going:
                    self._turn.wait_for(lambda: len(self._asked) == len(self._going))
                    if self._going:
                        self._answer()
                        self._turn.notify_all()
            finally:  # Ctrl-C: nobody answers any more
                self._over = True
                self._turn.notify_all()

    def ask(self, place: int, observation: Observation) -> ActionChunk:
        """The policy's chunk, once all others have asked too; in the thread of the episode.

        Raises what the policy raised.
        """
        self._asked[place] = observation
        self._turn.notify_all()
        self._turn.wait_for(lambda: place in self._told or self._over)
        if place not in self._told:
            raise EnvError("The run was stopped while an episode waited for its policy.")
        told = self._told.pop(place)
        if isinstance(told, Exception):
            raise told
        return told

    def _answer(self) -> None:
        places = sorted(self._asked)
        shown = [replace(self._asked[place], episode=place) for place in places]
        self._asked.clear()
        began = time.perf_counter()
        try:
            chunks = self.policy.act(shown)
            if len(chunks) != len(shown):
                raise ActionError(f"The policy answered {len(shown)} observations with {len(chunks)} chunks.")
        except Exception as error:  # noqa: BLE001  # raised by every episode that asked
            self._told = dict.fromkeys(places, error)
            return
        latency_s = time.perf_counter() - began
        self._told = {
            place: replace(chunk, info={"latency_s": latency_s, **chunk.info})
            for place, chunk in zip(places, chunks, strict=True)
        }


class Seat:
    """The policy of a meeting as one of its episodes sees it.

    Args:
        meeting: where it is asked.
        place: 0-based; the number of the episode among those that the policy serves at once.
    """

    def __init__(self, meeting: Meeting, place: int) -> None:
        self._meeting, self._place = meeting, place

    @property
    def contract(self) -> Contract | None:
        """That of the policy."""
        return contract_of(self._meeting.policy)

    def check(self, embodiment: Embodiment) -> None:
        """Refuse what the policy refuses."""
        check_contract(self._meeting.policy, embodiment)

    def check_continues(self) -> None:
        """Refuse what the policy refuses."""
        check_continues(self._meeting.policy)

    def reset(self) -> None:
        """The policy forgets all its episodes together, when the meeting is called."""

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """One episode, one observation; its pictures are drawn here, in the thread that owns them."""
        (seen,) = observations
        return [self._meeting.ask(self._place, replace(seen, images=dict(seen.images)))]
