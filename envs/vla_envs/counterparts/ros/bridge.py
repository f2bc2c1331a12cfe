"""rosbridge's v2 protocol over a websocket: as much of it as a robot's client uses."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from vla_envs.counterparts.ros.system import RosSystem

PORT = 9090


class Bridge:
    """A server in threads of its own.

    Args:
        system: what is behind it.
        lock: held by whoever steps the system.
        host, port: to bind.
    """

    def __init__(self, system: RosSystem, lock: threading.Lock, host: str, port: int = PORT) -> None:
        self._system, self._lock, self._host, self._port = system, lock, host, port
        self._subscribers: dict[str, set[ServerConnection]] = {}
        self._clients: set[ServerConnection] = set()
        self._server: Server | None = None
        self.garbled = False
        self.open()

    def open(self) -> None:
        """Take connections (again)."""
        if self._server is None:
            self._server = serve(self._converse, self._host, self._port, compression=None)
            threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def drop(self) -> None:
        """Pull the cable: no connection, and no new ones."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
        for client in list(self._clients):
            with contextlib.suppress(OSError):
                client.socket.shutdown(2)

    def publish(self, topic: str, message: Mapping[str, Any]) -> None:
        """To all that subscribed; rosbridge writes NaN as null."""
        text = json.dumps(_nulls({"op": "publish", "topic": topic, "msg": message}))
        if self.garbled:
            text = text[: len(text) // 2]
        for client in list(self._subscribers.get(topic, ())):
            with contextlib.suppress(ConnectionClosed, OSError):
                client.send(text)

    def close(self) -> None:
        self.drop()

    def _converse(self, client: ServerConnection) -> None:
        operations: dict[str, Callable[[ServerConnection, dict[str, Any]], None]] = {
            "subscribe": self._subscribe,
            "publish": self._take,
            "call_service": self._call,
            "advertise": lambda client, message: None,
        }
        self._clients.add(client)
        try:
            for text in client:
                message = json.loads(text)
                operation = operations.get(message.get("op"))
                if operation is None:
                    self._say(client, f"unknown operation {message.get('op')!r}")
                else:
                    operation(client, message)
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)
            for clients in self._subscribers.values():
                clients.discard(client)

    def _subscribe(self, client: ServerConnection, message: dict[str, Any]) -> None:
        self._subscribers.setdefault(message["topic"], set()).add(client)

    def _take(self, client: ServerConnection, message: dict[str, Any]) -> None:
        with self._lock:
            self._system.receive(message["topic"], message["msg"])

    def _call(self, client: ServerConnection, message: dict[str, Any]) -> None:
        service = message["service"]
        with self._lock:
            values = self._system.call(service, message.get("args", {}))
        answer = {"op": "service_response", "id": message.get("id"), "service": service}
        known = values is not None
        client.send(json.dumps({**answer, "result": known, "values": values or f"no service {service}"}))

    def _say(self, client: ServerConnection, text: str) -> None:
        client.send(json.dumps({"op": "status", "level": "error", "msg": text}))


def _nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nulls(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_nulls(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
