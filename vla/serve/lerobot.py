"""lerobot's asynchronous inference: the gRPC service that its ``RobotClient`` talks to.

Its messages are pickles; they are read by :mod:`vla.serve.pickled`, which runs nothing. The client keeps the
queue of actions and asks again when it is short; here is the policy alone. Which arm it is stands in the
client's ``pretrained_name_or_path``, ``vla?embodiment=panda&control_hz=10``, and so do its units.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl
from weakref import WeakKeyDictionary

from vla.errors import ConfigError, MissingExtraError, ObservationError, VlaError, WireError
from vla.serve.asking import Guests, ask_one
from vla.serve.batching import PolicyThread, Seat
from vla.serve.config import ServeConfig
from vla.serve.keys import TIME, KeyMap
from vla.serve.lerobot_wire import Entries, bytes_field, fields_of
from vla.serve.metrics import Metrics
from vla.serve.offer import Offer
from vla.serve.pickled import read, timed_actions

LOG = logging.getLogger(__name__)

#: Longest wait of a client for an observation of its own to be answered, s; then it asks again.
WAIT_S = 2.0
#: Pieces of one observation; a client sends 2 MB in each.
MAX_PIECES = 64
#: Transfer states of a piece.
_BEGIN, _MIDDLE, _END = 1, 2, 3


@dataclass(eq=False)
class _Visit:
    """A client that has said what it is, and what it saw last."""

    entries: Entries
    keys: KeyMap
    per_chunk: int
    seen: dict[str, Any] | None = None
    came: asyncio.Event = field(default_factory=asyncio.Event)
    answered: int = -1


class LerobotService:
    """``transport.AsyncInference`` at a port of its own.

    Args:
        config: address and limits; ``lerobot_port`` is set.
        offer, thread: the policy.
        metrics: of the server.

    Raises:
        MissingExtraError: grpcio is not installed.
    """

    def __init__(self, config: ServeConfig, offer: Offer, thread: PolicyThread, metrics: Metrics) -> None:
        try:
            import grpc
            import grpc.aio
        except ImportError as error:
            raise MissingExtraError("grpcio", "lerobot", "lerobot's asynchronous inference") from error
        self._grpc, self._config, self._offer, self._metrics = grpc, config, offer, metrics
        self._guests = Guests(thread, metrics, "lerobot", most=config.max_sessions, idle_s=config.idle_s)
        self._visits: WeakKeyDictionary[Seat, _Visit] = WeakKeyDictionary()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its address, for as long as the block lasts; :class:`ConfigError` where it is taken."""
        grpc, config = self._grpc, self._config
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", config.max_message_bytes),
                ("grpc.max_send_message_length", config.max_message_bytes),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=4 * config.max_sessions,
        )
        methods = {
            "Ready": grpc.unary_unary_rpc_method_handler(self._told(self._ready)),
            "SendPolicyInstructions": grpc.unary_unary_rpc_method_handler(self._told(self._instructions)),
            "SendObservations": grpc.stream_unary_rpc_method_handler(self._told(self._observation)),
            "GetActions": grpc.unary_unary_rpc_method_handler(self._told(self._actions)),
        }
        handler = grpc.method_handlers_generic_handler("transport.AsyncInference", methods)
        server.add_generic_rpc_handlers((handler,))
        host = f"[{config.host}]" if ":" in config.host else config.host
        try:
            port = server.add_insecure_port(f"{host}:{config.lerobot_port}")
        except RuntimeError as error:
            raise ConfigError(f"Cannot listen on {host}:{config.lerobot_port}: {error!s:.200}.") from error
        await server.start()
        try:
            yield f"{host}:{port}"
        finally:
            await server.stop(0)
            self._guests.close()

    def _told(self, method: Callable[[str, Any], Awaitable[bytes]]) -> Callable[[Any, Any], Awaitable[bytes]]:
        """A method whose errors are told to the client, and end its call alone."""
        status = self._grpc.StatusCode

        async def told(request: Any, context: Any) -> bytes:
            try:
                return await method(context.peer(), request)
            except VlaError as error:
                LOG.warning("%s refused: %s", context.peer(), error)
                self._metrics.refused(type(error).__name__)
                code, text = status.INVALID_ARGUMENT, f"{type(error).__name__}: {error}"
            except TimeoutError:
                self._metrics.refused("idle")
                code, text = status.DEADLINE_EXCEEDED, f"nothing came for {self._config.idle_s:g} s"
            except Exception:  # the edge of the process: one client's trouble is not the others'
                LOG.exception("%s: the server failed", context.peer())
                self._metrics.refused("failure")
                code, text = status.INTERNAL, "The server failed; its log says where."
            return await context.abort(code, text[:4000])

        return told

    async def _ready(self, peer: str, request: bytes) -> bytes:
        """A client begins, anew if it has been here."""
        self._guests.forget(peer)
        self._guests.seat(peer)
        return b""

    async def _instructions(self, peer: str, request: bytes) -> bytes:
        """What the client is and wants; refused where it does not fit."""
        given = read(_data(request, 1), "RemotePolicyConfig")
        path, per_chunk = given.get("pretrained_name_or_path"), given.get("actions_per_chunk")
        if not isinstance(path, str) or type(per_chunk) is not int or per_chunk < 1:
            raise ConfigError("pretrained_name_or_path must be a text, actions_per_chunk a number from 1.")
        if given.get("rename_map"):
            raise ConfigError("rename_map is not followed here: name the robot's cameras as the policy's.")
        said = dict(parse_qsl(path.partition("?")[2], keep_blank_values=True))
        units = said.pop("units", "own")
        arm = self._offer.stated(said)
        roles = self._offer.contract.camera_roles
        entries = Entries.declared(arm, given.get("lerobot_features"), roles, units)
        keys = self._offer.vla_eval_keys(arm)
        self._visits[self._guests.seat(peer)] = _Visit(entries=entries, keys=keys, per_chunk=per_chunk)
        return b""

    async def _observation(self, peer: str, pieces: Any) -> bytes:
        """The newest observation; one whose step was answered is dropped unless it must go."""
        data = await asyncio.wait_for(self._whole(pieces), self._config.idle_s)
        visit = self._visit(peer)
        given = read(data, "TimedObservation")
        step, stamp, seen = given.get("timestep"), given.get("timestamp"), given.get("observation")
        if (
            type(step) is not int
            or not 0 <= step < 2**30
            or type(stamp) is not float
            or not abs(stamp) < 1e12
        ):
            raise ObservationError("An observation without a time step from 0 and a time stamp.")
        if not isinstance(seen, dict):
            raise ObservationError("An observation that is no map.")
        message = visit.entries.message(seen)
        if step <= visit.answered and given.get("must_go") is not True:
            return b""
        message[TIME] = step / visit.entries.embodiment.control_hz
        self._offer.check(visit.keys.observation(message)[0])
        visit.seen = {"message": message, "step": step, "stamp": stamp}
        visit.came.set()
        return b""

    async def _actions(self, peer: str, request: bytes) -> bytes:
        """The chunk for the newest observation; nothing when there is none for a while."""
        visit, seat = self._visit(peer), self._guests.seat(peer)
        try:
            await asyncio.wait_for(visit.came.wait(), WAIT_S)
        except TimeoutError:
            return b""
        visit.came.clear()
        seen, visit.seen = visit.seen, None
        if seen is None:
            return b""  # a second call took it
        before, visit.answered = visit.answered, max(visit.answered, seen["step"])
        try:
            chunk, _ = await ask_one(
                self._offer, lambda: seat, self._metrics, "lerobot", visit.keys, seen["message"]
            )
        except BaseException:
            visit.answered = before
            raise
        # the step of an observation is that of the last action before it, but for the first, which has none
        first = seen["step"] + (before >= 0)
        rows = visit.entries.actions(chunk.actions[: visit.per_chunk])
        stamps = [seen["stamp"] + i / chunk.control_hz for i in range(len(rows))]
        return bytes_field(1, timed_actions(rows, stamps, first))

    async def _whole(self, pieces: Any) -> bytes:
        """An observation from its pieces; :class:`WireError` for more than a message may hold."""
        parts: list[bytes] = []
        size = 0
        async for piece in pieces:
            found = fields_of(piece)
            state, data = found.get(1, 0), found.get(2, b"")
            if state not in (_BEGIN, _MIDDLE, _END) or not isinstance(data, bytes):
                raise WireError("A piece of an observation without its place in it.")
            if state == _BEGIN:
                parts, size = [], 0
            parts.append(data)
            size += len(data)
            if size > self._config.max_message_bytes or len(parts) > MAX_PIECES:
                raise WireError(f"An observation of more than {self._config.max_message_bytes} bytes.")
            if state == _END:
                return b"".join(parts)
        raise WireError("An observation that does not end.")

    def _visit(self, peer: str) -> _Visit:
        visit = self._visits.get(self._guests.seat(peer))
        if visit is None:
            raise ConfigError("The client has not said which robot it is: SendPolicyInstructions first.")
        return visit


def _data(message: bytes, number: int) -> bytes:
    data = fields_of(message).get(number, b"")
    if not isinstance(data, bytes):
        raise WireError("A message whose data are a number.")
    return data
