"""Stored numbers -> fields of an embodiment: units, rotation formats, signs and frames."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation

from vla.data.description import ROTATION_SIZES, ColumnRule, Flip
from vla.embodiment import Embodiment, Field
from vla.errors import DatasetError, EmbodimentError
from vla.text import sentence

#: unit as stored -> (unit of a field, factor)
UNITS: Mapping[str, tuple[str, float]] = {
    "m": ("m", 1.0),
    "mm": ("m", 1e-3),
    "cm": ("m", 1e-2),
    "rad": ("rad", 1.0),
    "deg": ("rad", np.pi / 180),
    "1": ("1", 1.0),
    "%": ("1", 1e-2),
    "m/step": ("m/step", 1.0),
    "mm/step": ("m/step", 1e-3),
    "cm/step": ("m/step", 1e-2),
    "rad/step": ("rad/step", 1.0),
    "deg/step": ("rad/step", np.pi / 180),
    "m/s": ("m/s", 1.0),
    "mm/s": ("m/s", 1e-3),
    "cm/s": ("m/s", 1e-2),
    "rad/s": ("rad/s", 1.0),
    "deg/s": ("rad/s", np.pi / 180),
}


def stored_size(rule: ColumnRule, member: Field) -> int:
    """Entries that a rule reads from its column."""
    written = rule.rotation or member.rotation_format
    if rule.rotation and member.rotation_format == "none":
        raise EmbodimentError(f"Rule of {rule.field!r} names a rotation, but the field is none.")
    return ROTATION_SIZES[written] if written in ROTATION_SIZES and rule.rotation else member.size


def convert(values: np.ndarray, rule: ColumnRule, member: Field, control_hz: float) -> np.ndarray:
    """[T n] as stored -> float64 [T size] in the field's unit and rotation format.

    Raises:
        EmbodimentError: units or rotation formats that do not convert into one another.
    """
    values = np.asarray(values, np.float64) * unit_factor(rule.unit or member.unit, member, control_hz)
    if rule.rotation and rule.rotation != member.rotation_format:
        values = write_rotation(read_rotation(values, rule.rotation), member.rotation_format)
    if (rule.scale, rule.offset) == (1.0, 0.0):
        return values  # adding 0 would turn -0 into 0
    return values * rule.scale + rule.offset


def unit_factor(stored: str, member: Field, control_hz: float) -> float:
    """What to multiply a stored number by to get the field's unit."""
    if stored == member.unit:
        return 1.0
    if stored not in UNITS:
        raise EmbodimentError(f"Unit {stored!r} of {member.name!r} is unknown; known: {', '.join(UNITS)}.")
    unit, factor = UNITS[stored]
    if unit == member.unit:
        return factor
    if unit.endswith("/s") and member.unit == unit.removesuffix("/s") + "/step":
        return factor / control_hz
    raise EmbodimentError(f"Field {member.name!r} is in {member.unit!r}: {stored!r} does not convert to it.")


def read_rotation(values: np.ndarray, written: str) -> Rotation:
    """[T n] in a stored format (``description.SourceRotation``), radians -> rotations."""
    if written == "yaw":
        return Rotation.from_euler("z", values.reshape(-1, 1))
    if written == "rotvec":
        return Rotation.from_rotvec(values)
    if written.startswith("euler_"):
        return Rotation.from_euler(written.removeprefix("euler_"), values)
    if written in ("quat_xyzw", "quat_wxyz"):
        if not np.all(np.linalg.norm(values, axis=1) > 1e-6):
            raise DatasetError("A quaternion of length 0 is no rotation.")
        return Rotation.from_quat(values, scalar_first=written == "quat_wxyz")
    if written in ("matrix", "matrix_6d"):
        try:
            matrices = values.reshape(-1, 3, 3) if written == "matrix" else _complete_6d(values)
            return Rotation.from_matrix(matrices)
        except ValueError as error:
            raise DatasetError(
                f"Numbers stored as {written!r} that are no rotation: {sentence(error)}"
            ) from error
    raise EmbodimentError(f"Rotations written as {written!r} cannot be read.")


def write_rotation(rotation: Rotation, written: str) -> np.ndarray:
    """Rotations -> [T n] in the format of a field (``embodiment.RotationFormat``)."""
    if written == "rotvec":
        return rotation.as_rotvec()
    if written == "matrix_6d":
        return np.swapaxes(rotation.as_matrix()[:, :, :2], 1, 2).reshape(-1, 6)
    if written == "quat_wxyz":
        return rotation.as_quat(canonical=True, scalar_first=True)
    if written == "euler_xyz":
        return rotation.as_euler("xyz")
    if written in ("yaw", "cos_sin_2yaw"):
        matrix = rotation.as_matrix()
        yaw = np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0])
        return yaw[:, None] if written == "yaw" else np.stack([np.cos(2 * yaw), np.sin(2 * yaw)], axis=1)
    raise EmbodimentError(f"Rotations cannot be written as {written!r}.")


def orientation(embodiment: Embodiment, state: np.ndarray, arm: str) -> Rotation | None:
    """The tool's orientation [T] from states [T S]; None where the state has none (``arm``: ``arm0``...)."""
    for member in embodiment.state:
        if member.slot == f"{arm}.tcp_rotation" and member.rotation_format == "matrix_6d":
            values = state[:, embodiment.field_slice(member.name, of="state")]
            return read_rotation(np.asarray(values, np.float64), "matrix_6d")
    return None


def flip_image(image: np.ndarray, flip: Flip) -> np.ndarray:
    """A view of ``image`` [h w 3], turned upright."""
    rows = slice(None, None, -1 if flip in ("vertical", "rotate_180") else 1)
    columns = slice(None, None, -1 if flip in ("horizontal", "rotate_180") else 1)
    return image[rows, columns]


def _complete_6d(values: np.ndarray) -> np.ndarray:
    """[T 6] -> [T 3 3], columns made orthonormal (Zhou et al. 2019)."""
    first = _unit(values[:, :3])
    second = _unit(values[:, 3:] - (first * values[:, 3:]).sum(axis=1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=2)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(lengths > 1e-9):
        raise ValueError("a column of length 0")
    return vectors / lengths
