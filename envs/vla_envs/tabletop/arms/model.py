"""What an arm is to the rest of the package: a MuJoCo spec plus the names and numbers needed to drive it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

TCP_SITE = "tcp"
WRIST_CAMERA = "wrist"

# Rotation of the tool at yaw 0: z straight down, x away from the base, fingers closing along world y.
TOOL_DOWN = np.diag([1.0, -1.0, -1.0])


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmModel:
    """A built arm, ready to be attached to a scene's ``MjSpec``.

    Names are those inside ``spec``; a scene that attaches it with a prefix puts the prefix before each.
    The ``tcp`` site has z out of the gripper, y along the closing direction and its origin midway
    between the fingertip pads. The ``wrist`` camera has image-up along the tool's x axis.

    Attributes:
        spec: root body ``base`` at the origin; a fresh one per arm, so it may be attached and changed.
        joint_names: arm joints from base to wrist, without the gripper.
        actuator_names: one position servo per arm joint; its control is the target angle in rad.
        gripper_actuator: the one actuator that drives the whole gripper.
        gripper_joint: the joint that tells the opening: ``(q - closed_q) / (open_q - closed_q)``.
        pad_geoms: geoms of finger 1 and of finger 2 that touch objects.
        home_q: tool straight down at yaw 0, tcp about 0.16 m above the workspace centre.
        base_position: where the base stands in the world, m (table top z = 0, workspace centre = origin).
        object_half_extent: objects may lie within ``|x| <= a, |y| <= b`` of the origin, m.
        max_gripper_width: widest gap between the pads, m.
        tool_down_weight: how firmly inverse kinematics keeps the tool vertical (1: exactly).
        closed_fingertips: centre of the closed fingertips in the tcp frame, m (0 but for one-sided grippers).
        max_tool_height: highest tcp over the table that is reachable all over the workspace, m.
    """

    name: str
    spec: mujoco.MjSpec
    joint_names: tuple[str, ...]
    actuator_names: tuple[str, ...]
    gripper_actuator: str
    gripper_open_ctrl: float
    gripper_closed_ctrl: float
    gripper_joint: str
    gripper_open_q: float
    gripper_closed_q: float
    pad_geoms: tuple[tuple[str, ...], tuple[str, ...]]
    tcp_site: str = TCP_SITE
    wrist_camera: str = WRIST_CAMERA
    home_q: np.ndarray
    base_position: tuple[float, float, float]
    object_half_extent: tuple[float, float] = (0.11, 0.16)
    max_gripper_width: float
    tool_down_weight: float = 1.0
    closed_fingertips: tuple[float, float, float] = (0.0, 0.0, 0.0)
    max_tool_height: float = 0.25


def open_gripper(model: mujoco.MjModel, data: mujoco.MjData, arm: ArmModel, prefix: str = "") -> None:
    """Sets the gripper's joint, and those that equalities couple to it, to the open position, at rest.

    ``prefix`` is the one the arm was attached with. Call a ``mj_forward`` afterwards.
    """
    leader = model.joint(prefix + arm.gripper_joint).id
    data.qpos[model.jnt_qposadr[leader]] = arm.gripper_open_q
    settled, waiting = {leader}, True
    while waiting:
        waiting = False
        for first, second, coefficients in _couplings(model):
            if second in settled and first not in settled:
                deviation = data.qpos[model.jnt_qposadr[second]] - model.qpos0[model.jnt_qposadr[second]]
                value = np.polynomial.polynomial.polyval(deviation, coefficients)
                data.qpos[model.jnt_qposadr[first]] = model.qpos0[model.jnt_qposadr[first]] + value
                settled.add(first)
                waiting = True
            elif first in settled and second not in settled and coefficients[1] != 0.0:
                deviation = data.qpos[model.jnt_qposadr[first]] - model.qpos0[model.jnt_qposadr[first]]
                value = (deviation - coefficients[0]) / coefficients[1]  # the linear part
                data.qpos[model.jnt_qposadr[second]] = model.qpos0[model.jnt_qposadr[second]] + value
                settled.add(second)
                waiting = True
    for joint in settled:
        data.qvel[model.jnt_dofadr[joint]] = 0.0


def _couplings(model: mujoco.MjModel) -> Iterator[tuple[int, int, np.ndarray]]:
    """(first, second, c): ``first = polynomial c of second``, both as deviations from their reference."""
    for i in range(model.neq):
        if int(model.eq_type[i]) == int(mujoco.mjtEq.mjEQ_JOINT) and int(model.eq_obj2id[i]) >= 0:
            yield int(model.eq_obj1id[i]), int(model.eq_obj2id[i]), model.eq_data[i, :5]
