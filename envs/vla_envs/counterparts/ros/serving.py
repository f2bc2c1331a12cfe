"""The counterpart's process: cycles in real time, its transport and its side channel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from vla_envs.counterparts.ros.system import JOINT_STATES, Faults, RosSystem
from vla_envs.counterparts.side_channel import CONTROL_PORT, SideChannel
from vla_envs.counterparts.table import TabletopPlant

_LATE_S = 0.2  # behind the clock: give up the time rather than catch up
_STATE_S = 0.01  # between joint states


class Transport(Protocol):
    """A way to its clients."""

    garbled: bool

    def open(self) -> None: ...

    def drop(self) -> None: ...

    def publish(self, topic: str, message: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class RosServer:
    """One arm.

    Args:
        host: of the side channel, and of the bridge; a loopback alias (127.0.0.x) for each arm.
        transport: ``rosbridge`` or ``rclpy``.
        task, seed, image_size: the scene behind it (``TabletopPlant``).
    """

    def __init__(
        self, host: str, *, transport: Literal["rosbridge", "rclpy"], task: str, seed: int, image_size: int
    ) -> None:
        self.plant = TabletopPlant("ur5e", task, seed, image_size)
        self.system = RosSystem(self.plant)
        self._lock = threading.Lock()
        self._transport = self._make(transport, host)
        calls: dict[str, Callable[..., Any]] = {
            "scene": self._scene,
            "fault": self._fault,
            "state": self._state,
            "clock": lambda: self.system.time_s,
            "events": lambda: [list(event) for event in self.system.events],
        }
        self.side = SideChannel(host, CONTROL_PORT, self.plant, self._lock, calls)

    def run(self) -> None:
        """Serve until interrupted."""
        deadline, told_s = time.monotonic(), 0.0
        while True:
            deadline += self.plant.period_s
            with self._lock:
                self.system.cycle()
                now_s = self.system.time_s
                state = self.system.joint_state() if now_s - told_s >= _STATE_S - 1e-9 else None
            if now_s - told_s >= _STATE_S - 1e-9:
                told_s = now_s
            if state is not None:
                self._transport.publish(JOINT_STATES, state)
            behind = time.monotonic() - deadline
            if behind > _LATE_S:
                deadline += behind
            elif behind < 0:
                time.sleep(-behind)

    def close(self) -> None:
        self._transport.close()
        self.side.close()

    def _make(self, transport: str, host: str) -> Transport:
        if transport == "rclpy":
            from vla_envs.counterparts.ros.node import Node

            return Node(self.system, self._lock)
        from vla_envs.counterparts.ros.bridge import Bridge

        return Bridge(self.system, self._lock, host)

    def _scene(
        self, task: str, seed: int, options: Mapping[str, Any] | None = None, instruction: str | None = None
    ) -> dict[str, Any]:
        return self.side.in_painter(lambda: self.system.set_scene(task, seed, options, instruction))

    def _state(self) -> dict[str, Any]:
        with self._lock:
            setpoint, _ = self.system.setpoint()
            return {
                "q": self.plant.q, "qd": self.plant.qd, "target_q": setpoint,
                "gripper": self.plant.gripper_share, "time_s": self.system.time_s,
            }  # fmt: skip

    def _fault(self, kind: str) -> None:
        faults, transport = self.system.faults, self._transport
        kinds: dict[str, Callable[[], object]] = {
            **{name: lambda name=name: setattr(faults, name, True) for name in Faults.__annotations__},
            "protective_stop": self.system.protective_stop,
            "lost_socket": transport.drop,
            "garbled": lambda: setattr(transport, "garbled", True),
            "freeze_cameras": lambda: setattr(self.side, "frozen", True),
            "clear": self._clear,
        }
        if kind not in kinds:
            raise TypeError(f"no fault {kind!r}; there are {sorted(kinds)}")
        with self._lock:
            kinds[kind]()

    def _clear(self) -> None:
        self.system.faults = Faults()
        self.side.frozen = self._transport.garbled = False
        self._transport.open()
