"""From actions to joint targets, and from joint angles to the state a policy was trained on.

A robot whose controller takes joint angles is driven either by joint targets (:class:`JointMotion`) or by changes
of the tool's place over a table (:class:`ToolMotion`); which of them, its embodiment says (:func:`motion_for`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from vla.embodiment import Camera, Embodiment, Field
from vla.errors import EmbodimentError
from vla.robots.kinematics import Kinematics, tool_down

#: A tool over a table turns this far from straight ahead at most, rad (the convention of the tabletop suite).
MAX_YAW_RAD = 1.0


class Motion(Protocol):
    """What an action means to the joints; remembers the target it has set."""

    def start(self, q: np.ndarray, opening: float) -> None:
        """The arm stands at ``q`` [n] rad with this opening (0..1): nothing is wanted of it yet."""
        ...

    def target(self, action: np.ndarray) -> tuple[np.ndarray, float]:
        """Joint targets [n] rad and opening 0..1 for one action of the embodiment."""
        ...

    def state(self, q: np.ndarray, opening: float) -> dict[str, np.ndarray]:
        """Every state field, float32, for joints measured at ``q`` and this opening."""
        ...


class JointMotion:
    """Actions are joint angles and a gripper command.

    Args:
        embodiment: its action fields lie in the slots ``arm0.joint_position`` and ``arm0.gripper``, its state
            fields in ``joint_position``, ``gripper_opening`` and ``gripper_command``.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        self._joints = _entries(embodiment, "joint_position")
        self._gripper = _entries(embodiment, "gripper")
        _check(embodiment, ("joint_position", "gripper"), ("joint_position", "gripper_opening", "gripper_command"))
        self._embodiment = embodiment
        self._command = -1.0

    def start(self, q: np.ndarray, opening: float) -> None:
        self._command = 1.0 - 2.0 * min(max(opening, 0.0), 1.0)

    def target(self, action: np.ndarray) -> tuple[np.ndarray, float]:
        self._command = float(action[self._gripper][0])
        return action[self._joints].astype(float), (1.0 - self._command) / 2.0

    def state(self, q: np.ndarray, opening: float) -> dict[str, np.ndarray]:
        known = {"joint_position": q, "gripper_opening": [opening], "gripper_command": [self._command]}
        return _fields(self._embodiment, known)


class ToolMotion:
    """Actions are changes of the commanded tool position and yaw, the tool pointing down, and a gripper command.

    The commanded pose is integrated inside the workspace and solved for from the last joint targets, as the
    tabletop suite does it in simulation.

    Args:
        embodiment: its action fields lie in the slots ``arm0.tcp_position_delta``, ``arm0.tcp_rotation_delta`` (the
            yaw) and ``arm0.gripper``; it has a workspace.
        kinematics: of the arm, in the frame of the workspace.
    """

    def __init__(self, embodiment: Embodiment, kinematics: Kinematics) -> None:
        moves = _entries(embodiment, "tcp_position_delta"), _entries(embodiment, "tcp_rotation_delta")
        _check(
            embodiment,
            ("tcp_position_delta", "tcp_rotation_delta", "gripper"),
            ("tcp_position", "tcp_yaw", "tcp_error", "joint_position", "gripper_opening", "gripper_command"),
        )
        if moves[0].stop - moves[0].start != 3 or moves[1].stop - moves[1].start != 1:
            raise EmbodimentError(f"{embodiment.name!r}: the tool needs three changes of position and one of yaw.")
        if not embodiment.workspace_low:
            raise EmbodimentError(f"{embodiment.name!r} has no workspace: a tool that is moved by changes needs one.")
        self._place, self._turn = moves
        self._gripper = _entries(embodiment, "gripper")
        self._embodiment, self._kinematics = embodiment, kinematics
        self._low, self._high = np.array(embodiment.workspace_low), np.array(embodiment.workspace_high)
        self._position, self._yaw, self._command = np.zeros(3), 0.0, -1.0
        self._q = kinematics.home_q.copy()

    def start(self, q: np.ndarray, opening: float) -> None:
        self._q = np.clip(q, self._kinematics.low, self._kinematics.high)
        position, rotation = self._kinematics.pose(self._q)
        self._position, self._yaw = position, yaw_of(rotation)
        self._command = 1.0 - 2.0 * min(max(opening, 0.0), 1.0)

    def target(self, action: np.ndarray) -> tuple[np.ndarray, float]:
        self._position = np.clip(self._position + action[self._place], self._low, self._high)
        self._yaw = float(np.clip(self._yaw + float(action[self._turn][0]), -MAX_YAW_RAD, MAX_YAW_RAD))
        self._command = float(action[self._gripper][0])
        self._q = self._kinematics.solve(self._q, self._position, tool_down(self._yaw))
        return self._q.copy(), (1.0 - self._command) / 2.0

    def state(self, q: np.ndarray, opening: float) -> dict[str, np.ndarray]:
        position, rotation = self._kinematics.pose(q)
        yaw = yaw_of(rotation)
        known = {
            "tcp_position": position,
            "tcp_yaw": [math.cos(2 * yaw), math.sin(2 * yaw)],
            "tcp_error": self._position - position,
            "joint_position": q,
            "gripper_opening": [min(max(opening, -0.2), 1.2)],
            "gripper_command": [self._command],
        }
        return _fields(self._embodiment, known)


def motion_for(embodiment: Embodiment, kinematics: Kinematics | None = None) -> Motion:
    """What the embodiment's action fields ask for; tool motions need the arm's kinematics.

    Raises:
        EmbodimentError: neither joint targets nor changes of the tool's place, or no kinematics for the latter.
    """
    quantities = {field.slot.partition(".")[2] for field in embodiment.action}
    if "joint_position" in quantities:
        return JointMotion(embodiment)
    if "tcp_position_delta" not in quantities:
        raise EmbodimentError(
            f"Action fields {[f.name for f in embodiment.action]} of {embodiment.name!r}: a joint-driven arm follows "
            "fields in the slots arm0.joint_position or arm0.tcp_position_delta."
        )
    if kinematics is None:
        raise EmbodimentError(
            f"{embodiment.name!r} is moved by its tool: give the kinematics of the arm (vla.robots.kinematics)."
        )
    return ToolMotion(embodiment, kinematics)


def yaw_of(rotation: np.ndarray) -> float:
    """Turn of the tool's closing axis [.., 1] from world y, rad in (-pi/2, pi/2] (a gripper is symmetric)."""
    angle = math.atan2(rotation[1, 1], rotation[0, 1]) - math.pi / 2
    return angle - math.pi * math.ceil(angle / math.pi - 0.5)


def joint_embodiment(
    name: str,
    *,
    low: Sequence[float],
    high: Sequence[float],
    home_q: Sequence[float],
    cameras: Sequence[Camera] = (),
    control_hz: float = 30.0,
) -> Embodiment:
    """An arm that follows joint targets, with a gripper.

    Args:
        name: of the arm.
        low, high: [n] joint limits, rad.
        home_q: [n] angles at rest, rad.
        cameras: what it sees with.
        control_hz: commands per second.
    """
    joints = {
        "name": "joint_position", "size": len(low), "unit": "rad", "frame": "joint", "mode": "absolute",
        "low": tuple(low), "high": tuple(high), "slot": "arm0.joint_position",
    }  # fmt: skip
    closes = {"size": 1, "unit": "1", "frame": "none", "mode": "absolute", "gripper_sign": "positive_closes"}
    opening = Field(
        name="gripper_opening", size=1, unit="1", frame="none", mode="absolute", low=(-0.2,), high=(1.2,),
        slot="arm0.gripper_opening", gripper_sign="positive_opens",
    )  # fmt: skip
    command = Field(**closes, name="gripper_command", low=(-1.0,), high=(1.0,), slot="arm0.gripper_command")
    gripper = Field(**closes, name="gripper", low=(-1.0,), high=(1.0,), slot="arm0.gripper")
    return Embodiment(
        name=name,
        cameras=tuple(cameras),
        state=(Field(**joints), opening, command),
        action=(Field(**joints), gripper),
        control_hz=control_hz,
        home_q=tuple(home_q),
    )


def _entries(embodiment: Embodiment, quantity: str) -> slice:
    for field in embodiment.action:
        if field.slot == f"arm0.{quantity}":
            return embodiment.field_slice(field.name, of="action")
    raise EmbodimentError(
        f"{embodiment.name!r} has no action field in slot 'arm0.{quantity}', only {[f.slot for f in embodiment.action]}."
    )


def _check(embodiment: Embodiment, actions: Sequence[str], states: Sequence[str]) -> None:
    """Refuse fields that this motion cannot follow or fill."""
    for kind, fields, known in (("action", embodiment.action, actions), ("state", embodiment.state, states)):
        for field in fields:
            if field.slot not in [f"arm0.{quantity}" for quantity in known]:
                raise EmbodimentError(
                    f"{kind} field {field.name!r} of {embodiment.name!r} is in slot {field.slot!r}; this arm has "
                    f"{', '.join(f'arm0.{quantity}' for quantity in known)}."
                )


def _fields(embodiment: Embodiment, known: Mapping[str, np.ndarray | list[float]]) -> dict[str, np.ndarray]:
    return {
        field.name: np.array(known[field.slot.partition(".")[2]], np.float32) for field in embodiment.state
    }
