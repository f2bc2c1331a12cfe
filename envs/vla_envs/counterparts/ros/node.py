"""The same system as a node of a ROS domain, by rclpy."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import Any

import rclpy  # pyright: ignore[reportMissingImports]
from rclpy.executors import (  # pyright: ignore[reportMissingImports]
    ExternalShutdownException,
    SingleThreadedExecutor,
)

from vla.robots.rclpy_link import made, message_type, plain
from vla.robots.ros_link import JOINT_STATE, NUMBERS, TRAJECTORY, TRIGGER
from vla_envs.counterparts.ros.system import (
    GRIPPER_TOPIC,
    JOINT_STATES,
    RECOVER,
    STOP,
    TRAJECTORY_TOPIC,
    RosSystem,
)


class Node:
    """As :class:`vla_envs.counterparts.ros.bridge.Bridge`, within a ROS domain."""

    def __init__(self, system: RosSystem, lock: threading.Lock) -> None:
        self._system, self._lock = system, lock
        self._context: Any = None
        self.garbled = False  # DDS delivers whole messages or none
        self.open()

    def open(self) -> None:
        """Take part in the domain (again)."""
        if self._context is not None:
            return
        self._context = rclpy.Context()
        self._context.init()
        node = rclpy.create_node("controller_manager", context=self._context)
        for topic, kind in ((TRAJECTORY_TOPIC, TRAJECTORY), (GRIPPER_TOPIC, NUMBERS)):
            node.create_subscription(
                message_type(kind), topic, lambda m, topic=topic: self._take(topic, m), 10
            )
        for service in (STOP, RECOVER):
            node.create_service(
                message_type(TRIGGER), service, lambda _, answer, name=service: self._answer(name, answer)
            )
        self._states = node.create_publisher(message_type(JOINT_STATE), JOINT_STATES, 10)
        threading.Thread(target=self._spin, args=(self._context, node), daemon=True).start()

    def drop(self) -> None:
        """Leave the domain."""
        context, self._context = self._context, None
        if context is not None:
            context.try_shutdown()

    def publish(self, topic: str, message: Mapping[str, Any]) -> None:
        if self._context is not None and topic == JOINT_STATES:
            self._states.publish(made(message_type(JOINT_STATE), message))

    def close(self) -> None:
        self.drop()

    def _take(self, topic: str, message: Any) -> None:
        with self._lock:
            self._system.receive(topic, plain(message))

    def _answer(self, service: str, answer: Any) -> Any:
        with self._lock:
            told = self._system.call(service, {}) or {}
        answer.success, answer.message = bool(told["success"]), str(told["message"])
        return answer

    @staticmethod
    def _spin(context: Any, node: Any) -> None:
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        with contextlib.suppress(ExternalShutdownException):
            while context.ok():
                executor.spin_once(timeout_sec=0.1)
        node.destroy_node()
