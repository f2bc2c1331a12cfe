"""What lerobot's robot client says and wants: protobuf around pickles, flat keys, degrees.

The four messages of ``transport.AsyncInference`` have two fields between them, so they are read here and need
no protobuf. A robot of lerobot's is a flat map: a number an entry of the state, a picture a camera, ``task``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vla.embodiment import Embodiment
from vla.errors import ConfigError, IncompatibleError, ObservationError, WireError
from vla.robots.actions import JOINT_FIELDS

Units = Literal["own", "degrees"]

_STATE, _IMAGES = "observation.state", "observation.images."
#: State fields of an arm that lerobot's joint names and units can stand for (``vla.robots.lerobot``).
_JOINT_STATE = ("joint_position", "gripper_opening")


def fields_of(message: bytes) -> dict[int, int | bytes]:
    """Field numbers and values of a protobuf message of numbers and bytes; the last of each counts.

    Raises:
        WireError: it is damaged, or holds a field of another kind.
    """
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _varint(message, at)
        if tag & 7 == 2:
            if at + value > len(message):
                raise WireError(f"A protobuf message that ends {at + value - len(message)} bytes too early.")
            found[tag >> 3], at = message[at : at + value], at + value
        elif tag & 7 == 0:
            found[tag >> 3] = value
        else:
            raise WireError(f"A protobuf message with a field of wire type {tag & 7}; expected 0 or 2.")
    return found


def bytes_field(number: int, data: bytes) -> bytes:
    """A protobuf message of one field."""
    size, left = bytearray(), len(data)
    while left > 127:
        size.append(left & 127 | 128)
        left >>= 7
    return bytes([number << 3 | 2]) + bytes(size) + bytes([left]) + data


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        value |= (message[at] & 127) << shift
        at += 1
        if message[at - 1] < 128:
            return value, at
    raise WireError("A protobuf message with a number that does not end.")


@dataclass(frozen=True, kw_only=True)
class Entries:
    """Which numbers of a flat map are the state of an arm, and in which units both sides count.

    Args:
        embodiment: whose.
        names: of the entries, in the order of its state.
        units: ``own``: the embodiment's; ``degrees``: joints in degrees, the gripper 0 closed .. 100 open.
    """

    embodiment: Embodiment
    names: tuple[str, ...]
    units: Units = "own"

    @classmethod
    def declared(cls, embodiment: Embodiment, features: object, roles: Any, units: str) -> Entries:
        """What a client's features promise, if it is what the arm has.

        Raises:
            ConfigError, IncompatibleError: units that there are none of, or other entries or cameras.
        """
        if units not in ("own", "degrees"):
            raise ConfigError(f"units={units[:40]!r}; known are 'own' (as the policy counts) and 'degrees'.")
        names, cameras = _listed(features)
        wanted = sorted(camera.name for camera in embodiment.cameras if camera.role in roles)
        reasons = [] if cameras == wanted else [f"cameras {wanted}, here {cameras}"]
        if units == "own":
            entries = [
                field.name if field.size == 1 else f"{field.name}.{i}"
                for field in embodiment.state
                for i in range(field.size)
            ]
            if list(names) != entries:
                reasons.append(f"state entries {entries}, here {list(names)}")
        else:
            reasons += _joint_reasons(embodiment, names)
        if reasons:
            raise IncompatibleError("policy", "this robot of lerobot's", reasons)
        return cls(embodiment=embodiment, names=names, units=units)  # type: ignore[arg-type]

    def message(self, seen: Mapping[str, Any]) -> dict[str, Any]:
        """A flat map with the keys that vla-eval's messages have (``KeyMap.vla_eval``).

        Raises:
            ObservationError: an entry is missing or no finite number.
        """
        numbers = [_number(name, seen.get(name)) for name in self.names]
        rest = {key: value for key, value in seen.items() if key not in self.names}
        state = np.array(numbers, np.float32)
        if self.units == "degrees":
            state = np.append(np.deg2rad(numbers[:-1]), numbers[-1] / 100).astype(np.float32)
        pictures = {f"images/{key}": value for key, value in rest.items() if key != "task"}
        return {**pictures, "state": state, "task_description": rest.get("task")}

    def actions(self, rows: np.ndarray) -> np.ndarray:
        """Actions float32 [n, action_dim] as the robot counts."""
        if self.units == "own":
            return rows
        gripper = 50.0 * (1.0 - rows[:, -1:])  # +1 closes
        return np.hstack([np.rad2deg(rows[:, :-1]), gripper]).astype(np.float32)


def _listed(features: object) -> tuple[tuple[str, ...], list[str]]:
    """Names of the state's entries, and of the cameras."""
    if not isinstance(features, dict):
        raise ConfigError(f"lerobot_features is a {type(features).__name__}; expected a map.")
    state = features.get(_STATE)
    names = state.get("names") if isinstance(state, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"lerobot_features without the names of {_STATE!r}.")
    return tuple(names), sorted(key.removeprefix(_IMAGES) for key in features if key.startswith(_IMAGES))


def _joint_reasons(embodiment: Embodiment, names: tuple[str, ...]) -> list[str]:
    state = tuple(field.name for field in embodiment.state)
    if state != _JOINT_STATE or tuple(field.name for field in embodiment.action) != JOINT_FIELDS:
        return [f"units=degrees is for state {_JOINT_STATE} and action {JOINT_FIELDS}, its state is {state}"]
    number = embodiment.state[0].size
    if (
        len(names) != number + 1
        or not all(name.endswith(".pos") for name in names)
        or names[-1] != "gripper.pos"
    ):
        return [f"{number} joints NAME.pos from base to wrist and gripper.pos, here {list(names)}"]
    return []


def _number(name: str, value: Any) -> float:
    number = value.item() if isinstance(value, np.generic) else value
    if type(number) not in (int, float) or not abs(number) < 1e9:
        raise ObservationError(f"{name!r} is {type(value).__name__}; expected a finite number.")
    return float(number)
