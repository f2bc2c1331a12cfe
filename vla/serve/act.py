"""``POST /act``: one observation as JSON, one chunk back; what OpenVLA's servers and their kin speak.

A request is a map of json-numpy arrays under the keys that ``GET /config`` lists (``act_keys``), with
OpenVLA-OFT's names. The answer is the chunk, an array float32 [horizon, action_dim]; a client that gives
``num_steps``, as MolmoAct's do, gets ``{"actions", "dt_ms"}`` instead. ``{"encoded": text}`` holds the same
request once more as a text, as OpenVLA allows, and its answer is a text too. Nothing is kept in between.
"""

from __future__ import annotations

import asyncio
import json
import logging
from http import HTTPStatus
from typing import Any

from vla.embodiment import Embodiment
from vla.errors import (
    ConfigError,
    IncompatibleError,
    MissingExtraError,
    ObservationError,
    RemoteError,
    VlaError,
    WireError,
)
from vla.serve.asking import ask_one
from vla.serve.batching import PolicyThread, Seat
from vla.serve.config import ServeConfig
from vla.serve.door import BODY_LENGTH, Body, Door, typed
from vla.serve.json_arrays import array_to_json, loads
from vla.serve.metrics import Metrics
from vla.serve.offer import Offer
from vla.types import ActionChunk

try:
    from websockets.http11 import Request, Response
except ImportError as _error:
    raise MissingExtraError("websockets", "serve", "The policy server") from _error

LOG = logging.getLogger(__name__)

#: OpenVLA's name for whose statistics undo the normalisation: here, which arm it is.
ARM_KEY = "unnorm_key"
#: MolmoAct's name for the denoising steps.
STEPS_KEY = "num_steps"


class ActRequests:
    """Takes the body of a POST that the server has let in, and answers it.

    Args:
        config: limits.
        offer, thread: the policy.
        metrics: of the server.
    """

    def __init__(self, config: ServeConfig, offer: Offer, thread: PolicyThread, metrics: Metrics) -> None:
        self._config, self._offer, self._thread, self._metrics = config, offer, thread, metrics
        self._awaited: set[Body] = set()
        self._leaving = False

    def leave(self) -> None:
        """Wait for no body any more: the server ends."""
        self._leaving = True
        for body in self._awaited:
            body.end()

    async def respond(self, connection: Door, request: Request, query: str) -> Response:
        """A chunk, or why there is none."""
        assert connection.body is not None
        status, text = self._checked(request) or await self._answered(connection, request, query)
        connection.body.drop()
        return typed(connection.respond(status, text + "\n"), "application/json")

    def _checked(self, request: Request) -> tuple[HTTPStatus, str] | None:
        """What a request whose body is not even read is answered with."""
        lengths, most = request.headers.get_all(BODY_LENGTH), self._config.max_message_bytes
        if "Origin" in request.headers:  # a browser's: its page needs no leave to send a POST
            return self._refusal("origin", HTTPStatus.FORBIDDEN, "web pages may not talk to this server")
        if len(lengths) != 1 or not lengths[0].isascii() or not lengths[0].isdigit() or len(lengths[0]) > 20:
            return self._refusal("length", HTTPStatus.LENGTH_REQUIRED, "expected one Content-Length")
        if int(lengths[0]) > most:
            text = f"a body of {lengths[0]} bytes; at most {most} are taken"
            return self._refusal("length", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
        if self._leaving:
            return self._refusal("leaving", HTTPStatus.SERVICE_UNAVAILABLE, "the server ends")
        if self._metrics.sessions >= self._config.max_sessions:
            text = f"{self._config.max_sessions} clients are connected: try again later"
            return self._refusal("sessions", HTTPStatus.SERVICE_UNAVAILABLE, text)
        return None

    async def _answered(self, connection: Door, request: Request, query: str) -> tuple[HTTPStatus, str]:
        assert connection.body is not None
        self._metrics.sessions += 1
        self._metrics.add("vla_sessions_total", 'protocol="act"')
        seat, peer = self._thread.seat(), connection.remote_address
        self._awaited.add(connection.body)
        try:
            if connection.expects:
                connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            async with asyncio.timeout(self._config.idle_s):
                body = await connection.body.read(int(request.headers[BODY_LENGTH]))
            return HTTPStatus.OK, await act(self._offer, seat, self._metrics, query, body)
        except TimeoutError:
            return self._refusal("idle", HTTPStatus.REQUEST_TIMEOUT, "the body did not come")
        except VlaError as error:
            LOG.warning("%s refused: %s", peer, error)
            ours = isinstance(error, RemoteError)  # the policy's failure, not the client's
            status = HTTPStatus.INTERNAL_SERVER_ERROR if ours else HTTPStatus.BAD_REQUEST
            return self._refusal(type(error).__name__, status, str(error))
        except Exception:  # the edge of the process: one client's trouble is not the others'
            LOG.exception("%s: the server failed", peer)
            text = "The server failed; its log says where."
            return self._refusal("failure", HTTPStatus.INTERNAL_SERVER_ERROR, text)
        finally:
            self._awaited.discard(connection.body)
            seat.reset()
            self._metrics.sessions -= 1

    def _refusal(self, cause: str, status: HTTPStatus, text: str) -> tuple[HTTPStatus, str]:
        self._metrics.refused(cause)
        return status, json.dumps({"error": cause, "message": text})


async def act(offer: Offer, seat: Seat, metrics: Metrics, query: str, body: bytes) -> str:
    """The JSON text that answers a request.

    Raises:
        VlaError: the request does not fit; says why.
    """
    if offer.policy.remembers:
        raise ConfigError(
            "This policy remembers what it saw in an episode, and a request to /act belongs to none: use the "
            "websocket."
        )
    message = loads(body)
    if not isinstance(message, dict):
        raise ObservationError(f"A request that is a {type(message).__name__}; expected a map.")
    if "encoded" in message:
        if len(message) != 1 or not isinstance(message["encoded"], str):
            raise WireError("'encoded' must be a text, and alone in its request.")
        return json.dumps(await act(offer, seat, metrics, query, message["encoded"].encode()))
    arm = _arm(offer, query, message.pop(ARM_KEY, None))
    steps = message.pop(STEPS_KEY, None)
    _check_steps(offer, steps)
    chunk, _ = await ask_one(offer, lambda: seat, metrics, "act", offer.act_keys(arm), message)
    return json.dumps(_answer(chunk, bare=steps is None))


def _arm(offer: Offer, query: str, name: object) -> Embodiment:
    if name is None:
        return offer.declared(query)
    if not isinstance(name, str) or "embodiment=" in query:
        raise ConfigError(
            f"{ARM_KEY!r} is {name!r:.80}; expected an arm's name, and none in the URL besides."
        )
    offer.named(name)
    return offer.declared(f"embodiment={name}&{query}")


def _check_steps(offer: Offer, steps: object) -> None:
    if steps is not None and (type(steps) is not int or steps != offer.contract.num_flow_steps):
        raise IncompatibleError(
            "policy", "this request", [f"{offer.contract.num_flow_steps} denoising steps, here {steps!r:.40}"]
        )


def _answer(chunk: ActionChunk, *, bare: bool) -> dict[str, Any]:
    actions = array_to_json(chunk.actions)
    return actions if bare else {"actions": actions, "dt_ms": 1e3 / chunk.control_hz}
