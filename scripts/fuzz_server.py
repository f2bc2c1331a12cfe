"""Malformed and hostile messages against the policy server: nothing crashes, nothing reaches the policy.

usage: python scripts/fuzz_server.py [--messages 100000] [--seed 0] [--out docs/results/serve_fuzz.json]

The server runs in a process of its own, with the shipped contract and a policy that counts what it is asked.
Every message is wrong by construction: random bytes; truncated, flipped, nested, endless and lying msgpack;
wrong dtypes, shapes, sizes, names, NaN; foreign types in every place; text and over-long frames; messages in
the wrong order; broken frames and handshakes; pieces without end; connections that trickle, half close or
vanish. Between them honest clients are answered, and only they: the policy must have been asked exactly as
often as they asked. Exits with 1 otherwise.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import re
import socket
import struct
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import tyro

from vla.contract import PolicyContract
from vla.embodiment import Embodiment
from vla.errors import ContractError
from vla.files import read_json
from vla.serve.config import ServeConfig
from vla.serve.messages import observation_to_wire
from vla.serve.server import PolicyServer, serving
from vla.serve.wire import pack
from vla.testing import sample_observation
from vla.types import ActionChunk, Observation

ROOT = Path(__file__).parents[1]
CONTRACT = PolicyContract.from_json(
    read_json(ROOT / "policies/vla_policies/pretrained/tabletop/policy.json", ContractError, "")
)
ARM = CONTRACT.embodiments["panda"]
LIMIT = 1 << 20  # bytes of a message that this server takes
HONEST_EVERY = 500


@dataclass(frozen=True, kw_only=True)
class Fuzz:
    """Fuzz the policy server.

    Args:
        messages: how many.
        seed: of all of them.
        out: where to write the result.
    """

    messages: int = 100_000
    seed: int = 0
    out: Path | None = None


class CountingPolicy:
    """Zeros for every observation, counted."""

    contract, remembers, trained_as, head = CONTRACT, False, {}, "flow"

    def __init__(self) -> None:
        self.asked = 0

    def reset(self) -> None: ...

    def forget(self, episodes: Collection[int]) -> None: ...

    def check(self, embodiment: Embodiment) -> Embodiment:
        return self.contract.check(embodiment)

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        self.asked += len(observations)
        zeros = np.zeros((CONTRACT.horizon, ARM.action_dim), np.float32)
        return [ActionChunk(actions=zeros, control_hz=ARM.control_hz) for _ in observations]


def run_server(pipe: Connection) -> None:
    """Serve until told otherwise; then say how often the policy was asked."""
    logging.disable()  # a line for every refusal
    policy = CountingPolicy()
    config = ServeConfig(port=0, embodiment="panda", max_message_bytes=LIMIT, idle_s=2.0)
    with serving(PolicyServer(config, lambda: policy)) as url:
        pipe.send(url)
        pipe.recv()
    pipe.send(policy.asked)


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


SEEN = sample_observation(ARM)
FLAT: dict[str, Any] = {
    "observation/image": SEEN.images["front"],
    "observation/wrist_image": SEEN.images["wrist"],
    "observation/state": ARM.pack_state(SEEN.state),
    "prompt": SEEN.instruction,
}
FOREIGN: dict[str, Any] = {
    "images": dict(SEEN.images),
    "state": ARM.pack_state(SEEN.state),
    "task_description": SEEN.instruction,
}
OWN = {"type": "act", "observations": [observation_to_wire(SEEN)]}
Rng = np.random.Generator


def junk(rng: Rng, depth: int = 0) -> Any:
    """Something that belongs nowhere."""
    kind = rng.integers(0, 14 if depth < 3 else 10)
    match kind:
        case 0:
            return None
        case 1:
            return bool(rng.integers(2))
        case 2:
            return [0, -1, 2**31, 2**63 - 1, -(2**63), 2**64 - 1][rng.integers(6)]
        case 3:
            return float(rng.choice([0.5, np.nan, np.inf, -np.inf, 1e308]))
        case 4:
            return "".join(map(chr, rng.integers(0, 0x2FF, rng.integers(0, 20))))
        case 5:
            return rng.bytes(rng.integers(0, 50))
        case 6:
            return np.zeros(rng.integers(0, 5, rng.integers(0, 4)), rng.choice(["<f2", "<i8", "|b1", "<u4"]))
        case 7:
            return np.float64(rng.choice([np.nan, 1.0]))
        case 8:
            return {"__ndarray__": True, "data": rng.bytes(8), "dtype": "|O", "shape": [1]}
        case 9:
            return {
                b"__ndarray__": True,
                b"data": rng.bytes(rng.integers(0, 20)),
                b"dtype": str(
                    rng.choice(["<f4", "|u1", "<c16", ">f8", "|V4", "<U4", "<M8[ns]", "O", "f4,f4"])
                ),
                b"shape": [int(n) for n in rng.integers(-2, 2**31, rng.integers(0, 7))],
            }
        case 10:
            return [junk(rng, depth + 1) for _ in range(rng.integers(0, 5))]
        case 11:
            return {str(i): junk(rng, depth + 1) for i in range(rng.integers(0, 5))}
        case 12:
            return msgpack.ExtType(int(rng.integers(0, 127)), rng.bytes(4))
        case _:
            return msgpack.Timestamp(int(rng.integers(0, 2**31)))


def loosely(value: Any) -> bytes:
    """msgpack of anything, numpy arrays as openpi writes them."""

    def encoded(item: Any) -> Any:
        if isinstance(item, np.ndarray):
            return {
                b"__ndarray__": True,
                b"data": item.tobytes(),
                b"dtype": item.dtype.str,
                b"shape": item.shape,
            }
        return {b"__npgeneric__": True, b"data": item.item(), b"dtype": item.dtype.str}

    return msgpack.packb(value, default=encoded)


def without_one(rng: Rng, message: dict[str, Any]) -> dict[str, Any]:
    """The message without one of its keys: it cannot be completed by chance."""
    gone = rng.choice(list(message))
    return {key: value for key, value in message.items() if key != gone}


def wrong_state(rng: Rng) -> np.ndarray:
    """A state vector that does not fit."""
    match rng.integers(0, 5):
        case 0:
            return np.zeros(int(rng.choice([0, 1, 16, 18, 1000])), np.float32)
        case 1:
            state = np.zeros(17)
            state[rng.integers(17)] = rng.choice([np.nan, np.inf, -np.inf, 1e300])
            return state
        case 2:
            return np.zeros(17, rng.choice(["<i4", "|u1", "|b1", "<i8"]))
        case 3:
            return np.zeros((1, 17), np.float32)
        case _:
            return np.zeros((), np.float32)


def wrong_image(rng: Rng) -> np.ndarray:
    """A picture that does not fit."""
    shapes = [
        (3, 64, 64),
        (64, 64),
        (64, 64, 4),
        (64, 63, 3),
        (0, 0, 3),
        (64, 64, 1),
        (1, 64, 64, 3),
        (5000, 8, 3),
    ]
    if rng.integers(2):
        return np.zeros(shapes[rng.integers(len(shapes))], np.uint8)
    return np.zeros((64, 64, 3), rng.choice(["<f4", "|i1", "<u2", "|b1"]))


def flat_message(rng: Rng) -> bytes:
    """openpi's message with one thing wrong."""
    message = dict(FLAT)
    match rng.integers(0, 8):
        case 0:
            message = without_one(rng, message)
        case 1:
            message["observation/state"] = wrong_state(rng)
        case 2:
            message[str(rng.choice(["observation/image", "observation/wrist_image"]))] = wrong_image(rng)
        case 3:
            message[f"key {rng.integers(1000)}"] = junk(rng)
        case 4:
            message["prompt"] = "x" * int(rng.integers(4097, 100_000)) if rng.integers(2) else 7
        case 5:
            message["time_s"] = float(rng.choice([np.nan, -1.0, np.inf])) if rng.integers(2) else "now"
        case 6:
            data = bytearray(pack(without_one(rng, message)))
            for place in rng.integers(0, len(data), rng.integers(1, 30)):
                data[place] = rng.integers(256)
            return bytes(data)
        case _:
            key = str(rng.choice(list(message)))
            value = junk(rng)
            message[key] = {"no": value} if isinstance(value, str) else value
    return loosely(message)


def own_message(rng: Rng) -> bytes:
    """One of our own typed messages with something wrong."""
    observation = dict(OWN["observations"][0])  # type: ignore[index]
    match rng.integers(0, 9):
        case 0:
            return loosely({"type": junk(rng), "observations": [observation]})
        case 1:
            return loosely({**OWN, f"more {rng.integers(99)}": junk(rng)})
        case 2:
            return loosely({"type": "act", "observations": junk(rng)})
        case 3:
            return loosely({"type": "act", "observations": [without_one(rng, observation)]})
        case 4:
            key = str(rng.choice(["images", "state", "embodiment", "episode", "time_s"]))
            value: Any = {"images": {}, "state": {}, "embodiment": "sawyer", "episode": -1, "time_s": np.nan}[
                key
            ]
            return loosely({"type": "act", "observations": [{**observation, key: value}]})
        case 5:
            state = {**observation["state"], "tcp_yaw": wrong_state(rng)}
            return loosely({"type": "act", "observations": [{**observation, "state": state}]})
        case 6:
            images = {**observation["images"], "wrist": wrong_image(rng)}
            return loosely({"type": "act", "observations": [{**observation, "images": images}]})
        case 7:
            promise = {"actions": np.zeros((3, 5), np.float32), "frozen": int(rng.integers(0, 3))}
            return loosely({"type": "act", "observations": [{**observation, "promise": promise}]})
        case _:
            part = str(rng.choice(["name", "cameras", "state", "action", "control_hz", "surprise"]))
            arm = {**ARM.to_json(), part: junk(rng)}
            return loosely({"type": "open", "embodiment": arm})


def foreign_message(rng: Rng) -> bytes:
    """A message of vla-eval with something wrong."""

    def said(kind: Any, payload: Any, **more: Any) -> bytes:
        return loosely({"type": kind, "payload": payload, "seq": 1, "timestamp": 0.0, **more})

    match rng.integers(0, 6):
        case 0:
            return said(junk(rng), {})
        case 1:
            return said("observation", junk(rng))
        case 2:
            return said("observation", without_one(rng, FOREIGN))
        case 3:
            lie = {"__image__": True, "format": "png", "data": rng.bytes(60), "shape": [64, 64, 3]}
            if rng.integers(2):
                lie["data"] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + rng.bytes(30)
            return said("observation", {**FOREIGN, "images": {"front": lie, "wrist": SEEN.images["wrist"]}})
        case 4:
            return said("hello", {"protocol_version": junk(rng)}, seq=junk(rng))
        case _:
            return said("observation", {**FOREIGN, "state": wrong_state(rng)})


def bytes_message(rng: Rng) -> bytes:
    """No message at all."""
    match rng.integers(0, 7):
        case 0:
            return rng.bytes(rng.integers(0, 300))
        case 1:
            whole = pack(FLAT)
            return whole[: rng.integers(0, len(whole))]
        case 2:
            return bytes([int(rng.choice([0x91, 0x81]))]) * int(rng.integers(1, 5000))
        case 3:
            return b"\x93" + b"\xdd" + struct.pack(">I", int(rng.integers(2**16, 2**32)))
        case 4:
            return bytes([int(rng.choice([0xC6, 0xDB, 0xC9]))]) + struct.pack(
                ">I", int(rng.integers(2**16, 2**32))
            )
        case 5:
            return loosely([[[]] * int(rng.integers(1, 300))] * int(rng.integers(1, 300)))
        case _:
            return pack(FLAT) + rng.bytes(rng.integers(1, 9))


#: name -> (path, message); sent one after the other on one connection while the server answers.
MESSAGES: dict[str, tuple[str, Callable[[Rng], bytes]]] = {
    "openpi observations with a fault": ("/", flat_message),
    "own messages with a fault": ("/", own_message),
    "vla-eval messages with a fault": ("/vla-eval", foreign_message),
    "bytes that are no message": ("/", bytes_message),
    "bytes that are no message, vla-eval": ("/vla-eval", bytes_message),
}


def talk(port: int, rng: Rng, counts: Counter[str]) -> None:
    """Send faulty messages, each answered with an error, until the server closes or it is enough."""
    name = str(rng.choice(list(MESSAGES)))
    path, make = MESSAGES[name]
    client = Raw(port, path)
    with client.socket:
        if not client.greeted() or (path == "/" and client.hear() is None):
            raise AssertionError("an honest handshake was refused")
        if path == "/vla-eval" and rng.integers(2):
            client.send(
                loosely({"type": "hello", "payload": {"protocol_version": 1}, "seq": 0, "timestamp": 0})
            )
            client.hear()
            if rng.integers(2):
                client.send(loosely({"type": "episode_start", "payload": {}, "seq": 0, "timestamp": 0}))
        for _ in range(20):
            client.send(make(rng))
            counts[name] += 1
            heard = client.hear()
            if heard is None or heard[0] in (1, 8):
                return
            answer = msgpack.unpackb(heard[1], strict_map_key=False)
            if answer.get("type") not in ("error", "hello"):
                raise AssertionError(f"{name}: answered with {answer!s:.300}")


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


def gauge(port: int, name: str) -> int:
    """A number of the server's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as page:
        found = re.search(rf"^{name} (\d+)", page.read().decode(), re.MULTILINE)
    assert found is not None
    return int(found.group(1))


def resident_mb(port: int) -> float:
    return gauge(port, "process_resident_memory_bytes") / 2**20


def main() -> int:
    flags = tyro.cli(Fuzz, description=__doc__)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run_server, args=(theirs,), daemon=True)
    process.start()
    port = int(ours.recv().rpartition(":")[2])
    rng, counts, honest_asked = np.random.default_rng(flags.seed), Counter[str](), 0
    began, told, before_mb = time.monotonic(), 0, 0.0
    with trickling(port, 10):
        while (done := counts.total()) < flags.messages:
            if done >= told * HONEST_EVERY:
                told += 1
                honest(port)
                honest_asked += 1
                if told * HONEST_EVERY * 10 >= flags.messages and not before_mb:
                    before_mb = resident_mb(port)
            kind = rng.random()
            if kind < 0.8:
                talk(port, rng, counts)
            elif kind < 0.9:
                misbehave(port, rng, counts)
            else:
                bad_handshake(port, rng, counts)
    after_mb, took_s = resident_mb(port), time.monotonic() - began
    deadline = time.monotonic() + 20
    while (sessions := gauge(port, "vla_sessions")) and time.monotonic() < deadline:
        time.sleep(0.1)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as page:
        found = re.search(r'cause="failure"\} (\d+)', page.read().decode())
    failures = int(found.group(1)) if found else 0  # what the server did not expect and survived
    alive = process.is_alive()
    ours.send(None)
    asked = ours.recv()
    process.join(20)
    good = alive and not failures and asked == honest_asked and sessions == 0
    crashes = int(not alive) + failures
    measured = (
        f"{counts.total()} messages of {len(counts)} sorts in {took_s:.0f} s: {crashes} crashes, "
        f"{asked - honest_asked} reached the policy, {sessions} sessions left; {honest_asked} honest clients "
        f"in between, all answered; memory {before_mb:.0f} MB after a tenth, {after_mb:.0f} MB at the end"
    )
    print(measured)
    result = {
        "claim": "malformed and hostile messages and connections against the policy server",
        "target": "0 crashes; 0 reach the policy; no session left",
        "measured": measured,
        "command": f"python scripts/fuzz_server.py --messages {flags.messages}",
        "sorts": dict(sorted(counts.items())),
    }
    if flags.out is not None:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
