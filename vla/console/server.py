"""The page's server: Starlette on uvicorn in a thread of its own, on loopback, for those who have the token.

A socket carries snapshots and pictures to the page and what the person says back; ``POST /stop`` stops the
robot without it. Nothing is fetched from elsewhere: the page, its script and its style are files beside this
one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from vla.console.board import Board
from vla.errors import ConfigError, MissingExtraError

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect
except ImportError as _error:
    raise MissingExtraError("starlette and uvicorn", "console", "The console") from _error

#: Snapshots a second, and bytes of a message from the page at most.
RATE_HZ, MAX_MESSAGE = 10.0, 4096
#: Letters of a sentence at most.
MAX_SENTENCE = 500
_PAGES = {"": "index.html", "console.js": "console.js", "console.css": "console.css"}
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; base-uri 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class ConsoleServer:
    """Serves the page until it is closed.

    Args:
        board: what is shown.
        said: takes each line that the person types, in the server's thread.
        stop: stops the robot, at once and whatever the loop is doing; called in a thread of its own.
        record: switches the recording, and says whether it is on now; None: nothing can be recorded.
        pressed: takes each key that moves the arm, again and again while it is held; None: keys move nothing.
        host: address to listen on. The page commands an arm: anything but loopback is refused.
        port: 0 takes one that is free.

    Raises:
        ConfigError: another host than loopback, or a port that is taken.
    """

    def __init__(
        self,
        board: Board,
        *,
        said: Callable[[str], None],
        stop: Callable[[], None],
        record: Callable[[bool], bool] | None = None,
        pressed: Callable[[str], None] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise ConfigError(
                f"The console listens on loopback only, not on {host!r}: whoever has the page moves the arm. "
                "From another machine: ssh -L PORT:127.0.0.1:PORT."
            )
        self._board, self._said, self._stop, self._record = board, said, stop, record
        self._recording, self._pressed = False, pressed
        self.token = secrets.token_urlsafe(16)
        routes = [Route(f"/{path}", self._page) for path in _PAGES]
        routes += [Route("/stop", self._stopped, methods=["POST"]), WebSocketRoute("/ws", self._socket)]
        self._listener = _listen(host, port)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://{host}:{self.port}/?token={self.token}"
        config = uvicorn.Config(
            Starlette(routes=routes), log_level="warning", ws_max_size=MAX_MESSAGE, ws="websockets-sansio",
            timeout_graceful_shutdown=1, lifespan="off",
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, daemon=True, name="console")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop serving; open pages are told."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        self._listener.close()

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._listener]))

    async def _page(self, request: Request) -> Response:
        name = _PAGES[request.url.path.strip("/")]
        body = files("vla.console").joinpath("page", name).read_bytes()
        return Response(body, media_type=_TYPES[name.rpartition(".")[2]], headers=_HEADERS)

    async def _stopped(self, request: Request) -> Response:
        if not self._may(request.query_params.get("token"), request.headers):
            return JSONResponse({"error": "no such token"}, status_code=403)
        await self._stop_now()
        return JSONResponse({"stopped": True})

    async def _stop_now(self) -> None:
        self._board.stopped()
        self._board.say("STOPPED. 'reset' starts again.")
        await asyncio.to_thread(self._stop)

    def _may(self, token: str | None, headers: Mapping[str, str]) -> bool:
        """The token, and no other site's page that has got hold of it."""
        origin = headers.get("origin")
        own = origin is None or urlsplit(origin).netloc == headers.get("host")
        return own and hmac.compare_digest((token or "").encode(), self.token.encode())

    async def _socket(self, socket: WebSocket) -> None:
        if not self._may(socket.query_params.get("token"), socket.headers):
            await socket.accept()  # or the page could not tell why it was closed
            await socket.close(code=1008, reason="no such token")
            return
        await socket.accept()
        showing = asyncio.create_task(self._show(socket))
        try:
            while True:
                await self._heard(await socket.receive_text())
        except (WebSocketDisconnect, KeyError):  # gone, or bytes instead of text
            pass
        finally:
            showing.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await showing

    async def _heard(self, text: str) -> None:
        """One message of the page: ``{"say": ...}``, ``{"stop": true}``, ``{"record": true or false}`` or
        ``{"key": ...}``.
        """
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        match message:
            case {"say": str(line)} if line.strip() and len(line) <= MAX_SENTENCE:
                self._board.say(f"> {line.strip()}")
                self._said(line)
            case {"stop": True}:
                await self._stop_now()
            case {"key": str(key)} if self._pressed is not None and len(key) == 1:
                self._pressed(key)
            case {"record": bool(wanted)} if self._record is not None:
                self._recording = self._record(wanted)
            case _:
                self._board.say(f"not understood: {text[:80]!r}")

    async def _show(self, socket: WebSocket) -> None:
        """Snapshots, and the pictures that are new, until the page is gone."""
        seen, shown = {"samples": 0, "messages": 0}, -1
        while True:
            snapshot: dict[str, Any] = self._board.snapshot(seen)
            snapshot |= {"recording": self._recording, "can_record": self._record is not None}
            snapshot["can_move"] = self._pressed is not None
            seen |= {kind: snapshot[kind][-1][0] for kind in seen if snapshot[kind]}
            await socket.send_text(json.dumps(snapshot))
            if snapshot["picture"] != shown:
                shown = snapshot["picture"]
                for camera in range(len(snapshot["cameras"])):
                    jpeg = await asyncio.to_thread(self._board.picture, camera)
                    if jpeg is not None:
                        await socket.send_bytes(bytes([camera]) + jpeg)
            await asyncio.sleep(1 / RATE_HZ)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"The console cannot listen on {host}:{port}: {error}. Another --listen-port?"
        ) from error
    return listener
