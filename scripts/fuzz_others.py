"""Clients of /act, GR00T's protocol and lerobot's service that misbehave, for scripts/fuzz_server.py."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter

import grpc
import msgpack
import zmq
from fuzz_connections import Raw
from fuzz_messages import Rng
from fuzz_other_messages import (
    ACT,
    NESTED,
    act_message,
    gr00t_message,
    instructions,
    lerobot_message,
    observation_pickle,
    plain,
    seen,
)

from vla.serve.gr00t_wire import write
from vla.serve.lerobot_wire import bytes_field

#: Of one client, before it says good-bye.
IN_A_ROW = 20


def post(port: int, body: bytes) -> int:
    """The status that a request to /act is answered with."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/act", data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


class Others:
    """Clients of the protocols beside the websockets."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self._port = int(addresses["websocket"].rpartition(":")[2])
        self._gr00t = addresses["gr00t"]
        self._zmq = zmq.Context()
        self._channel = grpc.insecure_channel(addresses["lerobot"])
        self._step = 0

    def act(self, rng: Rng, counts: Counter[str]) -> None:
        """A request to /act that is refused; now and then one whose body is not what it says."""
        if rng.integers(20) == 0:
            counts["requests to /act that lie about their body"] += 1
            size = int(rng.choice([0, 5, 10**12]))
            said = f"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\nxxxx".encode()
            with Raw(self._port, "/act", said).socket as connection:
                connection.shutdown(1)
                while connection.recv(65536):
                    pass
            return
        counts["requests to /act with a fault"] += 1
        if (status := post(self._port, act_message(rng))) != 400:
            raise AssertionError(f"/act: answered with {status}")

    def gr00t(self, rng: Rng, counts: Counter[str]) -> None:
        """Requests of one client of GR00T's protocol, each answered with an error."""
        with self._zmq.socket(zmq.REQ) as client:
            client.setsockopt(zmq.LINGER, 0)
            client.setsockopt(zmq.RCVTIMEO, 20_000)
            client.connect(self._gr00t)
            for _ in range(IN_A_ROW):
                client.send(gr00t_message(rng))
                counts["requests of GR00T's protocol with a fault"] += 1
                answer = msgpack.unpackb(client.recv(), strict_map_key=False)
                if "error" not in answer:
                    raise AssertionError(f"GR00T's protocol: answered with {answer!s:.300}")

    def frames(self, rng: Rng, counts: Counter[str]) -> None:
        """Frames that no client of GR00T's protocol sends: nobody is answered."""
        with self._zmq.socket(zmq.DEALER) as client:
            client.setsockopt(zmq.LINGER, 1000)
            client.connect(self._gr00t)
            parts = [b"x"] * int(rng.integers(4, 300)) if rng.integers(2) else [gr00t_message(rng)]
            client.send_multipart(parts)
        counts["frames that GR00T's clients do not send"] += 1

    def lerobot(self, rng: Rng, counts: Counter[str]) -> None:
        """Calls of lerobot's service, each refused."""
        self._call("Ready", b"")
        self._call("SendPolicyInstructions", instructions())
        for _ in range(IN_A_ROW):
            counts["pickles for lerobot's service"] += 1
            pickled = lerobot_message(rng)
            try:
                if rng.integers(8) == 0:
                    self._call("SendPolicyInstructions", bytes_field(1, pickled))
                else:
                    self._see(pickled, lies=rng.integers(8) == 0)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:  # type: ignore[attr-defined]
                    raise
            else:
                raise AssertionError(f"lerobot's service took {pickled[:300]!r}")

    def honest(self) -> int:
        """Each protocol once as it should be; how many observations that is."""
        assert post(self._port, json.dumps(plain(ACT)).encode()) == 200
        with self._zmq.socket(zmq.REQ) as client:
            client.setsockopt(zmq.RCVTIMEO, 20_000)
            client.connect(self._gr00t)
            client.send(write({"endpoint": "get_action", "data": {"observation": NESTED}}, "npy"))
            answer = msgpack.unpackb(client.recv(), strict_map_key=False)
            assert isinstance(answer, list), f"GR00T's protocol: answered with {answer!s:.300}"
        self._call("Ready", b"")
        self._call("SendPolicyInstructions", instructions())
        self._step += 1
        self._see(observation_pickle(seen(self._step)))
        assert len(self._call("GetActions", b"")) > 100
        return 3

    def close(self) -> None:
        self._channel.close()
        self._zmq.destroy(linger=0)

    def _call(self, method: str, request: bytes) -> bytes:
        return self._channel.unary_unary(f"/transport.AsyncInference/{method}")(request, timeout=20)

    def _see(self, data: bytes, *, lies: bool = False) -> None:
        piece = bytes([8, 7 if lies else 3]) + bytes_field(2, data)
        self._channel.stream_unary("/transport.AsyncInference/SendObservations")(iter([piece]), timeout=20)
