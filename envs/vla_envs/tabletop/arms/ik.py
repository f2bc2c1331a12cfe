"""Inverse kinematics of a tool that points down: damped least squares on a private copy of the state."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from vla.errors import EnvError
from vla_envs.tabletop.arms.model import TOOL_DOWN

_CONVERGED_RAD = 3e-4  # largest joint step that is not worth taking
_RANK_DAMPING = 0.003  # m/rad: directions in which the joints move the tcp less count as unreachable
_TURN_DAMPING = 0.1  # of the orientation of an arm that cannot always hold it: it gives way near full reach


class ToolIK:
    """Joint angles that put the tcp at a position with the tool straight down and a given yaw.

    Each iteration is ``dq = J# e + (I - J# J) k (q_home - q)`` with the damped pseudo-inverse
    ``J# = J^T (J J^T + damping^2 I)^-1``, limited to ``max_step`` rad and clipped to the joint limits.
    With ``tool_down_weight`` below 1 the position is met first and the orientation, weighted, in what
    freedom is left: an arm of five joints tilts its tool near the edge of its reach.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        joint_names: Sequence[str],
        tcp_site: str,
        tool_down_weight: float = 1.0,
        *,
        home_q: np.ndarray | None = None,
        damping: float = 0.01,
        posture_gain: float = 0.1,
        max_step: float = 0.4,
    ) -> None:
        """``model`` may be a whole scene; names as in ``model``. ``home_q``: posture to prefer, rad."""
        self._model, self._data = model, mujoco.MjData(model)
        ids = [_id(model, mujoco.mjtObj.mjOBJ_JOINT, name) for name in joint_names]
        self._qpos, self._dofs = model.jnt_qposadr[ids], model.jnt_dofadr[ids]
        self._low, self._high = model.jnt_range[ids].T.copy()
        self._site = _id(model, mujoco.mjtObj.mjOBJ_SITE, tcp_site)
        self._home = self._data.qpos[self._qpos].copy() if home_q is None else np.asarray(home_q, float)
        self._weight, self._damping = tool_down_weight, damping
        self._posture_gain, self._max_step = posture_gain, max_step
        self._jacobian = np.zeros((6, model.nv))

    def tcp_pose(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World position [3] and rotation [3, 3] of the tcp at arm angles ``q``."""
        self._data.qpos[self._qpos] = q
        mujoco.mj_kinematics(self._model, self._data)
        return self._data.site_xpos[self._site].copy(), self._data.site_xmat[self._site].reshape(3, 3).copy()

    def solve(
        self, q_start: np.ndarray, target_position: np.ndarray, target_yaw: float, iterations: int = 4
    ) -> np.ndarray:
        """Arm angles [n] near ``q_start`` for a world position [3] in m and a yaw in rad (0 at home)."""
        cos, sin = np.cos(target_yaw), np.sin(target_yaw)
        target_rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]) @ TOOL_DOWN
        q = np.clip(q_start, self._low, self._high)
        for _ in range(iterations):
            position, rotation = self.tcp_pose(q)
            error = np.concatenate([target_position - position, rotation_error(target_rotation @ rotation.T)])
            step = self._step(q, error)
            if np.abs(step).max() < _CONVERGED_RAD:
                break
            q = np.clip(q + np.clip(step, -self._max_step, self._max_step), self._low, self._high)
        return q

    def _step(self, q: np.ndarray, error: np.ndarray) -> np.ndarray:
        """The step of one iteration; joints that a first try would push beyond their limits stop there."""
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
        jacobian = self._jacobian[:, self._dofs]
        posture = self._posture_gain * (self._home - q)
        step = self._prioritised(jacobian, error, posture)
        stopped = (q + step < self._low) | (q + step > self._high)
        if not stopped.any():
            return step
        to_limit = np.where(stopped, np.clip(q + step, self._low, self._high) - q, 0.0)
        moving = np.where(stopped, 0.0, jacobian)
        rest = self._prioritised(moving, error - jacobian @ to_limit, np.where(stopped, 0.0, posture))
        return np.where(stopped, to_limit, rest)

    def _prioritised(self, jacobian: np.ndarray, error: np.ndarray, posture: np.ndarray) -> np.ndarray:
        """All six rows alike for a weight of 1, else the orientation in the null space of the position."""
        if self._weight >= 1.0:
            return _damped_step(jacobian, error, posture, self._damping)
        place, turn = jacobian[:3], self._weight * jacobian[3:]
        step = _damped_step(place, error[:3], np.zeros_like(posture), self._damping)
        square = place @ place.T + _RANK_DAMPING**2 * np.eye(3)
        free = np.eye(len(posture)) - place.T @ np.linalg.solve(square, place)
        left = self._weight * error[3:] - turn @ step
        return step + free @ _damped_step(turn @ free, left, posture, _TURN_DAMPING)


def _damped_step(
    jacobian: np.ndarray, error: np.ndarray, otherwise: np.ndarray, damping: float
) -> np.ndarray:
    """The damped least-squares step for ``error`` that stays nearest to ``otherwise``."""
    square = jacobian @ jacobian.T
    square.flat[:: len(square) + 1] += damping**2
    return otherwise + jacobian.T @ np.linalg.solve(square, error - jacobian @ otherwise)


def rotation_error(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle (rad) of a rotation matrix, in [0, pi]."""
    quaternion, axis_angle = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    mujoco.mju_quat2Vel(axis_angle, quaternion, 1.0)
    return axis_angle


def _id(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    index = mujoco.mj_name2id(model, kind, name)
    if index < 0:
        known = [model.jnt(i).name for i in range(model.njnt)] + [
            model.site(i).name for i in range(model.nsite)
        ]
        raise EnvError(f"the model has no joint or site named {name!r}; it has: {', '.join(known)}")
    return index
