"""The world behind a counterpart: an arm of the tabletop suite, its gripper, its table and objects."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from vla.robots.kinematics import Kinematics
from vla_envs.tabletop.cameras import SceneRenderer, camera_name
from vla_envs.tabletop.env import HOLD_STEPS, TabletopEnv
from vla_envs.tabletop.scene import ARM_PREFIX, TIMESTEP_S

_SLOWEST = 20.0 / 150.0  # of its fastest speed, at SPE 0
_CYCLES_PER_STEP = 50  # of the env's control step of 0.1 s, in which it judges success


class TabletopPlant:
    """One scene at a time; ``step`` advances it by ``period_s``.

    Args:
        arm: of the suite.
        task: scene to begin with.
        seed: of that scene.
        image_size: px of the square camera pictures.
        gripper_m_s: fastest speed of the fingers (a real 2F-85: 0.15); 0 for the suite's own, about 0.5.
    """

    period_s = TIMESTEP_S

    def __init__(
        self, arm: str, task: str = "pick", seed: int = 0, image_size: int = 64, gripper_m_s: float = 0.0
    ) -> None:
        self._arm_name = arm
        self._image_size, self._gripper_m_s = image_size, gripper_m_s
        self.env = TabletopEnv(task, self._arm_name, image_size=image_size, render=False)
        self._renderer: SceneRenderer | None = None
        self._bind()
        self.set_scene(task, seed)

    def _bind(self) -> None:
        env, arm = self.env, self.env.arm
        joints = tuple(ARM_PREFIX + name for name in arm.joint_names)
        self.kinematics = Kinematics(
            env.model, joints, ARM_PREFIX + arm.tcp_site, home_q=np.asarray(arm.home_q, float)
        )
        self._qpos = np.array([int(env.model.joint(name).qposadr[0]) for name in joints])
        self._dofs = np.array([int(env.model.joint(name).dofadr[0]) for name in joints])
        self._ctrl = np.array([env.model.actuator(ARM_PREFIX + name).id for name in arm.actuator_names])
        kp, kv = -env.model.actuator_biasprm[self._ctrl, 1], -env.model.actuator_biasprm[self._ctrl, 2]
        self._lead_s = kv / kp
        self._gripper = int(env.model.actuator(ARM_PREFIX + arm.gripper_actuator).id)

    def set_scene(
        self, task: str, seed: int, options: Mapping[str, Any] | None = None, instruction: str | None = None
    ) -> dict[str, Any]:
        """Put up another scene, arm at its start; what it is asked to do.

        Raises:
            VlaError: no such task, or the scene cannot do what the instruction says.
        """
        if task != self.env.task.name:
            env = TabletopEnv(task, self._arm_name, image_size=self._image_size, render=False)
            self.close()
            self.env = env
            self._bind()
        self.env.reset(seed=seed, options=dict(options or {}))
        if instruction is not None:
            self.env.set_instruction(instruction)
        self._cycles = self._held = 0
        self.wrong = False
        self._share = 0.0
        return {"instruction": self.env.instruction, "max_steps": self.env.max_steps, "task": task}

    @property
    def q(self) -> np.ndarray:
        """[6] measured joint angles, rad."""
        return self.env.data.qpos[self._qpos].copy()

    @property
    def qd(self) -> np.ndarray:
        """[6] measured joint speeds, rad/s."""
        return self.env.data.qvel[self._dofs].copy()

    @property
    def torque(self) -> np.ndarray:
        """[6] of the joint servos, Nm."""
        return self.env.data.actuator_force[self._ctrl].copy()

    @property
    def gripper_share(self) -> float:
        """0 open .. 1 closed, measured."""
        return float(np.clip(1.0 - self.env.world.gripper_opening, 0.0, 1.0))

    def step(
        self, q_target: np.ndarray, qd_target: np.ndarray, gripper_share: float, gripper_speed: float
    ) -> None:
        """One controller cycle with joint servos at ``q_target`` [6] rad, moving at ``qd_target`` [6] rad/s.

        The joint drives have velocity feed-forward, as those of a UR: measured angles follow targets closely.

        Args:
            gripper_share: where the fingers are sent, 0 open .. 1 closed.
            gripper_speed: 0..1 of the gripper's own range of speeds.
        """
        env, data = self.env, self.env.data
        data.ctrl[self._ctrl] = q_target + self._lead_s * qd_target
        fastest = (
            self._gripper_m_s * max(gripper_speed, _SLOWEST) / self.env.arm.max_gripper_width * self.period_s
            or np.inf
        )
        self._share += float(np.clip(gripper_share - self._share, -fastest, fastest))
        arm = env.arm
        data.ctrl[self._gripper] = arm.gripper_open_ctrl + self._share * (
            arm.gripper_closed_ctrl - arm.gripper_open_ctrl
        )
        mujoco.mj_step(env.model, data)
        self._cycles += 1
        if self._cycles % _CYCLES_PER_STEP == 0:
            mujoco.mj_forward(env.model, data)
            assert env.goal is not None
            self._held = self._held + 1 if env.task.achieved(env.goal, env.world) else 0
            self.wrong = self.wrong or bool(env.current_info()["wrong"])

    @property
    def success(self) -> bool:
        """The instruction is fulfilled, and has been for the env's hold time."""
        return self._held >= HOLD_STEPS

    def snapshot(self) -> mujoco.MjData:
        """A copy of the state for :meth:`render`, which another thread may call."""
        return copy.copy(self.env.data)

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """uint8 [h w 3] from ``front`` or ``wrist``; always from the same thread (OpenGL)."""
        if self._renderer is None:
            self._renderer = SceneRenderer(self.env.model)
        mujoco.mj_forward(self.env.model, data)
        return self._renderer.render(data, camera_name(camera), self._image_size)

    def close(self) -> None:
        """Let go of the renderer, in the thread that rendered."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self.env.close()
