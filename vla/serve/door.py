"""The one port's door: a websocket connection whose request may also be a POST with a body.

The websocket library reads requests without a body. A POST is told to it as a GET of the same path, so that
its limits and the server's checks hold for both; the body waits in :class:`Body` until somebody who has
checked the request asks for it.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from vla.errors import MissingExtraError, WireError

try:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Response
except ImportError as _error:
    raise MissingExtraError("websockets", "serve", "The policy server") from _error

#: Seconds for a request's head.
HANDSHAKE_S = 10.0
#: Frames that one message may come in; a client of openpi's protocol needs one.
MAX_FRAGMENTS = 1024
#: Bytes of a POST's head.
MAX_HEAD = 1 << 14
#: The name under which the size of a POST's body stands in the request.
BODY_LENGTH = "X-Body-Length"

_POST, _END = b"POST ", b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\nContent-Length[ \t]*:", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nExpect[ \t]*:[ \t]*100-continue", re.IGNORECASE)


class Body:
    """What follows the head of a POST, as far as it has come; at most ``limit`` bytes are kept."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._data, self._ended, self._news = bytearray(), False, asyncio.Event()

    def feed(self, data: bytes) -> None:
        """More of it."""
        self._data += data[: max(self.limit - len(self._data), 0)]
        self._news.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._news.set()

    def drop(self) -> None:
        """Nobody will ask for it: what comes is not kept."""
        self.limit = 0
        self._data.clear()

    async def read(self, size: int) -> bytes:
        """Its ``size`` bytes; :class:`WireError` where the client ends before."""
        while len(self._data) < size:
            if self._ended:
                raise WireError(f"A request with a body of {size} bytes that ends after {len(self._data)}.")
            self._news.clear()
            await self._news.wait()
        return bytes(self._data[:size])


class Door(ServerConnection):
    """A connection of the server: a websocket, a page, or a POST (then it has a ``body``).

    Args:
        max_body: bytes of a body.
        others: of the library's own connection.
    """

    def __init__(self, *others: Any, max_body: int, **named: Any) -> None:
        super().__init__(*others, **named)
        self.body: Body | None = None
        #: A POST's client waits to be told that it may send its body.
        self.expects = False
        self._max_body, self._begun, self._passing = max_body, b"", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._alarm = self.loop.call_later(HANDSHAKE_S, self._hang_up)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self.body is not None:
            self.body.feed(data)
            return
        if self._passing:
            super().data_received(data)
            return
        self._begun += data
        if len(self._begun) < len(_POST) and _POST.startswith(self._begun):
            return
        head, end, rest = self._begun.partition(_END)
        posted = self._begun.startswith(_POST)
        if posted and not end and len(head) <= MAX_HEAD:
            return
        if posted and end and len(head) <= MAX_HEAD:
            self.body = Body(self._max_body)
            self.body.feed(rest)
            self.expects = _EXPECT.search(head) is not None
            named = _LENGTH.sub(b"\r\n" + BODY_LENGTH.encode() + b":", head[len(_POST) :])
            self._begun = b"GET " + named + end
        begun, self._begun, self._passing = self._begun, b"", True
        super().data_received(begun)  # a POST without end is refused as what it is to the library: a fault

    def eof_received(self) -> None:
        if self.body is not None:
            self.body.end()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._alarm.cancel()
        if self.body is not None:
            self.body.end()
        super().connection_lost(exc)

    def _hang_up(self) -> None:
        if self.request is None:
            self.transport.abort()


def typed(response: Response, kind: str) -> Response:
    """The same, of that content type."""
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = kind
    return response


class PatientSocket:
    """A connection that is waited for, but only so long."""

    def __init__(self, connection: ServerConnection, idle_s: float) -> None:
        self._connection, self._idle_s = connection, idle_s

    async def receive(self) -> bytes:
        """The next message; :class:`WireError` for a text or one in too many pieces, TimeoutError."""
        parts: list[bytes] = []
        async with asyncio.timeout(self._idle_s):
            async for part in self._connection.recv_streaming():
                if isinstance(part, str):
                    raise WireError("A text message; expected msgpack in a binary one.")
                parts.append(part)
                if len(parts) > MAX_FRAGMENTS:
                    raise WireError(f"A message in more than {MAX_FRAGMENTS} pieces.")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def send(self, data: bytes | str) -> None:
        async with asyncio.timeout(self._idle_s):
            await self._connection.send(data)
