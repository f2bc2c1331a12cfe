"""Calibration of a servo arm: what joint angle a servo's counts mean, kept in a JSON file and in the servos.

    angle = direction * (count - zero_count) * 2 pi / 4096

A servo's own memory holds the homing offset (so that no joint passes the end of the encoder) and the limits;
the file holds these too, so that a driver can tell an arm it was not made for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.errors import RobotError, UnknownNameError
from vla.files import read_json, write_json
from vla.robots.servo_bus import COUNTS, RAD_PER_COUNT, ServoMemory

VERSION = 1


class CalibrationError(RobotError):
    """A calibration that is missing, contradicts itself or belongs to another arm."""


@dataclass(frozen=True, kw_only=True)
class ServoCalibration:
    """One servo in one joint.

    Args:
        name: of the joint.
        servo: id on the bus.
        model: e.g. ``sts3215``.
        direction: +1 where counts grow with the angle (gripper: as it opens), else -1.
        zero_count: count at which the angle is 0 (grippers have none: they go from closed to open).
        homing_offset: counts, as the servo's memory holds it.
        min_count, max_count: range of the joint, as the servo's memory holds it.
    """

    name: str
    servo: int
    model: str
    direction: int
    zero_count: int
    homing_offset: int
    min_count: int
    max_count: int

    def __post_init__(self) -> None:
        if self.direction not in (-1, 1):
            raise CalibrationError(f"Joint {self.name!r}: direction is {self.direction}; expected 1 or -1.")
        if not 0 <= self.min_count < self.max_count < COUNTS:
            raise CalibrationError(
                f"Joint {self.name!r}: range {self.min_count}..{self.max_count}; expected min < max within "
                f"0..{COUNTS - 1}. Calibrate again, moving the joint through its whole range."
            )

    @property
    def memory(self) -> ServoMemory:
        """What the servo itself has to hold."""
        return ServoMemory(
            homing_offset=self.homing_offset, min_count=self.min_count, max_count=self.max_count
        )

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest angle, rad."""
        ends = self.angle(self.min_count), self.angle(self.max_count)
        return min(ends), max(ends)

    def angle(self, count: float) -> float:
        """Joint angle in rad."""
        return self.direction * (count - self.zero_count) * RAD_PER_COUNT

    def count(self, angle: float) -> int:
        """Nearest count inside the range for a joint angle in rad."""
        wanted = round(self.zero_count + self.direction * angle / RAD_PER_COUNT)
        return min(max(wanted, self.min_count), self.max_count)

    def opening(self, count: float) -> float:
        """Of a gripper: 0 closed .. 1 open."""
        share = (count - self.min_count) / (self.max_count - self.min_count)
        return share if self.direction > 0 else 1.0 - share

    def opening_count(self, opening: float) -> int:
        """Inverse of :meth:`opening`, inside the range."""
        share = min(max(opening, 0.0), 1.0)
        share = share if self.direction > 0 else 1.0 - share
        return round(self.min_count + share * (self.max_count - self.min_count))


@dataclass(frozen=True, kw_only=True)
class ArmCalibration:
    """All servos of one arm.

    Args:
        arm: kind of arm, e.g. ``so101``.
        joints: from base to wrist.
        gripper: None where there is none.
    """

    arm: str
    joints: tuple[ServoCalibration, ...]
    gripper: ServoCalibration | None

    def __post_init__(self) -> None:
        for what, values in (("id", [s.servo for s in self]), ("name", [s.name for s in self])):
            if len(set(values)) != len(values):
                raise CalibrationError(f"Two servos of arm {self.arm!r} have one {what}: {values}.")

    def __iter__(self) -> Iterator[ServoCalibration]:
        """Joints, then the gripper."""
        return iter((*self.joints, *(() if self.gripper is None else (self.gripper,))))

    @property
    def servos(self) -> tuple[int, ...]:
        """Ids, joints first."""
        return tuple(servo.servo for servo in self)

    @property
    def low(self) -> np.ndarray:
        """[n] lowest joint angles, rad."""
        return np.array([joint.limits[0] for joint in self.joints])

    @property
    def high(self) -> np.ndarray:
        """[n] highest joint angles, rad."""
        return np.array([joint.limits[1] for joint in self.joints])

    def angles(self, counts: Mapping[int, int]) -> np.ndarray:
        """[n] joint angles in rad; ``counts`` by id."""
        return np.array([joint.angle(counts[joint.servo]) for joint in self.joints])

    def opening(self, counts: Mapping[int, int]) -> float:
        """0 closed .. 1 open; an arm without a gripper is open."""
        return 1.0 if self.gripper is None else self.gripper.opening(counts[self.gripper.servo])

    def counts(self, angles: Sequence[float] | np.ndarray, opening: float) -> dict[int, int]:
        """Counts by id, each inside its range, for joint angles [n] in rad and an opening 0 .. 1."""
        found = {
            joint.servo: joint.count(float(angle)) for joint, angle in zip(self.joints, angles, strict=True)
        }
        if self.gripper is not None:
            found[self.gripper.servo] = self.gripper.opening_count(opening)
        return found

    def contradictions(self, memories: Mapping[int, ServoMemory]) -> list[str]:
        """Where the servos' own memories say something else, one line each."""
        return [
            f"servo {servo.servo} ({servo.name}): {key} is {getattr(memories[servo.servo], key)} in the "
            f"servo, {getattr(servo.memory, key)} in the file"
            for servo in self
            for key in ("homing_offset", "min_count", "max_count", "position_mode")
            if getattr(memories[servo.servo], key) != getattr(servo.memory, key)
        ]

    def to_json(self) -> dict[str, Any]:
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArmCalibration:
        """Strict inverse of :meth:`to_json`.

        Raises:
            CalibrationError: another version, missing keys or impossible numbers.
            UnknownNameError: a key that does not belong there.
        """
        if data.get("version") != VERSION:
            raise CalibrationError(
                f"Calibration of version {data.get('version')!r}; expected {VERSION}. Calibrate again."
            )
        _check_keys("calibration", data, ("version", "arm", "joints", "gripper"))
        gripper = data["gripper"]
        return cls(
            arm=str(data["arm"]),
            joints=tuple(_servo(entry) for entry in data["joints"]),
            gripper=None if gripper is None else _servo(gripper),
        )

    def save(self, path: str | Path) -> None:
        """Replace the file at once or not at all."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(path), self.to_json(), durable=True)

    @classmethod
    def load(cls, path: str | Path) -> ArmCalibration:
        """Read what :meth:`save` wrote."""
        remedy = "Make one with 'vla robot calibrate'; without it nobody knows what the servos' counts mean."
        return cls.from_json(read_json(Path(path), CalibrationError, remedy))


def from_lerobot(path: str | Path, *, arm: str, model: str, gripper: str = "gripper") -> ArmCalibration:
    """A calibration file that lerobot wrote, its angles kept (degrees from the middle of the range).

    lerobot knows no directions: all are taken as +1 as its own policies do. Whether that suits the model of
    the arm has to be looked at, joint by joint (``docs/robots/so101.md``).

    Args:
        path: ``~/.cache/huggingface/lerobot/calibration/robots/KIND/ID.json``.
        arm: kind of arm, e.g. ``so101``.
        model: of its servos, e.g. ``sts3215``.
        gripper: which motor is the gripper; empty: none.
    """
    data = read_json(Path(path), CalibrationError, "Calibrate the arm with lerobot first.")
    servos: dict[str, ServoCalibration] = {}
    for name, entry in data.items():
        _check_keys(
            f"lerobot motor {name!r}", entry, ("id", "drive_mode", "homing_offset", "range_min", "range_max")
        )
        low, high = int(entry["range_min"]), int(entry["range_max"])
        servos[name] = ServoCalibration(
            name=name,
            servo=int(entry["id"]),
            model=model,
            direction=-1 if entry["drive_mode"] else 1,
            zero_count=round((low + high) / 2),
            homing_offset=int(entry["homing_offset"]),
            min_count=low,
            max_count=high,
        )
    if gripper and gripper not in servos:
        raise UnknownNameError("motor of the lerobot calibration", gripper, servos)
    last = servos.pop(gripper) if gripper else None
    return ArmCalibration(arm=arm, joints=tuple(servos.values()), gripper=last)


def _servo(entry: Mapping[str, Any]) -> ServoCalibration:
    names = tuple(ServoCalibration.__dataclass_fields__)
    _check_keys("servo of a calibration", entry, names)
    numbers = {name: entry[name] for name in names if name not in ("name", "model")}
    for name, value in numbers.items():
        if not isinstance(value, int):
            raise CalibrationError(
                f"Servo {entry['name']!r}: {name} is {json.dumps(value)}; expected a whole number."
            )
    return ServoCalibration(name=str(entry["name"]), model=str(entry["model"]), **numbers)


def _check_keys(what: str, data: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in data:
        if key not in known:
            raise UnknownNameError(f"key of a {what}", key, known)
    missing = [key for key in known if key not in data]
    if missing:
        raise CalibrationError(f"A {what} lacks {', '.join(missing)}; it has {', '.join(data)}.")
