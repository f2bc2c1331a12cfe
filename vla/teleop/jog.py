"""What a stick or a key means: a share of the arm's largest step, in its own units, in the world's frame."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vla.embodiment import Embodiment, Field
from vla.errors import ConfigError

#: Directions that a person pushes in, each -1..1: towards the table's far side, left, up, turned to the left.
AXES = ("x", "y", "z", "yaw")
#: Share of the largest step that a full push asks for.
SHARE = 0.5


class Jog:
    """Steps of the tool, and a gripper that stays as it was told.

    Args:
        arm: moved by steps of its tool.
        share: of the largest step, at a full push.

    Raises:
        ConfigError: the arm is moved in another way.
    """

    def __init__(self, arm: Embodiment, *, share: float = SHARE) -> None:
        self._arm, self._share = arm, share
        self._step = _one(arm, "tcp_position_delta")
        self._yaw = _one(arm, "tcp_yaw_delta")
        self._grip = next((f for f in arm.action if f.gripper_sign != "none"), None)
        if self._step is None:
            raise ConfigError(
                f"{arm.name!r} is not moved by steps of its tool ({', '.join(f.name for f in arm.action)}): "
                "keys and sticks cannot move it. A leader arm can."
            )
        self._closed: bool | None = None

    def action(self, push: Mapping[str, float], *, closed: bool | None = None) -> np.ndarray:
        """One action, float32 [action_dim].

        Args:
            push: axis of :data:`AXES` -> -1..1; what is missing is 0.
            closed: the gripper from now on; None leaves it as it was told last (open at first).
        """
        self._closed = closed if closed is not None else self._closed
        action = np.zeros(self._arm.action_dim, np.float32)
        for field, axes in ((self._step, AXES[:3]), (self._yaw, AXES[3:])):
            if field is not None:
                wanted = np.clip([push.get(axis, 0.0) for axis in axes], -1, 1) * self._share
                reach = np.where(wanted < 0, -np.array(field.low), field.high)
                action[self._arm.field_slice(field.name, of="action")] = wanted * reach
        if self._grip is not None:
            closing = bool(self._closed) == (self._grip.gripper_sign == "positive_closes")
            ends = self._grip.high if closing else self._grip.low
            action[self._arm.field_slice(self._grip.name, of="action")] = ends
        return action


def _one(arm: Embodiment, quantity: str) -> Field | None:
    return next((f for f in arm.action if f.slot == f"arm0.{quantity}" and not f.slot_start), None)
