"""Slots: one padded vector in which every field of every arm has a fixed, physically named place.

Arms with different joints, grippers and rotation formats train in one batch because each field is
scattered into its slot and a mask says which slots are real. **The meaning of a slot never
changes**: append new ones at the end, never reorder (``SLOT_VERSION`` guards stored policies).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla.errors import UnknownNameError

SLOT_VERSION = 1


@dataclass(frozen=True)
class Slot:
    """A named place: ``offset`` and ``size`` in the padded vector, and what it holds."""

    name: str
    offset: int
    size: int
    meaning: str


def _layout(entries: tuple[tuple[str, int, str], ...]) -> dict[str, Slot]:
    slots: dict[str, Slot] = {}
    offset = 0
    for arm in ("arm0", "arm1"):
        for name, size, meaning in entries:
            slots[f"{arm}.{name}"] = Slot(f"{arm}.{name}", offset, size, meaning)
            offset += size
    return slots


STATE_SLOTS = _layout(
    (
        ("tcp_position", 3, "tool centre point, m, world frame"),
        ("tcp_rotation", 6, "first two columns of the tool's rotation matrix, world frame"),
        ("tcp_yaw", 2, "cos and sin of twice the tool's yaw (a two-finger gripper is symmetric)"),
        ("tcp_error", 3, "commanded minus measured tool position, m, world frame"),
        ("joint_position", 8, "joint angles, rad (prismatic: m)"),
        ("joint_velocity", 8, "joint speeds, rad/s (prismatic: m/s)"),
        ("gripper_opening", 1, "0 closed .. 1 open"),
        ("gripper_command", 1, "last command, -1 open .. +1 closed"),
    )
)
ACTION_SLOTS = _layout(
    (
        ("tcp_position_delta", 3, "change of the commanded tool position, m per step, world frame"),
        ("tcp_rotation_delta", 3, "rotation vector per step, rad, world frame (yaw is the third)"),
        ("tcp_position", 3, "absolute tool position, m, world frame"),
        ("tcp_rotation", 6, "absolute tool rotation, 6d"),
        ("joint_position", 8, "absolute joint targets, rad"),
        ("joint_delta", 8, "change of joint targets, rad per step"),
        ("joint_velocity", 8, "joint velocity targets, rad/s"),
        ("gripper", 1, "-1 open .. +1 closed"),
    )
)
STATE_DIM = sum(slot.size for slot in STATE_SLOTS.values())
ACTION_DIM = sum(slot.size for slot in ACTION_SLOTS.values())


def slot_index(slots: dict[str, Slot], placements: list[tuple[str, int, int]]) -> np.ndarray:
    """Where each entry of a concatenated field vector lives in the padded vector.

    Args:
        slots: ``STATE_SLOTS`` or ``ACTION_SLOTS``.
        placements: (slot name, start inside the slot, size) of each field, in order.

    Returns:
        int64 [sum of sizes], strictly without repetition.
    """
    parts = []
    for name, start, size in placements:
        if name not in slots:
            raise UnknownNameError("slot", name, slots)
        slot = slots[name]
        if start < 0 or start + size > slot.size:
            raise ValueError(f"{size} entries from {start} do not fit slot {name!r} of {slot.size}")
        parts.append(np.arange(size) + slot.offset + start)
    index = np.concatenate(parts) if parts else np.zeros(0, int)
    if len(np.unique(index)) != len(index):
        raise ValueError(f"Two fields share a slot: {placements}")
    return index.astype(np.int64)


def scatter(values: np.ndarray, index: np.ndarray, dim: int) -> np.ndarray:
    """Put ``values [..., n]`` at ``index [n]`` of zeros ``[..., dim]``."""
    out = np.zeros((*values.shape[:-1], dim), values.dtype)
    out[..., index] = values
    return out


def gather(padded: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Inverse of :func:`scatter`: ``[..., dim] -> [..., n]``."""
    return padded[..., index]


def slot_mask(index: np.ndarray, dim: int) -> np.ndarray:
    """bool [dim], true where ``index`` points."""
    mask = np.zeros(dim, bool)
    mask[index] = True
    return mask
