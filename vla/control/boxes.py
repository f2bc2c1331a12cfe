"""Limits that single action entries keep: the tool's box, and the ends of joints that are moved by steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vla.embodiment import Embodiment, Field
from vla.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One action entry that moves one measured quantity between two ends.

    Args:
        entry: of the action vector.
        per_entry: how far one unit of the entry moves it in a step (0: the entry is the position itself).
        position, component: state field and entry that say where it is.
        error: state field of what is commanded minus what is measured, if there is one.
        low, high: the ends.
    """

    entry: int
    per_entry: float
    position: str
    component: int
    error: str | None
    low: float
    high: float

    def bound(self, value: float, state: Mapping[str, np.ndarray]) -> float:
        """The entry nearest to ``value`` that stays between the ends; outside, it may come back or stay."""
        commanded = float(state[self.position][self.component])
        if self.error is not None:
            commanded += float(state[self.error][self.component])
        low, high = min(self.low, commanded), max(self.high, commanded)
        if self.per_entry:
            low, high = (low - commanded) / self.per_entry, (high - commanded) / self.per_entry
        return min(max(value, low), high)


def workspace_axes(embodiment: Embodiment, margin_m: float, *, kept_otherwise: bool) -> tuple[Axis, ...]:
    """The action entries that move the tool along the axes of the world.

    Args:
        embodiment: with a workspace or without.
        margin_m: how far inside the box's faces.
        kept_otherwise: an arm without such entries is kept in its box by a look at its pose.

    Raises:
        ConfigError: there is a box and nothing keeps it.
    """
    if not embodiment.workspace_low:
        return ()
    axes = []
    for field in embodiment.action:
        arm, _, quantity = field.slot.partition(".")
        if quantity not in ("tcp_position_delta", "tcp_position"):
            continue
        if field.frame != "world":
            raise ConfigError(
                f"The workspace of {embodiment.name!r} is a box in world frame, but action field "
                f"{field.name!r} is in {field.frame!r} frame. Convert it, or turn the box off with "
                "SafetyConfig(disabled=('workspace',))."
            )
        position = state_field(embodiment, f"{arm}.tcp_position")
        if position is None or position.size != 3:
            raise ConfigError(
                f"Keeping {embodiment.name!r} in its workspace needs a state field of 3 numbers in slot "
                f"'{arm}.tcp_position'; its state fields are {[f.name for f in embodiment.state]}."
            )
        error = state_field(embodiment, f"{arm}.tcp_error")
        start = embodiment.field_slice(field.name, of="action").start
        for i in range(field.size):
            k = field.slot_start + i
            axes.append(
                Axis(
                    entry=start + i,
                    per_entry=1.0 if quantity == "tcp_position_delta" else 0.0,
                    position=position.name,
                    component=k,
                    error=error.name if error else None,
                    low=embodiment.workspace_low[k] + margin_m,
                    high=embodiment.workspace_high[k] - margin_m,
                )
            )
    if not axes and not kept_otherwise:
        raise ConfigError(
            f"{embodiment.name!r} has a workspace, but none of its action fields "
            f"({[f.name for f in embodiment.action]}) moves the tool along the axes of the world, so the "
            "box cannot be kept. Give it a field in slot 'arm0.tcp_position_delta' or 'arm0.tcp_position', "
            "a geometry with a tcp_site (vla.control.geometry), or turn the box off with "
            "SafetyConfig(disabled=('workspace',))."
        )
    return tuple(axes)


def joint_axes(embodiment: Embodiment) -> tuple[Axis, ...]:
    """The action entries that move a measured joint by a delta or a speed, with the joint's ends."""
    axes = []
    for field in embodiment.action:
        arm, _, quantity = field.slot.partition(".")
        if quantity not in ("joint_delta", "joint_velocity"):
            continue
        start = embodiment.field_slice(field.name, of="action").start
        for i in range(field.size):
            place = entry_of(embodiment, f"{arm}.joint_position", field.slot_start + i)
            if place is None:
                continue
            shown, component = place
            axes.append(
                Axis(
                    entry=start + i,
                    per_entry=1.0 if quantity == "joint_delta" else 1.0 / embodiment.control_hz,
                    position=shown.name,
                    component=component,
                    error=None,
                    low=shown.low[component],
                    high=shown.high[component],
                )
            )
    return tuple(axes)


def measured_counterparts(embodiment: Embodiment) -> list[tuple[str | None, int, float]]:
    """For each action entry: the state entry that says where it stands, and a value where there is none.

    An absolute field is compared with the state field in the slot of the same name; a gripper with
    ``gripper_command``, and opens where nothing is known.
    """
    out: list[tuple[str | None, int, float]] = []
    for field in embodiment.action:
        arm, _, quantity = field.slot.partition(".")
        slot = f"{arm}.gripper_command" if quantity == "gripper" else field.slot
        for i in range(field.size):
            middle = (field.low[i] + field.high[i]) / 2
            otherwise = {"positive_closes": field.low[i], "positive_opens": field.high[i]}.get(
                field.gripper_sign, middle
            )
            place = entry_of(embodiment, slot, field.slot_start + i)
            out.append((place[0].name, place[1], otherwise) if place else (None, 0, otherwise))
    return out


def state_field(embodiment: Embodiment, slot: str) -> Field | None:
    """The first state field in that slot."""
    return next((f for f in embodiment.state if f.slot == slot), None)


def entry_of(embodiment: Embodiment, slot: str, number: int) -> tuple[Field, int] | None:
    """State field, and entry in it, that hold entry ``number`` of a slot."""
    for field in embodiment.state:
        if field.slot == slot and 0 <= number - field.slot_start < field.size:
            return field, number - field.slot_start
    return None
