"""One connected client: what it may say, in which order, and what it is told.

Both protocols are here: that of openpi and of our own client at ``/``, that of vla-eval at ``/vla-eval``.
A session has its own place at the policy; when it ends, however that is, the policy forgets its episodes.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from typing import Any, Protocol

import numpy as np

from vla import __version__
from vla.control.chunks import ChunkExecutor
from vla.embodiment import Embodiment
from vla.errors import IncompatibleError, ObservationError, UnknownNameError, VlaError, WireError
from vla.serve.batching import Seat
from vla.serve.keys import KeyMap
from vla.serve.messages import MAX_OBSERVATIONS, chunk_to_wire, observation_from_wire
from vla.serve.metrics import Metrics
from vla.serve.offer import Offer
from vla.serve.pictures import decoded
from vla.serve.wire import pack, unpack
from vla.types import ActionChunk, Observation


class Wire(Protocol):
    """The connection, with its limits and time-outs."""

    async def receive(self) -> bytes: ...

    async def send(self, data: bytes | str) -> None: ...


class Session(Protocol):
    """A protocol at work; ``run`` ends with the connection, or raises why the client is refused."""

    async def run(self, wire: Wire) -> None: ...


class OpenpiSession:
    """Metadata first, then an answer a message: openpi's flat observations, or our own typed messages.

    Args:
        offer: the policy.
        seat: this client's place at it.
        query: of the URL, in which a client may say what it is.
        metrics: of the server.
    """

    def __init__(self, offer: Offer, seat: Seat, query: str, metrics: Metrics) -> None:
        self._offer, self._seat, self._query, self._metrics = offer, seat, query, metrics
        self._keys: KeyMap | None = None
        self._last_ms: float | None = None

    async def run(self, wire: Wire) -> None:
        """Raises :class:`VlaError` at the first message that openpi's client must not have sent."""
        await wire.send(pack(self._offer.metadata))
        while True:
            data = await wire.receive()
            began = time.perf_counter()
            message = unpack(data)
            if isinstance(message, dict) and "type" in message:
                answer = await self._own(message)
            else:
                answer = await self._flat(message)
            await wire.send(pack(answer))
            self._last_ms = 1e3 * (time.perf_counter() - began)

    async def _flat(self, message: object) -> dict[str, Any]:
        if self._keys is None:
            self._keys = self._offer.openpi_keys(self._offer.declared(self._query))
        observation, resized = self._keys.observation(message)
        self._offer.check(observation)
        (chunk,), timing = await self._ask([observation])
        answer = {**chunk_to_wire(chunk), "server_timing": timing}
        if resized:
            self._metrics.add("vla_resized_pictures_total", amount=len(resized))
            answer["resized"] = resized
        return answer

    async def _own(self, message: dict[str, Any]) -> dict[str, Any]:
        """What a typed message is answered with; errors are answers too, and the client may go on."""
        try:
            return await self._typed(message)
        except VlaError as error:
            self._metrics.refused(type(error).__name__)
            reasons = list(error.reasons) if isinstance(error, IncompatibleError) else []
            return {"type": "error", "error": type(error).__name__, "message": str(error), "reasons": reasons}

    async def _typed(self, message: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(message["type"], str):  # an array would be compared entry by entry
            raise WireError(f"A message whose type is a {type(message['type']).__name__}; expected a text.")
        match message:
            case {"type": "act", "observations": list(given), **rest} if not rest:
                if not 1 <= len(given) <= MAX_OBSERVATIONS:
                    raise ObservationError(f"{len(given)} observations; expected 1 .. {MAX_OBSERVATIONS}.")
                observations = [observation_from_wire(each) for each in given]
                for observation in observations:
                    self._offer.check(observation)
                chunks, timing = await self._ask(observations)
                return {"type": "chunks", "chunks": [*map(chunk_to_wire, chunks)], "server_timing": timing}
            case {"type": "open", "embodiment": described, **rest} if not rest:
                return {"type": "opened", "trained_as": self._offer.opened(described).name}
            case {"type": "reset", **rest} if not rest:
                self._seat.reset()
                return {"type": "done"}
        raise WireError(
            f"A message of type {message['type']!r:.40} with {sorted(message)!s:.200}; known are 'act' with "
            "observations, 'open' with an embodiment, and 'reset'."
        )

    async def _ask(self, observations: list[Observation]) -> tuple[list[ActionChunk], dict[str, float]]:
        began = time.perf_counter()
        chunks = await self._seat.ask(observations)
        timing = {"infer_ms": 1e3 * (time.perf_counter() - began)}
        if self._last_ms is not None:
            timing["prev_total_ms"] = self._last_ms
        self._metrics.add("vla_observations_total", 'protocol="openpi"', len(observations))
        return chunks, timing


class VlaEvalSession:
    """vla-eval's protocol, version 1: hello, then episodes of observations, one action each.

    The chunk is executed here, as everywhere: by a :class:`~vla.control.chunks.ChunkExecutor`.

    Args:
        offer, seat, query, metrics: as of :class:`OpenpiSession`.
        threads: where pictures are decoded and the executor waits for the policy.
    """

    _PROTOCOL = 1

    def __init__(self, offer: Offer, seat: Seat, query: str, metrics: Metrics, threads: Executor) -> None:
        self._offer, self._query, self._metrics, self._threads = offer, query, metrics, threads
        self._executor = ChunkExecutor(seat, offer.contract.execution_horizon)
        self._arm: Embodiment | None = None
        self._keys: KeyMap | None = None
        self._greeted, self._steps = False, -1

    async def run(self, wire: Wire) -> None:
        """Raises :class:`WireError` at a message that cannot be read; every other refusal is an answer."""
        while True:
            kind, payload, seq = _envelope(unpack(await wire.receive()))
            try:
                answer = await self._answer(kind, payload)
            except VlaError as error:
                self._metrics.refused(type(error).__name__)
                answer = ("error", {"error": f"{type(error).__name__}: {error}"})
            if answer is not None:
                said = {"type": answer[0], "payload": answer[1], "seq": seq, "timestamp": time.time()}
                await wire.send(pack(said, "text"))

    async def _answer(self, kind: str, payload: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        if kind == "hello":
            return "hello", self._hello(payload)
        if not self._greeted:
            raise WireError(f"A message of type {kind!r} before the 'hello'.")
        if kind == "episode_start":
            self._executor.reset()
            self._steps = 0
        elif kind == "observation":
            loop = asyncio.get_running_loop()
            action = await loop.run_in_executor(self._threads, self._act, payload)
            self._metrics.add("vla_observations_total", 'protocol="vla-eval"')
            return "action", {"actions": action}
        elif kind == "episode_end":
            self._executor.reset()
            self._steps = -1
        return None

    def _hello(self, payload: dict[str, Any]) -> dict[str, Any]:
        version = payload.get("protocol_version")
        if type(version) is not int or version != self._PROTOCOL:
            raise WireError(
                f"vla-eval protocol version {version!r:.40}; this server speaks {self._PROTOCOL}."
            )
        self._greeted = True
        said = {
            "harness_version": f"vla {__version__}",
            "protocol_version": self._PROTOCOL,
            "model_server": "vla",
            "capabilities": {},
            "vla": self._offer.metadata,
        }
        try:
            self._arm = self._offer.declared(self._query)
        except VlaError:
            return said  # told again at the first observation: this client shows no other error in full
        self._keys = self._offer.vla_eval_keys(self._arm)
        actions = {member.name: _spec(member.name, member) for member in self._arm.action}
        seen = {
            "image": {"name": "image", "dims": 0, "format": "rgb_hwc_uint8"},
            "language": {"name": "language", "dims": 0, "format": "language"},
            "state": {"name": "state", "dims": self._arm.state_dim, "format": f"vla_{self._arm.name}"},
        }
        return {**said, "action_spec": actions, "observation_spec": seen, "keys": self._keys.to_json()}

    def _act(self, payload: dict[str, Any]) -> np.ndarray:
        """float32 [action_dim]: the next action of the chunk under way, or the first of a new one."""
        if self._arm is None or self._keys is None:
            self._arm = self._offer.declared(self._query)
            self._keys = self._offer.vla_eval_keys(self._arm)
        if self._steps < 0:
            raise WireError(
                "An observation outside an episode: send 'episode_start' first, again after a reconnect."
            )
        cameras = tuple(self._keys.images.values())  # which are the names in vla-eval's messages, too
        given = {**payload, "images": decoded(payload.get("images"), cameras)}
        if "time_s" not in given:  # one action an observation is executed: so much time has passed
            given["time_s"] = self._steps / self._arm.control_hz
        observation, resized = self._keys.observation(given)
        self._offer.check(observation)
        if resized:
            self._metrics.add("vla_resized_pictures_total", amount=len(resized))
        action = self._executor.act([observation])[0].actions[0]
        self._steps += 1
        return action


def _envelope(message: object) -> tuple[str, dict[str, Any], int]:
    """type, payload and seq of a message of vla-eval, or :class:`WireError`."""
    if not isinstance(message, dict):
        raise WireError(f"A message that is a {type(message).__name__}; expected a map.")
    kind, payload, seq = message.get("type"), message.get("payload"), message.get("seq")
    kinds = ("hello", "observation", "episode_start", "episode_end", "error")
    if not isinstance(kind, str) or kind not in kinds:
        raise UnknownNameError("type of message", str(kind)[:40], kinds)
    if not isinstance(payload, dict) or type(seq) is not int:
        raise WireError(f"A message {kind!r} without a map 'payload' and a whole number 'seq'.")
    return kind, payload, seq


def _spec(name: str, member: Any) -> dict[str, Any]:
    """A field as vla-eval describes one."""
    said = {"name": name, "dims": member.size, "format": f"{member.mode} {member.unit} {member.frame}"}
    if len({*member.low}) == len({*member.high}) == 1:
        said["range"] = [member.low[0], member.high[0]]
    return said
