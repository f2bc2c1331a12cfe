"""Does an arm do what its :class:`ArmModel` says? Checks the conventions the tabletop relies on."""

from __future__ import annotations

import mujoco
import numpy as np

from vla.errors import EnvError
from vla_envs.tabletop.arms.model import ArmModel, open_gripper

MAX_HOME_TILT_RAD = 0.2
MAX_HOME_ASIDE_M = 0.05
HOME_HEIGHT_M = (0.05, 0.40)
MAX_PAD_ASIDE_M = 0.03
MAX_PAD_BEHIND_M = 0.05


def verify_arm(arm: ArmModel) -> None:
    """Raises :class:`EnvError` naming every convention the arm breaks; leaves the arm's spec as it was."""
    model = arm.spec.copy().compile()
    problems = [*_servo_problems(model, arm), *_home_problems(model, arm)]
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise EnvError(f"the arm {arm.name!r} does not keep the conventions of the tabletop:{lines}")


def _servo_problems(model: mujoco.MjModel, arm: ArmModel) -> list[str]:
    problems = []
    for name, joint_name in zip(arm.actuator_names, arm.joint_names, strict=True):
        actuator, joint = model.actuator(name), model.joint(joint_name)
        gain, bias = float(actuator.gainprm[0]), float(actuator.biasprm[1])
        if int(actuator.trnid[0]) != joint.id:
            problems.append(f"actuator {name!r} does not drive joint {joint_name!r}")
        elif gain <= 0.0 or not np.isclose(gain, -bias):
            problems.append(
                f"actuator {name!r} is not a position servo (gain {gain:g}, position bias {bias:g}): "
                "declare it as <position kp=... kv=.../>"
            )
    return problems


def _home_problems(model: mujoco.MjModel, arm: ArmModel) -> list[str]:
    data, problems = mujoco.MjData(model), []
    for name, angle in zip(arm.joint_names, arm.home_q, strict=True):
        joint = model.joint(name)
        low, high = joint.range
        if model.jnt_limited[joint.id] and not low <= angle <= high:
            problems.append(f"home_q of {name!r} is {angle:g}, outside its limits {low:g} .. {high:g}")
        data.qpos[joint.qposadr[0]] = angle
    open_gripper(model, data, arm)
    mujoco.mj_kinematics(model, data)
    tcp = data.site(arm.tcp_site)
    position, rotation = tcp.xpos + np.asarray(arm.base_position), tcp.xmat.reshape(3, 3)
    tilt = float(np.arccos(np.clip(-rotation[2, 2], -1.0, 1.0)))
    if tilt > MAX_HOME_TILT_RAD:
        problems.append(f"at home the tcp's z axis is {np.degrees(tilt):.0f} deg from straight down")
    elif abs(rotation[0, 0]) < np.cos(MAX_HOME_TILT_RAD) or rotation[0, 0] < 0.0:
        problems.append(
            f"at home the tcp's x axis is {rotation[:, 0].round(2).tolist()}, expected world x [1, 0, 0]"
        )
    if (
        np.hypot(position[0], position[1]) > MAX_HOME_ASIDE_M
        or not HOME_HEIGHT_M[0] < position[2] < HOME_HEIGHT_M[1]
    ):
        problems.append(
            f"at home the tcp is at {position.round(3).tolist()} m in the world, expected within "
            f"{MAX_HOME_ASIDE_M} m of the workspace centre and {HOME_HEIGHT_M[0]} .. {HOME_HEIGHT_M[1]} m "
            "over the table"
        )
    pads = [np.mean([data.geom(g).xpos for g in finger], axis=0) for finger in arm.pad_geoms]
    apart = rotation.T @ (pads[1] - pads[0])
    if abs(apart[1]) < 0.9 * np.linalg.norm(apart):
        problems.append(
            f"the pads are apart along {apart.round(3).tolist()} in the tcp frame, expected along its y axis"
        )
    aside = rotation.T @ ((pads[0] + pads[1]) / 2.0 - tcp.xpos)
    if np.hypot(aside[0], aside[1]) > MAX_PAD_ASIDE_M or abs(aside[2]) > MAX_PAD_BEHIND_M:
        problems.append(
            f"the pads' middle is {aside.round(3).tolist()} m from the tcp in its frame, allowed "
            f"{MAX_PAD_ASIDE_M} m aside and {MAX_PAD_BEHIND_M} m along the tool"
        )
    return problems
