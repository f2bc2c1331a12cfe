"""The policy server: one port, three protocols, health, configuration and metrics.

``/`` speaks openpi's websocket protocol and our own, ``/vla-eval`` that of vla-eval, ``POST /act`` that of
OpenVLA; ``GET /healthz`` and ``/health`` say that it is there, ``/config`` what it serves, ``/metrics`` what
it counted. It listens on loopback unless told otherwise, lets no web page in, and never waits for anybody
without a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import threading
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlsplit

from vla.errors import ConfigError, MissingExtraError, VlaError
from vla.serve.act import ActRequests
from vla.serve.batching import PolicyThread, Shared
from vla.serve.config import ServeConfig
from vla.serve.door import HANDSHAKE_S, Door, PatientSocket, typed
from vla.serve.metrics import Metrics
from vla.serve.offer import Offer
from vla.serve.sessions import OpenpiSession, Session, VlaEvalSession

try:
    from websockets.asyncio.server import Server, ServerConnection, serve
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response
except ImportError as _error:
    raise MissingExtraError("websockets", "serve", "The policy server") from _error

LOG = logging.getLogger(__name__)

#: Seconds for a good-bye.
GOODBYE_S = 2.0
#: Frames that are read ahead of the answer.
_READ_AHEAD = 2

_PUBLIC = ("/healthz", "/health")
_PAGES = (*_PUBLIC, "/config", "/metrics")
_SOCKETS = ("/", "/vla-eval")
_ACT = "/act"


class Service(Protocol):
    """A protocol at a port of its own."""

    def serving(self) -> contextlib.AbstractAsyncContextManager[str]:
        """It listens for as long as the block lasts; its address."""
        ...


class PolicyServer:
    """A policy behind a port.

    Args:
        config: where and for whom.
        build: makes the policy; called once, in the thread that asks it.

    Raises:
        VlaError: the policy cannot be made, or has no contract to hold clients to.
    """

    def __init__(self, config: ServeConfig, build: Callable[[], Shared]) -> None:
        self.config, self.metrics = config, Metrics()
        self._thread = PolicyThread(build, max_batch=config.max_batch, metrics=self.metrics)
        try:
            self.offer = Offer(policy=self._thread.policy, embodiment=config.embodiment)
            self._tls = config.tls_context()
            self._others = self._build_others()
        except BaseException:
            self._thread.close()
            raise
        self._act = ActRequests(config, self.offer, self._thread, self.metrics)
        #: Where it listens, by protocol; filled once it does.
        self.addresses: dict[str, str] = {}
        self._config_page = json.dumps(self.offer.metadata, indent=1) + "\n"
        self._waiting = ThreadPoolExecutor(config.max_sessions, "session")

    async def run(self, started: Callable[[str], None], stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set; ``started`` is told the address, ``ws://host:port``.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        config = self.config
        try:
            server = await serve(
                self._handle,
                config.host,
                config.port,
                process_request=self._http,
                origins=[
                    None
                ],  # a browser names its page: no web page may talk to an arm behind its user's back
                compression=None,
                max_size=config.max_message_bytes,
                max_queue=_READ_AHEAD,
                create_connection=partial(Door, max_body=config.max_message_bytes),  # type: ignore[arg-type]
                open_timeout=None,  # the door's, which knows a request that is late from an answer that is
                close_timeout=GOODBYE_S,
                ping_interval=None,  # a simulator's process may be deaf for long; idle_s is what counts
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else HANDSHAKE_S,
                logger=_failed_handshakes(self.metrics),
            )
        except OSError as error:
            raise ConfigError(f"Cannot listen on {config.host}:{config.port}: {error.strerror}.") from error
        try:
            async with contextlib.AsyncExitStack() as stack:
                for name, service in self._others.items():
                    self.addresses[name] = await stack.enter_async_context(service.serving())
                url = address(server, tls=self._tls is not None)
                self.addresses["websocket"] = url
                started(url)
                await stop.wait()
        finally:
            server.close()
            self._act.leave()
            await server.wait_closed()

    def _build_others(self) -> dict[str, Service]:
        """The protocols that have a port of their own."""
        parts = (self.config, self.offer, self._thread, self.metrics)
        others: dict[str, Service] = {}
        if self.config.gr00t_port is not None:
            from vla.serve.gr00t import Gr00tService

            others["gr00t"] = Gr00tService(*parts)
        if self.config.lerobot_port is not None:
            from vla.serve.lerobot import LerobotService

            others["lerobot"] = LerobotService(*parts)
        return others

    def close(self) -> None:
        """Let go of the policy."""
        self._waiting.shutdown(wait=False, cancel_futures=True)
        self._thread.close()

    def _http(self, connection: ServerConnection, request: Request) -> Response | Awaitable[Response] | None:
        """A page, an answer, or a refusal; None lets the websocket handshake go on."""
        assert isinstance(connection, Door)
        url = urlsplit(request.path)
        refused = self._refused(connection, request, url.path)
        if refused is None and connection.body is not None:
            return self._act.respond(connection, request, url.query)
        if connection.body is not None:
            connection.body.drop()
        return refused or self._page(connection, url.path)

    def _refused(self, connection: Door, request: Request, path: str) -> Response | None:
        """What a request that may not be is answered with."""
        known = (*_PAGES, *_SOCKETS, _ACT)
        if path not in known:
            self.metrics.refused("path")
            text = f"Nothing at {path[:80]}; websockets: {', '.join(_SOCKETS)}; pages: {', '.join(_PAGES)}; "
            return connection.respond(HTTPStatus.NOT_FOUND, text + f"POST: {_ACT}\n")
        if path not in _PUBLIC and not self._may(request):
            self.metrics.refused("token")
            text = "This server needs its token: 'Authorization: Bearer TOKEN'\n"
            response = connection.respond(HTTPStatus.UNAUTHORIZED, text)
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        if (path == _ACT) != (connection.body is not None):
            self.metrics.refused("method")
            return connection.respond(HTTPStatus.METHOD_NOT_ALLOWED, f"{_ACT} takes POST, the others GET\n")
        return None

    def _page(self, connection: Door, path: str) -> Response | None:
        if path in _SOCKETS:
            return None
        page, kind = {
            "/config": (self._config_page, "application/json"),
            "/metrics": (self.metrics.text(), "text/plain; version=0.0.4; charset=utf-8"),
        }.get(path, ('{"status": "ok"}\n', "application/json"))
        return typed(connection.respond(HTTPStatus.OK, page), kind)

    def _may(self, request: Request) -> bool:
        """Whether the request shows the token; takes the same time for every wrong one."""
        if not self.config.token:
            return True
        shown = request.headers.get_all("Authorization")
        if len(shown) != 1:
            return False
        scheme, _, secret = shown[0].partition(" ")
        if scheme.lower() == "basic":
            with contextlib.suppress(ValueError):
                secret = b64decode(secret, validate=True).decode("utf-8", "replace").partition(":")[2]
        elif scheme.lower() not in ("bearer", "api-key"):
            return False
        return hmac.compare_digest(secret.encode(), self.config.token.encode())

    async def _handle(self, connection: ServerConnection) -> None:
        """One client from its handshake to its end."""
        assert connection.request is not None
        url, peer = urlsplit(connection.request.path), connection.remote_address
        if self.metrics.sessions >= self.config.max_sessions:
            self.metrics.refused("sessions")
            await connection.close(1013, f"{self.config.max_sessions} clients are connected: try again later")
            return
        self.metrics.sessions += 1
        seat = self._thread.seat()
        name = "openpi" if url.path == "/" else "vla-eval"
        self.metrics.add("vla_sessions_total", f'protocol="{name}"')
        LOG.info("%s connected at %s", peer, url.path)
        try:
            session: Session = (
                OpenpiSession(self.offer, seat, url.query, self.metrics)
                if name == "openpi"
                else VlaEvalSession(self.offer, seat, url.query, self.metrics, self._waiting)
            )
            await session.run(PatientSocket(connection, self.config.idle_s))
        except ConnectionClosed as end:
            LOG.info("%s left: %s", peer, end)
        except TimeoutError:
            self.metrics.refused("idle")
            await connection.close(1001, f"idle for {self.config.idle_s:g} s")
        except VlaError as error:
            LOG.warning("%s refused: %s", peer, error)
            self.metrics.refused(type(error).__name__)
            await self._dismiss(connection, 1008, str(error))
        except Exception:  # the edge of the process: one client's trouble is not the others'
            LOG.exception("%s: the server failed", peer)
            self.metrics.refused("failure")
            await self._dismiss(connection, 1011, "The server failed; its log says where.")
        finally:
            seat.reset()
            self.metrics.sessions -= 1

    async def _dismiss(self, connection: ServerConnection, code: int, text: str) -> None:
        """A text frame is an error in openpi's protocol; the close frame says it again, in short."""
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await connection.send(text)
                await connection.close(code, text.encode()[:120].decode(errors="ignore"))


@contextlib.contextmanager
def serving(server: PolicyServer) -> Iterator[str]:
    """The server in a thread of its own, for as long as the block lasts; its address."""
    started: Future[str] = Future()
    stopping: Future[Callable[[], object]] = Future()

    async def run() -> None:
        event, loop = asyncio.Event(), asyncio.get_running_loop()
        stopping.set_result(lambda: loop.call_soon_threadsafe(event.set))
        await server.run(started.set_result, event)

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # handed to whoever waits for the address
            if not started.done():
                started.set_exception(error)
                return
            raise

    thread = threading.Thread(target=work, name="server", daemon=True)
    thread.start()
    try:
        yield started.result()
    finally:
        with contextlib.suppress(RuntimeError):  # it ended by itself
            stopping.result()()
        thread.join()
        server.close()


def address(server: Server, *, tls: bool) -> str:
    """``ws://host:port`` of a server that listens."""
    host, port = next(iter(server.sockets)).getsockname()[:2]
    return f"{'wss' if tls else 'ws'}://{f'[{host}]' if ':' in host else host}:{port}"


def _failed_handshakes(metrics: Metrics) -> logging.Logger:
    """A logger for the websocket library that counts its errors: handshakes that came to nothing."""

    class Counting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            metrics.refused("handshake")

    logger = logging.Logger("vla.serve.handshakes", logging.ERROR)  # not registered: one a server
    logger.addHandler(Counting())
    return logger
