"""What an action means to an arm that is driven by joint targets: tool deltas or joint angles, and a gripper.

Both spaces keep the last *target*: the next action goes on from there, never from where the arm was measured,
so that nothing jumps and no droop is integrated. Which one an embodiment has say its action fields.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from vla.embodiment import Camera, Embodiment, Field
from vla.errors import EmbodimentError
from vla.robots.kinematics import Kinematics, tool_down

#: Action fields of the tabletop convention: the tool points down and turns about the vertical.
TOOL_FIELDS = ("tcp_position_delta", "tcp_yaw_delta", "gripper")
JOINT_FIELDS = ("joint_position", "gripper")
_MAX_YAW_RAD = 1.0


class ActionSpace(Protocol):
    """Turns actions into joint targets, and what was measured into the embodiment's state."""

    def reset(self, q: np.ndarray, gripper: float) -> None:
        """The arm is at rest at joint targets [n] rad with the gripper commanded to -1 open .. +1 closed."""
        ...

    def target(self, action: np.ndarray) -> tuple[np.ndarray, float]:
        """Joint targets [n] rad and gripper command, -1 open .. +1 closed, of a checked action."""
        ...

    def predict(self, action: np.ndarray) -> np.ndarray:
        """The joint targets [n] rad that :meth:`target` would give now; nothing changes."""
        ...

    def state(self, q: np.ndarray, opening: float) -> dict[str, np.ndarray]:
        """The state fields for measured joint angles [n] rad and gripper opening (0 closed .. 1 open)."""
        ...


def action_space(embodiment: Embodiment, kinematics: Kinematics) -> ActionSpace:
    """The one that the embodiment's action fields ask for.

    Raises:
        EmbodimentError: its fields are neither of the known ones.
    """
    names = tuple(field.name for field in embodiment.action)
    if names == TOOL_FIELDS:
        return ToolDeltas(embodiment, kinematics)
    if names == JOINT_FIELDS:
        return JointTargets(embodiment, kinematics)
    raise EmbodimentError(
        f"Embodiment {embodiment.name!r} has action fields {names}; a joint-driven arm takes {TOOL_FIELDS} "
        f"(tool deltas) or {JOINT_FIELDS} (joint targets)."
    )


class ToolDeltas:
    """Steps of the tool in the world frame, as the tabletop suite defines them.

    The commanded pose is integrated inside the workspace and solved for joint targets near the last ones.
    """

    def __init__(self, embodiment: Embodiment, kinematics: Kinematics) -> None:
        self._kinematics = kinematics
        self._low, self._high = np.array(embodiment.workspace_low), np.array(embodiment.workspace_high)
        if not len(self._low):
            raise EmbodimentError(f"Embodiment {embodiment.name!r} moves a tool: it needs a workspace box.")
        self._q = kinematics.home_q.copy()
        self._position, self._yaw, self._gripper = np.zeros(3), 0.0, -1.0

    def reset(self, q: np.ndarray, gripper: float) -> None:
        self._q, self._gripper = np.asarray(q, float), gripper
        self._position, rotation = self._kinematics.pose(self._q)
        self._yaw = _yaw(rotation)

    def target(self, action: np.ndarray) -> tuple[np.ndarray, float]:
        self._position, self._yaw = self._aim(action)
        self._gripper = float(action[4])
        self._q = self._kinematics.solve(self._q, self._position, tool_down(self._yaw))
        return self._q, self._gripper

    def predict(self, action: np.ndarray) -> np.ndarray:
        position, yaw = self._aim(action)
        return self._kinematics.solve(self._q, position, tool_down(yaw))

    def _aim(self, action: np.ndarray) -> tuple[np.ndarray, float]:
        """Position [3] and yaw of the tool after a step."""
        yaw = float(np.clip(self._yaw + action[3], -_MAX_YAW_RAD, _MAX_YAW_RAD))
        return _towards(self._position, action[:3], self._low, self._high), yaw

    def state(self, q: np.ndarray, opening: float) -> dict[str, np.ndarray]:
        position, rotation = self._kinematics.pose(q)
        yaw = _yaw(rotation)
        values = {
            "tcp_position": position,
            "tcp_yaw": [math.cos(2 * yaw), math.sin(2 * yaw)],
            "tcp_error": self._position - position,
            "joint_position": q,
            "gripper_opening": [float(np.clip(opening, -0.2, 1.2))],
            "gripper_command": [self._gripper],
        }
        return {name: np.array(value, np.float32) for name, value in values.items()}


class JointTargets:
    """Absolute joint angles, kept inside the model's limits."""

    def __init__(self, embodiment: Embodiment, kinematics: Kinematics) -> None:
        n = len(kinematics.joint_names)
        if embodiment.action[0].size != n:
            raise EmbodimentError(
                f"Embodiment {embodiment.name!r} has {embodiment.action[0].size} joints, the arm model {n}."
            )
        self._kinematics, self._n, self._gripper = kinematics, n, -1.0

    def reset(self, q: np.ndarray, gripper: float) -> None:
        self._gripper = gripper

    def target(self, action: np.ndarray) -> tuple[np.ndarray, float]:
        self._gripper = float(action[self._n])
        return self.predict(action), self._gripper

    def predict(self, action: np.ndarray) -> np.ndarray:
        q = np.asarray(action[: self._n], float)
        return np.clip(q, self._kinematics.low, self._kinematics.high)

    def state(self, q: np.ndarray, opening: float) -> dict[str, np.ndarray]:
        position, _ = self._kinematics.pose(q)
        values = {
            "joint_position": q,
            "tcp_position": position,
            "gripper_opening": [float(np.clip(opening, -0.2, 1.2))],
            "gripper_command": [self._gripper],
        }
        return {name: np.array(value, np.float32) for name, value in values.items()}


def joint_embodiment(
    name: str,
    low: np.ndarray,
    high: np.ndarray,
    home_q: np.ndarray,
    *,
    cameras: tuple[Camera, ...] = (),
    control_hz: float = 10.0,
) -> Embodiment:
    """An arm commanded by absolute joint angles [n] rad between ``low`` and ``high``, and a gripper."""

    def field(name: str, size: int, low: object, high: object, unit: str = "rad", **more: str) -> Field:
        limits: Mapping[str, tuple[float, ...]] = {
            "low": tuple(np.broadcast_to(np.asarray(low, float), size)),
            "high": tuple(np.broadcast_to(np.asarray(high, float), size)),
        }
        options = {"frame": "none", "mode": "absolute", "slot": f"arm0.{name}", **more}
        return Field(name=name, size=size, unit=unit, **limits, **options)  # type: ignore[arg-type]

    n, slack = len(low), 0.1
    return Embodiment(
        name=name,
        cameras=cameras,
        state=(
            field("joint_position", n, low - slack, high + slack, frame="joint"),
            field("tcp_position", 3, -1.5, 1.5, "m", frame="world"),
            field("gripper_opening", 1, -0.2, 1.2, "1", gripper_sign="positive_opens"),
            field("gripper_command", 1, -1.0, 1.0, "1", gripper_sign="positive_closes"),
        ),
        action=(
            field("joint_position", n, low, high, frame="joint"),
            field("gripper", 1, -1.0, 1.0, "1", gripper_sign="positive_closes"),
        ),
        control_hz=control_hz,
        home_q=tuple(float(x) for x in home_q),
    )


def _yaw(rotation: np.ndarray) -> float:
    """Yaw of the closing axis relative to world y, in (-pi/2, pi/2]."""
    angle = math.atan2(rotation[1, 1], rotation[0, 1]) - math.pi / 2
    return angle - math.pi * math.ceil(angle / math.pi - 0.5)


def _towards(position: np.ndarray, step: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """A step that stays in the box; from outside of it, nothing leads farther out, and nothing jumps in."""
    return np.clip(position + step, np.minimum(low, position), np.maximum(high, position))
