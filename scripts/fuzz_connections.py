"""Connections without manners, for scripts/fuzz_server.py: any bytes, any frame, and no end."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator

from fuzz_messages import FLAT, Rng

from vla.serve.wire import pack

LIMIT = 1 << 20  # bytes of a message that this server takes


class Raw:
    """A websocket client without manners: any bytes, any frame."""

    def __init__(self, port: int, path: str, handshake: bytes | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        said = (
            handshake
            or (
                f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ).encode()
        )
        self.socket.sendall(said)

    def greeted(self) -> bool:
        """Read the answer to the handshake; whether it was accepted."""
        while b"\r\n\r\n" not in self._buffer:
            if not (more := self.socket.recv(65536)):
                return False
            self._buffer += more
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return b" 101 " in head.split(b"\r\n")[0]

    def send(self, payload: bytes, opcode: int = 2, *, first: int = 0x80, mask: bool = True) -> None:
        """One frame; the mask is zero, so that payloads go as they are."""
        size = len(payload)
        short = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", min(size, 65535))
        length = short if size < 65536 else b"\x7f" + struct.pack(">Q", size)
        length = bytes([length[0] | (0x80 if mask else 0)]) + length[1:]
        self.socket.sendall(bytes([first | opcode]) + length + (bytes(4) if mask else b"") + payload)

    def hear(self) -> tuple[int, bytes] | None:
        """Opcode and payload of the next frame; None at the end of the connection."""
        head = self._take(2)
        if head is None:
            return None
        size = head[1] & 0x7F
        if size > 125:
            extended = self._take(2 if size == 126 else 8)
            if extended is None:
                return None
            size = int.from_bytes(extended, "big")
        payload = self._take(size)
        return None if payload is None else (head[0] & 0x0F, payload)

    def _take(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            if not (more := self.socket.recv(1 << 18)):
                return None
            self._buffer += more
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken


def text_frame(client: Raw, rng: Rng) -> None:
    client.send(rng.bytes(rng.integers(0, 100)) if rng.integers(2) else b"hello", opcode=1)


def huge_frame(client: Raw, rng: Rng) -> None:
    client.send(bytes(LIMIT + int(rng.integers(1, 1000))))


def claimed_frame(client: Raw, rng: Rng) -> None:
    client.socket.sendall(b"\x82\xff" + struct.pack(">Q", int(rng.integers(2**32, 2**62))) + bytes(4))


def broken_frame(client: Raw, rng: Rng) -> None:
    match rng.integers(0, 5):
        case 0:
            client.send(b"x", mask=False)
        case 1:
            client.send(b"x", opcode=int(rng.choice([3, 4, 7, 11, 15])))
        case 2:
            client.send(b"x", first=0x80 | int(rng.choice([0x10, 0x20, 0x40])))
        case 3:
            client.send(rng.bytes(200), opcode=9)
        case _:
            client.send(rng.bytes(rng.integers(0, 4)), opcode=8)


def pieces(client: Raw, rng: Rng) -> None:
    client.send(b"", first=0)
    with contextlib.suppress(ConnectionError):
        for _ in range(1200):
            client.socket.sendall(b"\x00\x80\0\0\0\0")


def half_closed(client: Raw, rng: Rng) -> None:
    data = pack(FLAT)
    client.socket.sendall(b"\x82\xfe" + struct.pack(">H", len(data) & 0xFFFF) + bytes(4) + data[:500])
    client.socket.shutdown(socket.SHUT_WR)


def vanishing(client: Raw, rng: Rng) -> None:
    client.socket.sendall(b"\x82\xfe\x10\x00")
    reset_at_close = struct.pack("ii", 1, 0)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_at_close)


FRAMES: dict[str, Callable[[Raw, Rng], None]] = {
    "text frames": text_frame,
    "frames beyond the limit": huge_frame,
    "frames that claim to be endless": claimed_frame,
    "broken frames": broken_frame,
    "pieces without end": pieces,
    "half-closed connections": half_closed,
    "vanishing clients": vanishing,
}


def misbehave(port: int, rng: Rng, counts: Counter[str]) -> None:
    """One thing that no websocket client does; the server ends the connection by itself."""
    name = str(rng.choice(list(FRAMES)))
    client = Raw(port, str(rng.choice(["/", "/vla-eval"])))
    with client.socket:
        client.greeted()
        counts[name] += 1
        with contextlib.suppress(ConnectionError):
            FRAMES[name](client, rng)
            if name != "vanishing clients":
                while (heard := client.hear()) is not None and heard[0] != 8:
                    pass


def bad_handshake(port: int, rng: Rng, counts: Counter[str]) -> None:
    """Something that is no websocket handshake."""
    counts["broken handshakes"] += 1
    said = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 2000 + b"\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.bytes(100) + b"\r\n",
        rng.bytes(200) + b"\r\n\r\n",
    ]
    with contextlib.suppress(ConnectionError):
        client = Raw(port, "/", said[rng.integers(len(said))])
        with client.socket:
            client.greeted()


@contextlib.contextmanager
def trickling(port: int, number: int) -> Iterator[list[Raw]]:
    """Connections that began a handshake or a frame and never end it."""
    held = [Raw(port, "/", b"GET / HTTP/1.1\r\nHost:") for _ in range(number)]
    for _ in range(number):
        client = Raw(port, "/")
        client.greeted()
        client.socket.sendall(b"\x82\xfe\x10\x00")
        held.append(client)
    try:
        yield held
    finally:
        for client in held:
            client.socket.close()


def honest(port: int) -> None:
    """An observation that fits is answered, whatever else goes on."""
    client = Raw(port, "/")
    with client.socket:
        client.greeted()
        client.hear()
        client.send(pack(FLAT))
        heard = client.hear()
        assert (heard or (0, b""))[0] == 2, f"an honest client was answered with {heard!s:.300}"
