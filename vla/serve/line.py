"""A websocket for one thread that asks and waits: a plain socket with deadlines, and no thread of its own."""

from __future__ import annotations

import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import Iterable

from vla.errors import MissingExtraError

try:
    from websockets.client import ClientProtocol
    from websockets.exceptions import ConnectionClosedError
    from websockets.frames import CloseCode, Frame, Opcode
    from websockets.protocol import State
    from websockets.uri import parse_uri
except ImportError as _error:
    raise MissingExtraError("websockets", "serve", "A remote policy") from _error

_READ = 1 << 18


class Line:
    """An open websocket.

    Args:
        url: ``ws://`` or ``wss://``; a name and password in it are shown as basic authentication.
        headers: sent with the handshake.
        tls: for ``wss://``.
        max_size: bytes of a message that is taken.
        deadline: of the handshake, ``time.monotonic()``.

    Raises:
        OSError, InvalidURI, InvalidHandshake: there is nobody, the URL is none, or the server refuses.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        tls: ssl.SSLContext | None = None,
        max_size: int,
        deadline: float,
    ) -> None:
        uri = parse_uri(url)
        self._protocol = ClientProtocol(uri, max_size=max_size)
        self._frames: deque[Frame] = deque()
        self._socket = socket.create_connection((uri.host, uri.port), timeout=_left(deadline))
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_hostname=uri.host)
            request = self._protocol.connect()
            for name, value in headers:
                request.headers[name] = value
            self._protocol.send_request(request)
            self._flush()
            while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
                self._read(deadline)
            if self._protocol.handshake_exc is not None:
                raise self._protocol.handshake_exc
        except BaseException:
            self._socket.close()
            raise
        weakref.finalize(self, self._socket.close)  # whoever forgets to say good-bye leaves all the same

    def send(self, data: bytes, deadline: float) -> None:
        """One binary message."""
        self._protocol.send_binary(data)
        self._socket.settimeout(_left(deadline))
        self._flush()

    def receive(self, deadline: float) -> bytes | str:
        """The next message; a text is one of openpi's errors.

        Raises:
            TimeoutError: there is none by the deadline.
            ConnectionClosed: nor will there be one; says what the server said last.
        """
        parts: list[bytes] = []
        text = False
        while True:
            while self._frames:
                frame = self._frames.popleft()
                if frame.opcode is Opcode.CLOSE:
                    self._end()
                if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                    continue
                text = text or frame.opcode is Opcode.TEXT
                parts.append(bytes(frame.data))
                if frame.fin:
                    whole = b"".join(parts)
                    return whole.decode(errors="replace") if text else whole
            if self._protocol.state is State.CLOSED or self._protocol.parser_exc is not None:
                self._end()
            self._read(deadline)

    def close(self) -> None:
        """Say good-bye, without waiting for an answer."""
        try:
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
                self._socket.settimeout(0.1)
                self._flush()
        except OSError:
            pass  # the other side has left already
        finally:
            self._socket.close()

    def _read(self, deadline: float) -> None:
        self._socket.settimeout(_left(deadline))
        if data := self._socket.recv(_READ):
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        self._frames.extend(event for event in self._protocol.events_received() if isinstance(event, Frame))
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._socket.sendall(data)

    def _end(self) -> None:
        """Raise what the server closed the connection with."""
        if self._protocol.state is not State.CLOSED:
            self._protocol.receive_eof()
        raise self._protocol.close_exc or ConnectionClosedError(None, None)


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 1e-3)
