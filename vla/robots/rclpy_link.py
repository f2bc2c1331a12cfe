"""A ROS system as one of its nodes: rclpy, from a ROS 2 installation or its wheels (extra ``ros2``)."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Mapping
from typing import Any

from vla.errors import MissingExtraError, RobotError
from vla.robots.ros_link import TRIGGER, Board, Heard

_DISCOVERY_S = 6.0


class RclpyLink:
    """See :class:`vla.robots.ros_link.RosLink`. Domain and discovery range are environment variables of ROS.

    Args:
        subscriptions, publications: type by topic.
        services: of type ``std_srvs/srv/Trigger`` that will be called.
        name: of the node.
    """

    def __init__(
        self,
        subscriptions: Mapping[str, str],
        publications: Mapping[str, str],
        services: tuple[str, ...] = (),
        name: str = "vla",
    ) -> None:
        try:
            self._rclpy: Any = importlib.import_module("rclpy")
        except ImportError as error:
            raise MissingExtraError("rclpy", "ros2", "being a ROS 2 node") from error
        self._subscriptions, self._publications = dict(subscriptions), dict(publications)
        self._services, self._name = services, name
        self._board = Board(list(subscriptions))
        self._context: Any = None
        self._node: Any = None
        self._publishers: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        self._spinner: threading.Thread | None = None

    def open(self) -> None:
        self.close()
        self._board = board = Board(list(self._subscriptions))
        self._context = self._rclpy.Context()
        self._context.init()
        self._node = self._rclpy.create_node(self._name, context=self._context)
        executor = importlib.import_module("rclpy.executors").SingleThreadedExecutor(context=self._context)
        executor.add_node(self._node)
        for topic, kind in self._subscriptions.items():
            self._node.create_subscription(
                message_type(kind), topic, lambda m, topic=topic: board.put(topic, plain(m)), 1
            )
        for topic, kind in self._publications.items():
            self._publishers[topic] = self._node.create_publisher(message_type(kind), topic, 1)
        for service in self._services:
            self._clients[service] = self._node.create_client(message_type(TRIGGER), service)
        self._spinner = threading.Thread(target=self._spin, args=(executor, board), daemon=True)
        self._spinner.start()
        deadline = time.monotonic() + _DISCOVERY_S  # nodes find one another in a second or three
        while time.monotonic() < deadline and not all(map(self.listeners, self._publications)):
            time.sleep(0.02)

    def latest(self, topic: str) -> Heard | None:
        return self._board.get(topic)

    def publish(self, topic: str, message: Mapping[str, Any]) -> None:
        self._board.check()
        self._publishers[topic].publish(made(message_type(self._publications[topic]), message))

    def listeners(self, topic: str) -> int | None:
        self._board.check()
        return int(self._publishers[topic].get_subscription_count())

    def trigger(self, service: str, timeout_s: float) -> tuple[bool, str]:
        self._board.check()
        client, answered = self._clients[service], threading.Event()
        if not client.wait_for_service(timeout_sec=timeout_s):
            raise RobotError(f"There is no service {service} in this ROS domain.")
        future = client.call_async(message_type(TRIGGER).Request())
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(timeout_s):
            raise RobotError(f"Service {service} did not answer within {timeout_s:g} s.")
        return bool(future.result().success), str(future.result().message)

    def close(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            self._board.lose("The ROS node was closed: connect() again.")
            self._context.try_shutdown()
            if self._spinner is not None:
                self._spinner.join(_DISCOVERY_S)
            node.destroy_node()
        self._publishers, self._clients = {}, {}

    def _spin(self, executor: Any, board: Board) -> None:
        external = importlib.import_module("rclpy.executors").ExternalShutdownException
        try:
            while self._context.ok():
                executor.spin_once(timeout_sec=0.1)
        except external:
            pass
        finally:
            board.lose("The ROS node has ended: connect() again.")
            executor.shutdown()


def message_type(name: str) -> Any:
    """The class of ``package/msg/Name`` or ``package/srv/Name``."""
    package, kind, short = name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), short)


def plain(message: Any) -> Any:
    """A message as rosbridge would say it: maps, lists, numbers, text; bytes as they are."""
    if hasattr(message, "get_fields_and_field_types"):
        return {name: plain(getattr(message, name)) for name in message.get_fields_and_field_types()}
    if isinstance(message, bytes | bytearray):
        return bytes(message)
    if getattr(message, "typecode", "") == "B":
        return message.tobytes()
    if isinstance(message, str | int | float | bool):
        return message
    return [plain(value) for value in message]


def made(kind: Any, values: Mapping[str, Any]) -> Any:
    """The message of a class that rosbridge would make of these values."""
    message = kind()
    for name, value in values.items():
        there = getattr(message, name)
        if isinstance(value, Mapping):
            setattr(message, name, made(type(there), value))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            setattr(message, name, [made(element_type(kind, name), one) for one in value])
        else:
            setattr(message, name, value)
    return message


def element_type(kind: Any, field: str) -> Any:
    """The message class of the elements of an array field."""
    package, short = kind.get_fields_and_field_types()[field].removeprefix("sequence<").rstrip(">").split("/")
    return message_type(f"{package}/msg/{short}")
