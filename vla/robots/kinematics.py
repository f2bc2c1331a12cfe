"""Where a tool is for given joint angles, and the angles that put it somewhere: any arm that MuJoCo can load.

Robots whose controller takes joint angles are driven by tool motions through this module, and so are the
simulated arms: what a policy was trained to move is what moves here, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np

from vla.errors import EmbodimentError, UnknownNameError

_CONVERGED_RAD = 3e-4  # largest joint step that is not worth taking
_RANK_DAMPING = 0.003  # m/rad: directions in which the joints move the tcp less count as unreachable
_TURN_DAMPING = 0.1  # of the orientation of an arm that cannot always hold it: it gives way near full reach


class Kinematics:
    """Forward and inverse kinematics of one serial arm, on a private copy of the state.

    An iteration of :meth:`solve` is ``dq = J# e + (I - J# J) k (q_home - q)`` with the damped pseudo-inverse
    ``J# = J^T (J J^T + damping^2 I)^-1`` (Nakamura and Hanafusa 1986), limited to ``max_step`` and clipped to
    the joint limits. With an ``orientation_weight`` below 1 the position is met first and the orientation,
    weighted, in what freedom is left: an arm of five joints tilts its tool near the edge of its reach.

    Args:
        model: compiled; may be a whole scene. Poses are in its world frame.
        joint_names: hinges (or slides) from base to wrist, without the gripper, as named in ``model``.
        tcp_site: site at the tool centre, z out of the tool.
        orientation_weight: 1 holds the orientation exactly, less lets it give way to the position.
        home_q: [n] posture to prefer, rad; the model's own reference by default.
        damping: of the pseudo-inverse, m (rad) per rad.
        posture_gain: share of the way home taken in an iteration, where that moves no tool.
        max_step: of a joint in an iteration, rad.

    Raises:
        UnknownNameError: the model has no such joint or site.
        EmbodimentError: a joint has no limits or moves in more than one direction, or ``home_q`` has another
            length.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        joint_names: Sequence[str],
        tcp_site: str,
        *,
        orientation_weight: float = 1.0,
        home_q: np.ndarray | None = None,
        damping: float = 0.01,
        posture_gain: float = 0.1,
        max_step: float = 0.4,
    ) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        ids = [_joint(model, name) for name in joint_names]
        self.joint_names = tuple(joint_names)
        self._qpos, self._dofs = model.jnt_qposadr[ids], model.jnt_dofadr[ids]
        self.low, self.high = model.jnt_range[ids].T.copy()
        self._site = _site(model, tcp_site)
        self.home_q = self._data.qpos[self._qpos].copy() if home_q is None else np.asarray(home_q, float)
        if self.home_q.shape != (len(ids),):
            raise EmbodimentError(
                f"home_q of shape {self.home_q.shape} for the {len(ids)} joints {joint_names}."
            )
        self._weight, self._damping = orientation_weight, damping
        self._posture_gain, self._max_step = posture_gain, max_step
        self._jacobian = np.zeros((6, model.nv))

    @classmethod
    def load(
        cls,
        path: str | Path,
        joint_names: Sequence[str],
        tcp_site: str,
        *,
        orientation_weight: float = 1.0,
        home_q: np.ndarray | None = None,
    ) -> Kinematics:
        """From an MJCF or URDF file; the rest as in the constructor.

        Raises:
            EmbodimentError: no such file, or MuJoCo cannot compile it.
        """
        try:
            model = mujoco.MjModel.from_xml_path(str(path))
        except (ValueError, OSError) as error:
            raise EmbodimentError(f"The arm model {path} cannot be loaded: {error}") from error
        return cls(model, joint_names, tcp_site, orientation_weight=orientation_weight, home_q=home_q)

    def pose(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World position [3] in m and rotation [3, 3] of the tcp at joint angles [n]."""
        self._data.qpos[self._qpos] = q
        mujoco.mj_kinematics(self._model, self._data)
        return self._data.site_xpos[self._site].copy(), self._data.site_xmat[self._site].reshape(3, 3).copy()

    def jacobian(self, q: np.ndarray) -> np.ndarray:
        """[6, n]: tcp velocity (m/s, then rad/s, world frame) per joint speed at joint angles [n]."""
        self.pose(q)
        return self._jacobian_here().copy()

    def error(self, q: np.ndarray, position: np.ndarray, rotation: np.ndarray) -> tuple[float, float]:
        """How far the tcp at ``q`` is from a pose: m and rad."""
        here, turned = self.pose(q)
        turn = float(np.linalg.norm(rotation_error(rotation @ turned.T)))
        return float(np.linalg.norm(position - here)), turn

    def solve(
        self, q_start: np.ndarray, position: np.ndarray, rotation: np.ndarray, iterations: int = 4
    ) -> np.ndarray:
        """Joint angles [n] near ``q_start`` for a tcp pose: always inside the limits, exact where it can be.

        Args:
            q_start: [n] rad; what lies outside the limits is brought in.
            position: [3] m, world.
            rotation: [3, 3], world.
            iterations: 4 follow a target that moves by centimetres, 50 find one anywhere nearby; whether it
                was met says :meth:`error`.
        """
        q = np.clip(q_start, self.low, self.high)
        for _ in range(iterations):
            here, turned = self.pose(q)
            error = np.concatenate([position - here, rotation_error(rotation @ turned.T)])
            step = self._step(q, error)
            if np.abs(step).max() < _CONVERGED_RAD:
                break
            q = np.clip(q + np.clip(step, -self._max_step, self._max_step), self.low, self.high)
        return q

    def _jacobian_here(self) -> np.ndarray:
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
        return self._jacobian[:, self._dofs]

    def _step(self, q: np.ndarray, error: np.ndarray) -> np.ndarray:
        """The step of one iteration; joints that a first try would push beyond their limits stop there."""
        jacobian = self._jacobian_here()
        posture = self._posture_gain * (self.home_q - q)
        step = self._prioritised(jacobian, error, posture)
        stopped = (q + step < self.low) | (q + step > self.high)
        if not stopped.any():
            return step
        to_limit = np.where(stopped, np.clip(q + step, self.low, self.high) - q, 0.0)
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


def rotation_error(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle (rad) of a rotation matrix, in [0, pi]."""
    quaternion, axis_angle = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    mujoco.mju_quat2Vel(axis_angle, quaternion, 1.0)
    return axis_angle


def rotation_matrix(axis_angle: np.ndarray) -> np.ndarray:
    """[3, 3] of axis times angle [3] in rad: inverse of :func:`rotation_error` below a half turn."""
    quaternion, matrix = np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(9)
    mujoco.mju_quatIntegrate(quaternion, np.asarray(axis_angle, float), 1.0)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def tool_down(yaw_rad: float) -> np.ndarray:
    """[3, 3]: tool z straight down, x away from the base at yaw 0, turned by ``yaw_rad`` about world z."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]) @ np.diag([1.0, -1.0, -1.0])


def _damped_step(
    jacobian: np.ndarray, error: np.ndarray, otherwise: np.ndarray, damping: float
) -> np.ndarray:
    """The damped least-squares step for ``error`` that stays nearest to ``otherwise``."""
    square = jacobian @ jacobian.T
    square.flat[:: len(square) + 1] += damping**2
    return otherwise + jacobian.T @ np.linalg.solve(square, error - jacobian @ otherwise)


def _joint(model: mujoco.MjModel, name: str) -> int:
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)
    if index < 0:
        raise UnknownNameError("joint of the arm model", name, [model.jnt(i).name for i in range(model.njnt)])
    one_way = mujoco.mjtJoint(int(model.jnt_type[index])) in (
        mujoco.mjtJoint.mjJNT_HINGE,
        mujoco.mjtJoint.mjJNT_SLIDE,
    )
    if not one_way or not model.jnt_limited[index]:
        raise EmbodimentError(
            f"Joint {name!r} of the arm model is no hinge or slide with limits: give it a range."
        )
    return index


def _site(model: mujoco.MjModel, name: str) -> int:
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, name)
    if index < 0:
        raise UnknownNameError(
            "site of the arm model", name, [model.site(i).name for i in range(model.nsite)]
        )
    return index
