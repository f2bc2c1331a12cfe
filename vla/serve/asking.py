"""One observation of a foreign client, through its key map and the contract, to the policy and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from vla.errors import ConfigError
from vla.serve.batching import PolicyThread, Seat
from vla.serve.keys import KeyMap
from vla.serve.metrics import Metrics
from vla.serve.offer import Offer
from vla.types import ActionChunk


async def ask_one(
    offer: Offer,
    seat: Callable[[], Seat],
    metrics: Metrics,
    protocol: str,
    keys: KeyMap,
    message: Mapping[str, Any],
) -> tuple[ActionChunk, dict[str, list[list[int]]]]:
    """The chunk for a message, and the pictures that were resized: key -> [from, to], px.

    ``seat`` is asked for a place when the message has been found good.

    Raises:
        VlaError: the message does not fit the keys or the contract, or the policy refuses it.
    """
    observation, resized = keys.observation(message)
    offer.check(observation)
    if resized:
        metrics.add("vla_resized_pictures_total", amount=len(resized))
    (chunk,) = await seat().ask([observation])
    metrics.add("vla_observations_total", f'protocol="{protocol}"')
    return chunk, resized


class Guests:
    """Seats of clients whose protocol does not say when somebody leaves: by name, until one is silent.

    Args:
        thread: of the policy.
        metrics: counts them among the sessions.
        protocol: their name in the metrics.
        most: clients of the whole server at once.
        idle_s: silence after which one is forgotten.
    """

    def __init__(
        self, thread: PolicyThread, metrics: Metrics, protocol: str, *, most: int, idle_s: float
    ) -> None:
        self._thread, self._metrics, self._protocol = thread, metrics, protocol
        self._most, self._idle_s = most, idle_s
        self._seats: dict[object, Seat] = {}
        self._heard: dict[object, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def seat(self, name: object) -> Seat:
        """Of a client, a new one where it is not known; :class:`ConfigError` where there is no room."""
        now = time.monotonic()
        if name not in self._seats:
            self._make_room()
            self._metrics.sessions += 1
            self._metrics.add("vla_sessions_total", f'protocol="{self._protocol}"')
            self._seats[name] = self._thread.seat()
        self._heard[name] = now
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._sweep)
        return self._seats[name]

    def _make_room(self) -> None:
        """Where all seats are taken the longest silent guest goes, if nothing of it is lost."""
        if self._metrics.sessions < self._most:
            return
        if not self._heard or self._thread.policy.remembers:
            raise ConfigError(f"{self._most} clients are connected: try again later.")
        self._metrics.refused("sessions")
        self.forget(min(self._heard, key=self._heard.__getitem__))

    def _sweep(self) -> None:
        now, self._timer = time.monotonic(), None
        for name in [name for name, heard in self._heard.items() if now - heard >= self._idle_s]:
            self._metrics.refused("idle")
            self.forget(name)
        if self._heard:
            wait = self._idle_s - (now - min(self._heard.values()))
            self._timer = asyncio.get_running_loop().call_later(wait, self._sweep)

    def forget(self, name: object) -> None:
        """One has left."""
        if name in self._seats:
            self._seats.pop(name).reset()
            self._heard.pop(name)
            self._metrics.sessions -= 1

    def close(self) -> None:
        """All have."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for name in list(self._seats):
            self.forget(name)
