"""A six-jointed arm in a few lines of MJCF, and demonstrations of it written in any convention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from vla.data.readers.memory import MemoryDataset, MemoryEpisode
from vla.data.solve.robot import MujocoRobot

_AXES = ("0 0 1", "0 1 0", "0 1 0", "1 0 0", "0 1 0", "0 0 1")
HZ = 10.0


def mjcf() -> str:
    bodies = "".join(
        f'<body pos="{0.05 * (i % 2)} 0 0.15"><joint type="hinge" axis="{axis}" range="-3 3" limited="true"/>'
        '<geom size="0.02" mass="0.1"/>'
        for i, axis in enumerate(_AXES)
    )
    site = '<site name="tcp" pos="0.02 0.05 0.1"/>'
    return f'<mujoco><compiler angle="radian"/><worldbody>{bodies}{site}{"</body>" * 6}</worldbody></mujoco>'


def robot() -> MujocoRobot:
    return MujocoRobot(mujoco.MjModel.from_xml_string(mjcf()))


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """What really happened, an episode: metres, radians, opening 1 open, command +1 closed."""

    joints: np.ndarray
    position: np.ndarray
    turned: Rotation
    opening: np.ndarray
    command: np.ndarray


def motions(num: int = 20, length: int = 40, size: float = 0.5) -> list[Motion]:
    """Smooth joint paths; the gripper closes half way on things of different sizes."""
    rng, arm, made = np.random.default_rng(0), robot(), []
    for _ in range(num):
        t = np.arange(length)[:, None] / length
        phase, speed = rng.uniform(0, 6, 6), rng.uniform(3, 9, 6)
        joints = np.array([0.1, 0.6, 0.8, -0.4, 0.5, 0.3]) + size * np.sin(speed * t + phase)
        position, turned = arm.forward(joints)
        command = np.where(np.arange(length) < length // 2 + rng.integers(-4, 5), -1.0, 1.0)
        opening, held = np.ones(length), rng.uniform(0.05, 0.6)
        for i in range(1, length):
            opening[i] = np.clip(opening[i - 1] - 0.4 * command[i - 1], held, 1.0)
        made.append(Motion(joints=joints, position=position, turned=turned, opening=opening, command=command))
    return made


def written(turned: Rotation, rotation: str) -> np.ndarray:
    if rotation.startswith("quat"):
        return turned.as_quat(scalar_first=rotation == "quat_wxyz")
    return turned.as_rotvec() if rotation == "rotvec" else turned.as_euler(rotation.removeprefix("euler_"))


def dataset(made: list[Motion], **changes: Any) -> MemoryDataset:
    """Columns ``state`` and ``action``; keyword arguments plant another convention than the plain one."""
    plan = {"rotation": "quat_xyzw", "length": 1.0, "axes": (0, 1, 2), "angle": 1.0, "joint_angle": 1.0,
            "mode": "delta", "frame": "world", "action_length": 1.0, "lag": 0, "gripper": 1.0, "command": 1.0,
            "hz": HZ, "stamps": True, "joints": True, "joint_unit": 1.0}  # fmt: skip
    assert not set(changes) - set(plan)
    plan |= changes
    episodes = [_episode(motion, plan) for motion in made]
    return MemoryDataset(episodes, control_hz=plan["hz"])


def _episode(motion: Motion, plan: dict[str, Any]) -> MemoryEpisode:
    opening = motion.opening if plan["gripper"] > 0 else 1 - motion.opening
    parts = [
        motion.position[:, plan["axes"]] / plan["length"],
        written(motion.turned, plan["rotation"]) / plan["angle"],
    ]
    parts += [motion.joints / plan["joint_angle"]] if plan["joints"] else []
    state = np.hstack([*parts, opening[:, None]])
    after = np.minimum(np.arange(len(state)) + 1, len(state) - 1)
    step = (motion.turned[after] * motion.turned.inv()).as_rotvec()
    move = motion.position[after] - motion.position
    if plan["frame"] == "tool":
        move, step = motion.turned.inv().apply(move), motion.turned.inv().apply(step)
    if plan["mode"] == "velocity":
        move, step = move * HZ, step * HZ
    if plan["mode"] == "absolute":
        move, step = motion.position[after], written(motion.turned[after], "quat_wxyz")
    arm = [move / plan["action_length"], step]
    if plan["mode"].startswith("joint"):
        turns = motion.joints[after] - (0 if plan["mode"] == "joint" else motion.joints)
        arm = [turns * (HZ if plan["mode"] == "joint_velocity" else 1) / plan["joint_unit"]]
    action = np.hstack([*arm, plan["command"] * motion.command[:, None]])
    action = np.concatenate([np.repeat(action[:1], plan["lag"], axis=0), action])[: len(action)]
    times = np.arange(len(state)) / HZ if plan["stamps"] else None
    columns = {"state": state.astype(np.float32), "action": action.astype(np.float32)}
    return MemoryEpisode(columns=columns, time_s=times, instruction="do it")


def changed(raw: MemoryDataset, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]):
    """The same data with ``change(state, action)`` of every episode."""
    episodes = []
    for e in raw.episodes:
        state, action = change(*(np.array(raw.column(e.index, n), np.float64) for n in ("state", "action")))
        columns = {"state": state, "action": action}
        episodes.append(MemoryEpisode(columns=columns, time_s=raw.time_s(e.index), instruction="do it"))
    return MemoryDataset(episodes, control_hz=HZ)
