"""Where actions lead, and whether the arm may go there: the way is looked at before it is gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vla.control.geometry import ArmGeometry, PoseChecks, Predict, joint_field
from vla.embodiment import Embodiment
from vla.errors import ConfigError

#: (action, joint angles now) -> joint angles that it leads to.
Follow = Callable[[np.ndarray, np.ndarray], np.ndarray]


class PoseGate:
    """Looks along the way of an action, from where the joints are commanded to be.

    Args:
        poses: what a pose may break.
        follow: where actions lead.
        embodiment: whose state says where the joints are before anything is commanded; always, where they are
            moved by speeds.
    """

    def __init__(self, poses: PoseChecks, follow: Follow, embodiment: Embodiment) -> None:
        field = joint_field(embodiment)
        assert field is not None, "PoseChecks wants one"
        self.poses = poses
        self._follow, self._field = follow, field.name
        self._measured = any(f.slot.endswith(".joint_velocity") for f in embodiment.action)
        self._q: np.ndarray | None = None

    def reset(self) -> None:
        """Nothing has been commanded."""
        self._q = None

    def first_breach(self, ways: Sequence[np.ndarray], state: Mapping[str, np.ndarray]) -> str | None:
        """The check that going through these actions, one after the other, breaks; None for a free way."""
        begin = self._joints(state)
        return self.poses.first_breach(np.array([begin, *(self._follow(way, begin) for way in ways)]))

    def went(self, action: np.ndarray, state: Mapping[str, np.ndarray]) -> None:
        """This one is executed."""
        self._q = self._follow(action, self._joints(state))

    def _joints(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        if self._q is not None and not self._measured:
            return self._q
        return np.asarray(state[self._field], np.float64)


def pose_gate(
    embodiment: Embodiment,
    geometry: ArmGeometry | None,
    predict: Predict | None,
    disabled: Sequence[str],
    *,
    boxed: bool,
) -> PoseGate | None:
    """The gate of an arm; None where there is no geometry or no check that needs one.

    Args:
        predict: joint angles that a tool-space action leads to.
        disabled: checks that are turned off.
        boxed: the tool is kept in its box already, entry by entry.

    Raises:
        ConfigError: nobody knows where the actions lead, or there are two arms.
    """
    if geometry is None:
        return None
    by_joints = _by_joints(embodiment)
    to_be_boxed = bool(embodiment.workspace_low) and bool(geometry.tcp_site) and not boxed
    wanted = {"joint": by_joints is None, "workspace": to_be_boxed, "collision": True}
    checks = tuple(name for name, there in wanted.items() if there and name not in disabled)
    if not checks:
        return None
    remedy = f"turn the checks off with SafetyConfig(disabled={checks})."
    if any(field.slot.startswith("arm1.") for field in embodiment.action):
        raise ConfigError(
            f"{embodiment.name!r} has two arms; the geometry of one cannot be checked for both: {remedy}"
        )
    if by_joints is None and predict is None:
        raise ConfigError(
            f"{embodiment.name!r} gives its geometry, but nobody knows which joint angles its actions lead "
            f"to: give the robot predict_joints(action), or {remedy}"
        )
    asked = predict
    follow = by_joints or (lambda action, _: np.asarray(asked(action), np.float64))  # type: ignore[misc]
    return PoseGate(PoseChecks(geometry, embodiment, checks), follow, embodiment)


def _by_joints(embodiment: Embodiment) -> Follow | None:
    """Where actions on joints lead; None where the action moves no joints by name.

    Absolute joint fields say where; deltas and velocities, how far within one control period.
    """
    parts: list[tuple[str, slice, slice]] = []
    for field in embodiment.action:
        arm, _, quantity = field.slot.partition(".")
        if arm == "arm0" and quantity in ("joint_position", "joint_delta", "joint_velocity"):
            there = slice(field.slot_start, field.slot_start + field.size)
            parts.append((quantity, embodiment.field_slice(field.name, of="action"), there))
    if not parts:
        return None

    def predict(action: np.ndarray, q: np.ndarray) -> np.ndarray:
        out = np.array(q, np.float64)
        for quantity, here, there in parts:
            if quantity == "joint_position":
                out[there] = action[here]
            else:
                out[there] += action[here] / (embodiment.control_hz if quantity == "joint_velocity" else 1.0)
        return out

    return predict
