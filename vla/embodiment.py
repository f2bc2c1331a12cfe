"""What an arm is, as data: cameras, state and action fields with unit, frame, mode, range and sign.

Every convention that elsewhere lives in somebody's head (rotation format, gripper sign, delta or
absolute, control rate, camera role) is a field here, so that it can be compared and enforced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vla import spaces
from vla.errors import ActionError, EmbodimentError, ObservationError, UnknownNameError

Mode = Literal["absolute", "delta", "velocity"]
RotationFormat = Literal["none", "yaw", "cos_sin_2yaw", "rotvec", "quat_wxyz", "matrix_6d", "euler_xyz"]
GripperSign = Literal["none", "positive_closes", "positive_opens"]
#: Optional keys of a field.
MOTION_LIMITS = ("max_velocity", "max_acceleration", "max_jerk")
CameraRole = Literal["front", "wrist", "side", "top", "wrist_left", "wrist_right"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One named part of the state or action vector.

    Args:
        name: unique within its list, e.g. ``tcp_position``.
        size: number of entries.
        unit: ``m``, ``rad``, ``1`` (dimensionless), ``m/step``, ``rad/step``, ``rad/s``.
        frame: ``world``, ``base``, ``tool``, ``joint`` or ``none``.
        mode: absolute value, change per control step, or velocity.
        low, high: range of each entry, ``size`` numbers each, in ``unit``.
        rotation_format: how rotations are written, ``none`` where there is none.
        gripper_sign: what a positive number does to the gripper.
        slot: name of the place in the padded vector (``vla.spaces``).
        slot_start: first entry inside that slot.
        max_velocity, max_acceleration, max_jerk: largest of each entry, in ``unit`` per s, s^2 and s^3, of an
            absolute action field that a jerk-limited generator may move (``vla.control.motion``); empty:
            not declared. The first two belong together.
    """

    name: str
    size: int
    unit: str
    frame: str
    mode: Mode
    low: tuple[float, ...]
    high: tuple[float, ...]
    slot: str
    slot_start: int = 0
    rotation_format: RotationFormat = "none"
    gripper_sign: GripperSign = "none"
    max_velocity: tuple[float, ...] = ()
    max_acceleration: tuple[float, ...] = ()
    max_jerk: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", tuple(float(x) for x in self.low))
        object.__setattr__(self, "high", tuple(float(x) for x in self.high))
        if len(self.low) != self.size or len(self.high) != self.size:
            raise EmbodimentError(
                f"Field {self.name!r}: size {self.size}, but {len(self.low)} lows and {len(self.high)} highs."
            )
        if not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise EmbodimentError(f"Field {self.name!r}: low must be below high: {self.low}, {self.high}.")
        for value, allowed, what in (
            (self.mode, Mode, "mode"),
            (self.rotation_format, RotationFormat, "rotation format"),
            (self.gripper_sign, GripperSign, "gripper sign"),
        ):
            if value not in get_args(allowed):
                raise UnknownNameError(what, str(value), get_args(allowed))
        self._check_motion()

    def _check_motion(self) -> None:
        for name in MOTION_LIMITS:
            values = tuple(float(x) for x in getattr(self, name))
            object.__setattr__(self, name, values)
            if values and (len(values) != self.size or not all(0 < x < np.inf for x in values)):
                raise EmbodimentError(
                    f"Field {self.name!r}: {name} is {values}; expected {self.size} positive finite numbers."
                )
        if bool(self.max_velocity) != bool(self.max_acceleration) or (
            self.max_jerk and not self.max_velocity
        ):
            raise EmbodimentError(
                f"Field {self.name!r}: declare max_velocity and max_acceleration together, and max_jerk with "
                "them or not at all."
            )
        if self.max_velocity and (self.mode != "absolute" or self.rotation_format not in ("none", "yaw")):
            raise EmbodimentError(
                f"Field {self.name!r}: velocity, acceleration and jerk can be limited where each entry is an "
                f"absolute position or angle; this one is {self.mode} with rotation {self.rotation_format!r}."
            )


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A named camera with a role that survives renaming; ``height`` and ``width`` in pixels."""

    name: str
    role: CameraRole
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.role not in get_args(CameraRole):
            raise UnknownNameError("camera role", self.role, get_args(CameraRole))


@dataclass(frozen=True, kw_only=True)
class Embodiment:
    """An arm with its cameras, fields, rate and home pose.

    Args:
        name: e.g. ``panda``.
        cameras: what it sees with.
        state: fields of ``Observation.state``.
        action: fields of the action vector, in order.
        control_hz: control steps per second.
        home_q: joint angles at rest, rad.
        workspace_low, workspace_high: box the tool centre must stay in, m, world frame (empty: none).
    """

    name: str
    cameras: tuple[Camera, ...]
    state: tuple[Field, ...]
    action: tuple[Field, ...]
    control_hz: float
    home_q: tuple[float, ...] = ()
    workspace_low: tuple[float, ...] = ()
    workspace_high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for kind, names in (
            ("camera", [c.name for c in self.cameras]),
            ("state field", [f.name for f in self.state]),
            ("action field", [f.name for f in self.action]),
        ):
            if len(set(names)) != len(names):
                raise EmbodimentError(f"Embodiment {self.name!r}: repeated {kind} in {names}.")
        if not self.action:
            raise EmbodimentError(f"Embodiment {self.name!r} has no action fields.")
        if len(self.workspace_low) != len(self.workspace_high) or len(self.workspace_low) not in (0, 3):
            raise EmbodimentError(f"Embodiment {self.name!r}: the workspace needs two corners of 3 numbers.")
        if self.control_hz <= 0:
            raise EmbodimentError(f"Embodiment {self.name!r}: control_hz is {self.control_hz}.")
        _ = self.state_index, self.action_index  # raises on a wrong slot

    @property
    def state_dim(self) -> int:
        return sum(f.size for f in self.state)

    @property
    def action_dim(self) -> int:
        return sum(f.size for f in self.action)

    @property
    def state_index(self) -> np.ndarray:
        """int64 [state_dim]: place of each state entry in the padded vector."""
        return spaces.slot_index(spaces.STATE_SLOTS, [(f.slot, f.slot_start, f.size) for f in self.state])

    @property
    def action_index(self) -> np.ndarray:
        """int64 [action_dim]: place of each action entry in the padded vector."""
        return spaces.slot_index(spaces.ACTION_SLOTS, [(f.slot, f.slot_start, f.size) for f in self.action])

    @property
    def action_low(self) -> np.ndarray:
        return np.array([x for f in self.action for x in f.low], np.float32)

    @property
    def action_high(self) -> np.ndarray:
        return np.array([x for f in self.action for x in f.high], np.float32)

    def camera(self, role: str) -> Camera:
        """The camera of that role."""
        for camera in self.cameras:
            if camera.role == role:
                return camera
        raise UnknownNameError(f"camera role of {self.name!r}", role, [c.role for c in self.cameras])

    def field_slice(self, name: str, *, of: Literal["state", "action"]) -> slice:
        """Where a field lies in the concatenated (unpadded) vector."""
        start = 0
        members = self.state if of == "state" else self.action
        for member in members:
            if member.name == name:
                return slice(start, start + member.size)
            start += member.size
        raise UnknownNameError(f"{of} field of {self.name!r}", name, [f.name for f in members])

    def pack_state(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """State dictionary -> float32 [state_dim]; unknown, missing, misshapen or NaN entries raise."""
        unknown = set(state) - {f.name for f in self.state}
        if unknown:
            raise UnknownNameError(
                f"state field of {self.name!r}", sorted(unknown)[0], [f.name for f in self.state]
            )
        parts = []
        for member in self.state:
            if member.name not in state:
                raise ObservationError(f"State of {self.name!r} lacks {member.name!r}; got {sorted(state)}.")
            value = np.asarray(state[member.name], np.float32)
            if value.shape != (member.size,):
                raise ObservationError(
                    f"State {member.name!r} of {self.name!r}: shape {value.shape}, expected ({member.size},)."
                )
            if not np.isfinite(value).all():
                raise ObservationError(f"State {member.name!r} of {self.name!r} is not finite: {value}.")
            parts.append(value)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def unpack_state(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Inverse of :meth:`pack_state`."""
        return {f.name: np.asarray(vector[self.field_slice(f.name, of="state")]) for f in self.state}

    def check_action(self, action: np.ndarray) -> np.ndarray:
        """float32 [..., action_dim], finite; raises :class:`ActionError` otherwise. Does not clip."""
        value = np.asarray(action, np.float32)
        if value.shape[-1:] != (self.action_dim,):
            raise ActionError(
                f"Action for {self.name!r}: shape {value.shape}, expected (..., {self.action_dim})."
            )
        if not np.isfinite(value).all():
            raise ActionError(f"Action for {self.name!r} is not finite: {value}.")
        return value

    def to_json(self) -> dict[str, Any]:
        """Every key; limits of motion where they are declared."""
        data = asdict(self)
        for field in (*data["state"], *data["action"]):
            for name in MOTION_LIMITS:
                if not field[name]:
                    del field[name]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Embodiment:
        """Strict inverse of :meth:`to_json`: an unknown or missing key raises."""
        return cls(
            **{
                **_strict(cls, data),
                "cameras": tuple(Camera(**_strict(Camera, c)) for c in data["cameras"]),
                "state": tuple(Field(**_field(f)) for f in data["state"]),
                "action": tuple(Field(**_field(f)) for f in data["action"]),
                **{key: tuple(data.get(key, ())) for key in ("home_q", "workspace_low", "workspace_high")},
            }
        )

    @classmethod
    def load(cls, path: str | Path) -> Embodiment:
        return cls.from_json(json.loads(Path(path).read_text()))


def _strict(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    known = [f.name for f in fields(cls)]
    for key in data:
        if key not in known:
            raise UnknownNameError(f"{cls.__name__} key", key, known)
    return dict(data)


def _field(data: Mapping[str, Any]) -> dict[str, Any]:
    declared = [name for name in MOTION_LIMITS if name in data]
    return {**_strict(Field, data), **{name: tuple(data[name]) for name in ("low", "high", *declared)}}


@dataclass(frozen=True)
class Compatibility:
    """Answer of :func:`compatible`; truthy when there is no reason against."""

    reasons: tuple[str, ...]

    def __bool__(self) -> bool:
        return not self.reasons


def compatible(a: Embodiment, b: Embodiment) -> Compatibility:
    """Whether what was learned on ``a`` may drive ``b``, with every reason against it.

    Names of the embodiments may differ; conventions (fields, units, frames, modes, rotation formats,
    gripper signs, ranges, rate, camera roles) may not.
    """
    reasons: list[str] = []
    if a.control_hz != b.control_hz:
        reasons.append(
            f"control rate {a.control_hz:g} Hz, here {b.control_hz:g} Hz; run it at {a.control_hz:g} Hz, "
            "or train at its rate (a recipe's data.control_hz; None keeps that of the data)"
        )
    roles_a, roles_b = {c.role for c in a.cameras}, {c.role for c in b.cameras}
    for role in sorted(roles_a - roles_b):
        reasons.append(f"needs a {role!r} camera, here only {sorted(roles_b)}")
    for kind, left, right in (("state", a.state, b.state), ("action", a.action, b.action)):
        there = {f.name: f for f in right}
        for member in left:
            other = there.pop(member.name, None)
            if other is None:
                reasons.append(f"{kind} field {member.name!r} is missing here")
                continue
            for key in (
                "size",
                "unit",
                "frame",
                "mode",
                "rotation_format",
                "gripper_sign",
                "slot",
                "slot_start",
            ):
                if getattr(member, key) != getattr(other, key):
                    reasons.append(
                        f"{kind} field {member.name!r}: {key} {getattr(member, key)!r}, "
                        f"here {getattr(other, key)!r}"
                    )
            if kind == "action" and (member.low, member.high) != (other.low, other.high):
                reasons.append(
                    f"action field {member.name!r}: range {member.low}..{member.high}, "
                    f"here {other.low}..{other.high}"
                )
        reasons.extend(f"{kind} field {name!r} is unknown to the policy" for name in there)
    if [f.name for f in a.action] != [f.name for f in b.action]:
        reasons.append(f"action order {[f.name for f in a.action]}, here {[f.name for f in b.action]}")
    return Compatibility(tuple(reasons))
