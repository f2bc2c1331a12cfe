"""GR00T's ZeroMQ service: requests of its policy clients, N1.5's flat ones and N1.6's nested ones.

A request is a map ``{endpoint, data, api_token}``; the endpoints are ``ping``, ``get_action``, ``reset`` and
``get_modality_config``. ``kill`` is refused: whoever started this server stops it. Cameras, state fields and
action fields go by the embodiment's own names, one entry in batch and time each.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np

from vla.errors import (
    ConfigError,
    MissingExtraError,
    ObservationError,
    UnknownNameError,
    VlaError,
    WireError,
)
from vla.serve.asking import Guests, ask_one
from vla.serve.batching import PolicyThread, Seat
from vla.serve.config import ServeConfig
from vla.serve.gr00t_wire import read, write
from vla.serve.keys import GR00T_INSTRUCTION, TIME, flattened
from vla.serve.metrics import Metrics
from vla.serve.offer import DECLARATIONS, Offer
from vla.types import ActionChunk

LOG = logging.getLogger(__name__)

ENDPOINTS = ("ping", "get_action", "reset", "get_modality_config")
#: Parts of a request of N1.6, and what a flat key of N1.5 begins with.
GROUPS = ("video", "state", "language")
#: Requests that wait for the policy at once.
_WAITING = 64


class Gr00tService:
    """GR00T's protocol at a port of its own.

    Args:
        config: address, token and limits; ``gr00t_port`` is set.
        offer, thread: the policy.
        metrics: of the server.

    Raises:
        MissingExtraError: pyzmq is not installed.
    """

    def __init__(self, config: ServeConfig, offer: Offer, thread: PolicyThread, metrics: Metrics) -> None:
        try:
            import zmq
            import zmq.asyncio
        except ImportError as error:
            raise MissingExtraError("pyzmq", "gr00t", "GR00T's protocol") from error
        self._zmq, self._config, self._offer, self._metrics = zmq, config, offer, metrics
        self._guests = Guests(thread, metrics, "gr00t", most=config.max_sessions, idle_s=config.idle_s)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its address, for as long as the block lasts; :class:`ConfigError` where it is taken."""
        zmq, config = self._zmq, self._config
        with zmq.asyncio.Context() as context, context.socket(zmq.ROUTER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.MAXMSGSIZE, config.max_message_bytes)
            socket.setsockopt(zmq.RCVHWM, 2)
            socket.setsockopt(zmq.SNDHWM, 2)
            socket.setsockopt(zmq.IPV6, ":" in config.host)
            host = "127.0.0.1" if config.host == "localhost" else config.host
            host = f"[{host}]" if ":" in host else host
            try:
                socket.bind(f"tcp://{host}:{config.gr00t_port or '*'}")
            except zmq.ZMQError as error:
                raise ConfigError(
                    f"Cannot listen on {host}:{config.gr00t_port}: {error.strerror}."
                ) from error
            work = asyncio.create_task(self._run(socket))
            try:
                yield socket.getsockopt_string(zmq.LAST_ENDPOINT)
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                self._guests.close()

    async def _run(self, socket: Any) -> None:
        """Take requests; each client waits for its own answer alone."""
        room = asyncio.Semaphore(_WAITING)
        async with asyncio.TaskGroup() as tasks:
            while True:
                await room.acquire()
                frames = await self._frames(socket)
                task = tasks.create_task(self._serve(socket, frames))
                task.add_done_callback(lambda _: room.release())

    async def _frames(self, socket: Any) -> list[bytes]:
        """Those of one message, of a longer one the first four."""
        frames: list[bytes] = [await socket.recv()]
        while socket.getsockopt(self._zmq.RCVMORE):
            frame = await socket.recv()
            if len(frames) < 4:
                frames.append(frame)
        return frames

    async def _serve(self, socket: Any, frames: list[bytes]) -> None:
        if len(frames) != 3 or frames[1]:
            self._metrics.refused("frames")
            return  # nobody who could be answered: a REQ socket sends an empty frame and its message
        client, _, data = frames
        answer = await self._answer(client, data)
        with contextlib.suppress(self._zmq.ZMQError):  # it has left
            await socket.send_multipart([client, b"", answer])

    async def _answer(self, client: bytes, data: bytes) -> bytes:
        style = "npy"
        try:
            request, style = read(data)
            return write(await self._answered(client, request), style)
        except VlaError as error:
            LOG.warning("a client of GR00T's protocol refused: %s", error)
            self._metrics.refused(type(error).__name__)
            return write({"error": f"{type(error).__name__}: {error}"}, style)
        except Exception:  # the edge of the process: one client's trouble is not the others'
            LOG.exception("GR00T's protocol: the server failed")
            self._metrics.refused("failure")
            return write({"error": "The server failed; its log says where."}, style)

    async def _answered(self, client: bytes, request: object) -> Any:
        if not isinstance(request, dict):
            raise WireError(f"A request that is a {type(request).__name__}; expected a map.")
        self._check_token(request.get("api_token"))
        endpoint, data = request.get("endpoint", "get_action"), request.get("data")
        for key in request:
            if key not in ("endpoint", "data", "api_token"):
                raise UnknownNameError("key of a request", key, ("endpoint", "data", "api_token"))
        if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
            raise UnknownNameError("endpoint", str(endpoint)[:40], ENDPOINTS)
        if endpoint == "ping":
            return {"status": "ok", "message": "Server is running"}
        if endpoint == "get_modality_config":
            return self._modalities()
        if endpoint == "reset":
            self._guests.forget(client)
            return {}
        if not isinstance(data, dict):
            raise WireError(f"A request to get_action whose data is a {type(data).__name__}; expected a map.")
        return await self._act(lambda: self._guests.seat(client), data)

    def _check_token(self, shown: object) -> None:
        """Raise unless it is the token; takes the same time for every wrong one."""
        token = self._config.token
        text = shown if isinstance(shown, str) else ""
        if token and not hmac.compare_digest(text.encode(), token.encode()):
            self._metrics.refused("token")
            raise WireError("This server needs its token as 'api_token'.")

    async def _act(self, seat: Callable[[], Seat], data: dict[str, Any]) -> Any:
        nested = "observation" in data
        options = data.get("options") if nested else None
        if nested and not set(data) <= {"observation", "options"}:
            raise WireError(
                f"A request to get_action with {sorted(data)!s:.200}; expected observation, options."
            )
        said, time_s = _options(options)
        arm = self._offer.stated(said)
        message = _squeezed(data["observation"]) if nested else _from_flat(data)
        keys = self._offer.gr00t_keys(arm)
        if time_s is not None:
            message[TIME] = time_s
        chunk, resized = await ask_one(self._offer, seat, self._metrics, "gr00t", keys, message)
        actions = dict(_split(arm.action, chunk))
        if not nested:
            return {f"action.{name}": part for name, part in actions.items()}
        info = {"control_hz": float(chunk.control_hz), **({"resized": resized} if resized else {})}
        return [{name: part[None] for name, part in actions.items()}, info]

    def _modalities(self) -> dict[str, Any]:
        """What the default arm sends and gets, as GR00T's ModalityConfig."""
        arm = self._offer.stated({})
        keys, steps = self._offer.gr00t_keys(arm), list(range(self._offer.contract.horizon))
        parts = {
            "video": ([key.partition("/")[2] for key in keys.images], [0]),
            "state": ([field.name for field in arm.state], [0]),
            "action": ([field.name for field in arm.action], steps),
            "language": ([GR00T_INSTRUCTION], [0]),
        }
        return {
            name: {
                "__ModalityConfig_class__": True, "as_json": {"delta_indices": when, "modality_keys": names}
            }
            for name, (names, when) in parts.items()
        }  # fmt: skip


def _options(options: object) -> tuple[dict[str, str], float | None]:
    """What ``options`` say of the client, and the time in the episode."""
    if options is None:
        return {}, None
    if not isinstance(options, dict):
        raise WireError(f"'options' is a {type(options).__name__}; expected a map or nothing.")
    said = {}
    for key, value in options.items():
        if key not in (*DECLARATIONS, TIME):
            raise UnknownNameError("option", key, (*DECLARATIONS, TIME))
        if key != TIME:
            if not isinstance(value, str | int | float):
                raise WireError(f"Option {key!r} is a {type(value).__name__}.")
            said[key] = str(value)
    return said, options.get(TIME)


def _squeezed(observation: object) -> dict[str, Any]:
    """N1.6's groups without batch and time: one of each is what a request is about."""
    if not isinstance(observation, dict):
        raise ObservationError(f"'observation' is a {type(observation).__name__}; expected a map.")
    for key, group in observation.items():
        if key not in GROUPS:
            raise UnknownNameError("group of an observation", key, GROUPS)
        if not isinstance(group, dict):
            raise ObservationError(
                f"{key!r} is no map of names; expected one, as all of {', '.join(GROUPS)}."
            )
    return {key: _only(key, value, 2) for key, value in flattened(observation).items()}


def _from_flat(data: dict[str, Any]) -> dict[str, Any]:
    """N1.5's keys ``video.NAME``, ``state.NAME`` and ``annotation...``, without time."""
    message = {}
    for key, value in data.items():
        group, _, name = key.partition(".")
        if group not in ("video", "state", "annotation") or not name:
            raise UnknownNameError(
                "key of an observation", key, ("video.NAME", "state.NAME", GR00T_INSTRUCTION)
            )
        whole = f"language/{key}" if group == "annotation" else f"{group}/{name}"
        message[whole] = value if isinstance(value, str) else _only(key, value, 1)
    return message


def _only(key: str, value: Any, axes: int) -> Any:
    """What is left without so many leading axes of one entry each."""
    for _ in range(axes):
        several = isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim > 0)
        if not several or len(value) != 1:
            raise ObservationError(
                f"{key!r}: expected {axes} leading axes of one entry each (batch, time); one has "
                f"{len(value) if several else 'none'}."
            )
        value = value[0]
    return value


def _split(fields: Any, chunk: ActionChunk) -> list[tuple[str, np.ndarray]]:
    """The action by fields: name and float32 [horizon, size]."""
    ends = np.cumsum([field.size for field in fields])[:-1]
    parts = np.split(np.asarray(chunk.actions), ends, axis=1)
    return [(field.name, part) for field, part in zip(fields, parts, strict=True)]
