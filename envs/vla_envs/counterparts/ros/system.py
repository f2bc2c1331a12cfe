"""What ros2_control is to a client: a joint_state_broadcaster, a joint_trajectory_controller, a gripper.

After ros2_control's documentation (Jazzy): a trajectory replaces the one under way, begins at the setpoint,
is followed linearly where it names no speeds and by cubics where it does, and its last point is held. One
that does not name the arm's joints, or has no points, is refused with a line in the log alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla_envs.counterparts.table import TabletopPlant

JOINTS = (
    "shoulder_pan_joint",
    "shoulder_lift_joint",
    "elbow_joint",
    "wrist_1_joint",
    "wrist_2_joint",
    "wrist_3_joint",
)
GRIPPER = "finger_joint"
CLOSED = 0.8  # rad, of a 2F-85's finger joint
TRAJECTORY_TOPIC = "/joint_trajectory_controller/joint_trajectory"
GRIPPER_TOPIC = "/gripper_controller/commands"
JOINT_STATES = "/joint_states"
STOP, RECOVER = "/arm/stop", "/arm/recover"
SUBSCRIBERS = "/rosapi/subscribers"
_EVENTS = 200


@dataclass
class Motion:
    """From ``start`` [n] to ``end`` [n] rad in ``seconds``; ``smooth``: from rest to rest by a cubic."""

    start: np.ndarray
    end: np.ndarray
    began_s: float
    seconds: float
    smooth: bool

    def at(self, now_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Setpoint [n] rad and its speed [n] rad/s."""
        share = min(max((now_s - self.began_s) / self.seconds, 0.0), 1.0)
        way = self.end - self.start
        if share >= 1:
            return self.end, np.zeros_like(way)
        if not self.smooth:
            return self.start + way * share, way / self.seconds
        done, speed = share * share * (3 - 2 * share), 6 * share * (1 - share) / self.seconds
        return self.start + way * done, way * speed


@dataclass
class Faults:
    """Those in force."""

    inactive: bool = False  # the controller ignores trajectories
    silent: bool = False  # no joint states
    missing_joint: bool = False  # joint states lack one
    nan_joint: bool = False
    blocked: bool = False  # the arm does not move, whatever the setpoint
    refuse_recovery: bool = False


@dataclass
class RosSystem:
    """Controllers over a plant; ``cycle`` advances both."""

    plant: TabletopPlant
    faults: Faults = field(default_factory=Faults)
    events: list[tuple[float, str]] = field(default_factory=list)
    time_s: float = 0.0

    def __post_init__(self) -> None:
        self._hold()

    def _hold(self) -> None:
        q = self.plant.q
        self._motion, self._grip, self._stopped = Motion(q, q, self.time_s, 1.0, False), 0.0, False

    def set_scene(self, *given: Any) -> dict[str, Any]:
        """See :meth:`TabletopPlant.set_scene`; the controllers hold where the arm stands then."""
        told = self.plant.set_scene(*given)
        self._hold()
        return told

    def cycle(self) -> None:
        """One cycle of ``plant.period_s``."""
        self.time_s += self.plant.period_s
        setpoint, speed = self.setpoint()
        self.plant.step(setpoint, speed, self._grip, 1.0)

    def setpoint(self) -> tuple[np.ndarray, np.ndarray]:
        """Angles [n] rad and speeds [n] rad/s that the controller asks of the arm now."""
        return self._motion.at(self.time_s)

    def receive(self, topic: str, message: Mapping[str, Any]) -> None:
        """What a client publishes."""
        if topic == TRAJECTORY_TOPIC:
            self._follow(message)
        elif topic == GRIPPER_TOPIC and len(message["data"]) == 1:
            self._grip = float(np.clip(message["data"][0] / CLOSED, 0.0, 1.0))
        else:
            self.say(f"nobody takes {topic}")

    def call(self, service: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer of a service; None: there is none of the name."""
        if service == SUBSCRIBERS:
            there = arguments["topic"] == GRIPPER_TOPIC or (
                arguments["topic"] == TRAJECTORY_TOPIC and not self.faults.inactive
            )
            return {"subscribers": ["/controller_manager"] * there}
        if service == STOP:
            self._stopped = True
            self.say("stopped by a service")
            return {"success": True, "message": "stopped"}
        if service == RECOVER:
            if self.faults.refuse_recovery:
                return {"success": False, "message": "the emergency stop is pressed"}
            self._stopped = False
            return {"success": True, "message": "ready"}
        return None

    def joint_state(self) -> dict[str, Any] | None:
        """A ``JointState``, the gripper first; None while the broadcaster is silent."""
        if self.faults.silent:
            return None
        names = [GRIPPER, *JOINTS]
        positions = [CLOSED * self.plant.gripper_share, *self.plant.q.tolist()]
        speeds = [0.0, *self.plant.qd.tolist()]
        if self.faults.missing_joint:
            names, positions, speeds = names[:-1], positions[:-1], speeds[:-1]
        if self.faults.nan_joint:
            speeds[2] = float("nan")
        seconds = int(self.time_s)
        stamp = {"sec": seconds, "nanosec": int((self.time_s - seconds) * 1e9)}
        return {
            "header": {"stamp": stamp, "frame_id": ""},
            "name": names,
            "position": positions,
            "velocity": speeds,
            "effort": [],
        }

    def protective_stop(self) -> None:
        """The arm stops by itself and takes no trajectory until it is recovered."""
        self._motion = Motion(self.plant.q, self.plant.q, self.time_s, 1.0, False)
        self._stopped = True
        self.say("protective stop")

    def say(self, text: str) -> None:
        self.events.append((self.time_s, text))
        del self.events[:-_EVENTS]

    def _follow(self, message: Mapping[str, Any]) -> None:
        names, points = list(message["joint_names"]), message["points"]
        if self.faults.inactive or self._stopped:
            self.say("a trajectory came while the controller is not active")
            return
        if sorted(names) != sorted(JOINTS) or not points:
            self.say(f"refused a trajectory of {len(points)} points for {names}")
            return
        last = points[-1]
        time_from_start = last["time_from_start"]
        seconds = time_from_start["sec"] + 1e-9 * time_from_start["nanosec"]
        end = np.array([last["positions"][names.index(name)] for name in JOINTS])
        if len(last["positions"]) != len(names) or not np.isfinite(end).all() or seconds <= 0:
            self.say("refused a trajectory with a wrong point")
            return
        if self.faults.blocked:
            return
        start, _ = self.setpoint()
        self._motion = Motion(start, end, self.time_s, seconds, bool(len(last["velocities"])))
