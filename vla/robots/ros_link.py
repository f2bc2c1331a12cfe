"""What the ROS 2 driver needs of a ROS system: topics both ways and a service, as plain JSON values.

Messages are dicts in rosbridge's form (``sec`` and ``nanosec`` of times, lists for arrays), whichever way
they travel: :class:`vla.robots.rosbridge.RosbridgeLink` over a websocket,
:class:`vla.robots.rclpy_link.RclpyLink` as a node of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vla.errors import RobotError

JOINT_STATE = "sensor_msgs/msg/JointState"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
NUMBERS = "std_msgs/msg/Float64MultiArray"
TRIGGER = "std_srvs/srv/Trigger"


@dataclass(frozen=True, kw_only=True)
class Heard:
    """The last message of a topic, and when it came by ``time.monotonic``."""

    message: Mapping[str, Any]
    at_s: float


class RosLink(Protocol):
    """A connection; every method but :meth:`open` and :meth:`close` raises RobotError once it is lost."""

    def open(self) -> None:
        """Connect and subscribe.

        Raises:
            RobotError: nobody there, and what to look at.
        """
        ...

    def latest(self, topic: str) -> Heard | None:
        """The last message of a subscribed topic; None before the first."""
        ...

    def publish(self, topic: str, message: Mapping[str, Any]) -> None: ...

    def listeners(self, topic: str) -> int | None:
        """How many subscribe to a topic; None where that cannot be known."""
        ...

    def trigger(self, service: str, timeout_s: float) -> tuple[bool, str]:
        """Call a ``std_srvs/srv/Trigger``: whether it succeeded, and what it says.

        Raises:
            RobotError: no such service, or no answer in time.
        """
        ...

    def close(self) -> None: ...


class Board:
    """The last message of each topic, written by a thread and read by another; and why no more will come."""

    def __init__(self, topics: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, Heard | None] = dict.fromkeys(topics)
        self._lost: str | None = None

    def put(self, topic: str, message: Mapping[str, Any]) -> None:
        """A message has come; those of topics that nobody asked for are left."""
        with self._lock:
            if topic in self._latest:
                self._latest[topic] = Heard(message=message, at_s=time.monotonic())

    def get(self, topic: str) -> Heard | None:
        self.check()
        with self._lock:
            return self._latest[topic]

    def lose(self, why: str) -> None:
        """From now on, all is refused, for the first reason given."""
        with self._lock:
            self._lost = self._lost or why

    def check(self) -> None:
        """Raise :class:`RobotError` once the connection is lost."""
        with self._lock:
            lost = self._lost
        if lost is not None:
            raise RobotError(lost)


def duration(seconds: float) -> dict[str, int]:
    """A ``builtin_interfaces/msg/Duration``."""
    whole = int(seconds)
    return {"sec": whole, "nanosec": round((seconds - whole) * 1e9) % 1_000_000_000}


def trajectory(
    joints: Sequence[str], positions: np.ndarray, within_s: float, *, at_rest: bool = False
) -> dict[str, Any]:
    """A ``JointTrajectory`` of one point, to be begun now; ``at_rest``: it ends with speed zero.

    Args:
        joints: names.
        positions: [n] in their order, rad.
        within_s: seconds until it is reached.
    """
    point = {
        "positions": [float(x) for x in positions],
        "velocities": [0.0] * len(joints) if at_rest else [],
        "accelerations": [],
        "effort": [],
        "time_from_start": duration(within_s),
    }
    now = {"stamp": {"sec": 0, "nanosec": 0}, "frame_id": ""}
    return {"header": now, "joint_names": list(joints), "points": [point]}


def numbers(values: Sequence[float]) -> dict[str, Any]:
    """A ``Float64MultiArray``."""
    return {"layout": {"dim": [], "data_offset": 0}, "data": [float(x) for x in values]}


def joints_of(message: Mapping[str, Any], wanted: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Positions and speeds [n] of the ``wanted`` joints of a ``JointState``, whatever their order in it.

    Raises:
        RobotError: joints are missing, positions are fewer than names, or not finite.
    """
    names, positions = list(message["name"]), message["position"]
    if missing := [name for name in wanted if name not in names]:
        raise RobotError(
            f"joint_states lacks {', '.join(missing)} (it names {', '.join(names) or 'nothing'}): is the "
            "joint_state_broadcaster of this arm active, and are the names right?"
        )
    if len(positions) != len(names):
        raise RobotError(f"joint_states has {len(names)} names and {len(positions)} positions.")
    speeds = message["velocity"] if len(message["velocity"]) == len(names) else [0.0] * len(names)
    index = [names.index(name) for name in wanted]
    q, qd = (np.array([part[i] for i in index], dtype=float) for part in (positions, speeds))
    if not (np.isfinite(q).all() and np.isfinite(qd).all()):
        raise RobotError(f"joint_states has values that are not finite: {q.tolist()}, {qd.tolist()}.")
    return q, qd
