"""Fields and cameras that the published layouts (``readers.known``) are made of."""

from __future__ import annotations

from collections.abc import Mapping
from math import pi
from typing import Any

from vla.data.description import CameraRule, Flip
from vla.data.source import RawDataset
from vla.embodiment import Camera, CameraRole, Field


def cameras_by_role(
    raw: RawDataset, roles: Mapping[str, CameraRole], flip: Flip
) -> tuple[tuple[Camera, ...], tuple[CameraRule, ...]]:
    """Cameras whose role the name tells, one for each role; the others are left out."""
    cameras: list[Camera] = []
    rules: list[CameraRule] = []
    for column, stored in raw.cameras.items():
        name = column.rpartition("/")[2]
        if name in roles and roles[name] not in {camera.role for camera in cameras}:
            cameras.append(Camera(name=name, role=roles[name], height=stored.height, width=stored.width))
            rules.append(CameraRule(camera=name, column=column, flip=flip))
    return tuple(cameras), tuple(rules)


def column_size(raw: RawDataset, column: str) -> int:
    return raw.columns[column].size if column in raw.columns else 0


def arm_prefix(num_arms: int, number: int) -> str:
    return f"arm{number}_" if num_arms > 1 else ""


def field_of(name: str, size: int, slot: str, limit: float, *, arm: str = "arm0", **more: Any) -> Field:
    given = {"frame": "world", "mode": "absolute", **more}
    return Field(
        name=name, size=size, low=(-limit,) * size, high=(limit,) * size, slot=f"{arm}.{slot}", **given
    )


def rotation_field(arm: str = "arm0", names: str = "") -> Field:
    return field_of(
        f"{names}tcp_rotation", 6, "tcp_rotation", 1.0, arm=arm, unit="1", rotation_format="matrix_6d"
    )


def joints_field(name: str, size: int, arm: str) -> Field:
    return field_of(name, size, "joint_position", pi, arm=arm, unit="rad", frame="joint")


def opening_field(name: str, arm: str) -> Field:
    return Field(
        name=name, size=1, unit="1", frame="none", mode="absolute", low=(0.0,), high=(1.0,),
        slot=f"{arm}.gripper_opening",
    )  # fmt: skip


def gripper_field(name: str, arm: str) -> Field:
    more = {"unit": "1", "frame": "none", "gripper_sign": "positive_closes"}
    return field_of(name, 1, "gripper", 1.0, arm=arm, **more)


def pose_change_fields(
    arm: str, shift: Any, turn: Any, *, frame: str = "world", prefix: str = ""
) -> tuple[Field, Field]:
    """Change of the tool's pose a step: metres and a rotation vector."""
    common: dict[str, Any] = {"size": 3, "frame": frame, "mode": "delta"}
    return (
        Field(
            name=f"{prefix}tcp_position_delta", unit="m/step", slot=f"{arm}.tcp_position_delta",
            low=tuple(-x for x in shift), high=tuple(shift), **common,
        ),
        Field(
            name=f"{prefix}tcp_rotation_delta", unit="rad/step", slot=f"{arm}.tcp_rotation_delta",
            rotation_format="rotvec", low=tuple(-x for x in turn), high=tuple(turn), **common,
        ),
    )  # fmt: skip
