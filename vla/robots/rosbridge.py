"""A ROS system behind rosbridge: the v2 protocol, JSON over a websocket (its default port is 9090).

Nothing of ROS needs to be installed here.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Mapping
from typing import Any

from vla.errors import MissingExtraError, RobotError
from vla.robots.ros_link import TRIGGER, Board, Heard

_OPEN_S, _CLOSE_S, _ROSAPI_S = 5.0, 0.5, 1.0
_MAX_BYTES = 1 << 24
_SUBSCRIBERS = ("/rosapi/subscribers", "rosapi_msgs/srv/Subscribers")


class RosbridgeLink:
    """See :class:`vla.robots.ros_link.RosLink`.

    Args:
        url: e.g. ``ws://192.168.0.5:9090``.
        subscriptions, publications: type by topic.
    """

    def __init__(self, url: str, subscriptions: Mapping[str, str], publications: Mapping[str, str]) -> None:
        self._url, self._subscriptions, self._publications = url, dict(subscriptions), dict(publications)
        self._board = Board(list(subscriptions))
        self._answers: dict[str, dict[str, Any]] = {}
        self._answered = threading.Condition()
        self._ids = itertools.count(1)
        self._open = contextlib.ExitStack()
        self._socket: Any = None
        self._reader: threading.Thread | None = None

    def open(self) -> None:
        try:
            from websockets.exceptions import WebSocketException
            from websockets.sync.client import connect
        except ModuleNotFoundError as error:
            raise MissingExtraError("websockets", "ros2", "talking to rosbridge") from error

        self.close()
        self._board = Board(list(self._subscriptions))
        try:
            self._socket = self._open.enter_context(
                connect(
                    self._url,
                    open_timeout=_OPEN_S,
                    close_timeout=_CLOSE_S,
                    max_size=_MAX_BYTES,
                    compression=None,
                )
            )
        except (OSError, WebSocketException, ValueError) as error:
            raise RobotError(
                f"No rosbridge at {self._url}: {error}. Is it running ('ros2 launch rosbridge_server "
                "rosbridge_websocket_launch.xml'), and are address and port right?"
            ) from error
        self._reader = threading.Thread(target=self._read, args=(self._socket, self._board), daemon=True)
        self._reader.start()
        for topic, kind in self._publications.items():
            self._send({"op": "advertise", "topic": topic, "type": kind})
        for topic, kind in self._subscriptions.items():
            self._send({"op": "subscribe", "topic": topic, "type": kind, "queue_length": 1})

    def latest(self, topic: str) -> Heard | None:
        return self._board.get(topic)

    def publish(self, topic: str, message: Mapping[str, Any]) -> None:
        self._send({"op": "publish", "topic": topic, "msg": message})

    def listeners(self, topic: str) -> int | None:
        try:
            told = self._call(
                "/rosapi/subscribers", "rosapi_msgs/srv/Subscribers", {"topic": topic}, _ROSAPI_S
            )
        except RobotError:
            self._board.check()
            return None  # rosapi does not run
        return len(told["subscribers"])

    def trigger(self, service: str, timeout_s: float) -> tuple[bool, str]:
        told = self._call(service, TRIGGER, {}, timeout_s)
        return bool(told.get("success")), str(told.get("message", ""))

    def close(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            self._board.lose("The connection to rosbridge was closed: connect() again.")
            with contextlib.suppress(OSError):
                self._open.close()
        if self._reader is not None:
            self._reader.join(_OPEN_S)
            self._reader = None

    # --- inside

    def _call(self, service: str, kind: str, arguments: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        number = f"vla-{next(self._ids)}"
        request = {"op": "call_service", "id": number, "service": service, "type": kind, "args": arguments}
        self._send(request)
        with self._answered:
            there = self._answered.wait_for(lambda: number in self._answers, timeout_s)
            answer = self._answers.pop(number, {})
        if not there:
            self._board.check()
            raise RobotError(f"Service {service} at {self._url} did not answer within {timeout_s:g} s.")
        if not answer.get("result", False):
            raise RobotError(f"Service {service} at {self._url} failed: {answer.get('values')}")
        return dict(answer["values"])

    def _send(self, message: Mapping[str, Any]) -> None:
        from websockets.exceptions import ConnectionClosed

        self._board.check()
        if self._socket is None:
            raise RobotError(f"Not connected to rosbridge at {self._url}: call connect() first.")
        try:
            self._socket.send(json.dumps(message, allow_nan=False))
        except (ConnectionClosed, OSError) as error:
            self._board.lose(self._why_lost(error))
            self._board.check()

    def _read(self, connection: Any, board: Board) -> None:
        from websockets.exceptions import ConnectionClosed

        while True:
            try:
                told = json.loads(connection.recv())
            except (ConnectionClosed, OSError) as error:
                board.lose(self._why_lost(error))
                return
            except ValueError as error:
                board.lose(f"{self._url} sends what is no JSON: {error}. Is it rosbridge?")
                return
            if told.get("op") == "publish":
                board.put(told["topic"], told["msg"])
            elif told.get("op") == "service_response":
                with self._answered:
                    self._answers[str(told.get("id"))] = told
                    self._answered.notify_all()

    def _why_lost(self, error: Exception) -> str:
        return (
            f"The connection to rosbridge at {self._url} is lost ({error}): the arm ends its last short "
            "trajectory and holds. Look at the network and the bridge, then connect() again."
        )
