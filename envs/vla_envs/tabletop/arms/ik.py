"""Inverse kinematics of a tool that points down, on any of the arms."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from vla.robots.kinematics import Kinematics, rotation_error, tool_down

__all__ = ["ToolIK", "rotation_error"]


class ToolIK:
    """Joint angles that put the tcp at a position with the tool straight down and a given yaw.

    See :class:`vla.robots.kinematics.Kinematics`; ``tool_down_weight`` is its orientation weight.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        joint_names: Sequence[str],
        tcp_site: str,
        tool_down_weight: float = 1.0,
        *,
        home_q: np.ndarray | None = None,
    ) -> None:
        """``model`` may be a whole scene; names as in ``model``. ``home_q``: posture to prefer, rad."""
        self.kinematics = Kinematics(
            model, joint_names, tcp_site, orientation_weight=tool_down_weight, home_q=home_q
        )

    def tcp_pose(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World position [3] and rotation [3, 3] of the tcp at arm angles ``q``."""
        return self.kinematics.pose(q)

    def solve(
        self, q_start: np.ndarray, target_position: np.ndarray, target_yaw: float, iterations: int = 4
    ) -> np.ndarray:
        """Arm angles [n] near ``q_start`` for a world position [3] in m and a yaw in rad (0 at home)."""
        return self.kinematics.solve(q_start, target_position, tool_down(target_yaw), iterations)
