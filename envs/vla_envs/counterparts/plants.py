"""What the servos of a counterpart move: joints with inertia and a load, simulated or approximated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import mujoco
import numpy as np

from vla.errors import UnknownNameError
from vla_envs.tabletop.env import HOLD_STEPS, TabletopEnv
from vla_envs.tabletop.scene import ARM_PREFIX, TIMESTEP_S

#: N m at standstill of an STS3215 at 7.4 V (the servo model of the tabletop's SO-101).
STALL_TORQUE = 3.35


class Plant(Protocol):
    """Joints, each driven by one servo.

    Attributes:
        names: of the joints, the gripper last.
        low, high: [n] their ranges, rad.
        time_s: simulated time.
    """

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    time_s: float

    @property
    def angles(self) -> np.ndarray:
        """[n] rad."""
        ...

    @property
    def speeds(self) -> np.ndarray:
        """[n] rad/s."""
        ...

    @property
    def loads(self) -> np.ndarray:
        """[n] torque as a share of the largest, -1 .. 1."""
        ...

    def drive(self, index: int, target: float | None, torque: float) -> None:
        """Servo ``index`` pulls towards ``target`` (rad) with up to ``torque`` (0..1); None: it is limp."""
        ...

    def advance(self, seconds: float) -> None: ...


class FirstOrderPlant:
    """Joints without a load: each goes to its target with a time constant and at a limited speed.

    Args:
        names: of the joints, the gripper last.
        low, high: ranges, rad.
        time_constant_s: of the approach.
        max_speed: rad/s.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        low: np.ndarray,
        high: np.ndarray,
        *,
        time_constant_s: float = 0.03,
        max_speed: float = 5.0,
    ) -> None:
        self.names, self.low, self.high = names, np.asarray(low, float), np.asarray(high, float)
        self.time_s = 0.0
        self._time_constant_s, self._max_speed = time_constant_s, max_speed
        self._q = (self.low + self.high) / 2
        self._dq = np.zeros(len(names))
        self._target = np.full(len(names), np.nan)

    @property
    def angles(self) -> np.ndarray:
        return self._q

    @property
    def speeds(self) -> np.ndarray:
        return self._dq

    @property
    def loads(self) -> np.ndarray:
        return np.clip(self._dq / self._max_speed, -1.0, 1.0)

    def drive(self, index: int, target: float | None, torque: float) -> None:
        self._target[index] = np.nan if target is None or torque <= 0 else target

    def advance(self, seconds: float) -> None:
        gap = np.where(np.isnan(self._target), 0.0, self._target - self._q)
        wanted = gap * -math.expm1(-seconds / self._time_constant_s)
        step = np.clip(wanted, -self._max_speed * seconds, self._max_speed * seconds)
        before = self._q
        self._q = np.clip(before + step, self.low, self.high)
        self._dq = (self._q - before) / seconds
        self.time_s += seconds


class TabletopPlant:
    """The SO-101 of the tabletop suite in a scene of one of its tasks; success is judged as the suite does.

    Args:
        task: of the tabletop suite.
        image_size: pixels per side of a picture.
    """

    def __init__(self, task: str, image_size: int) -> None:
        self.env = TabletopEnv(task, "so101", image_size=image_size)
        model, arm = self.env.model, self.env.arm
        self._size = image_size
        self.names = (*arm.joint_names, arm.gripper_joint)
        joints = [model.joint(ARM_PREFIX + name).id for name in self.names]
        self.low, self.high = model.jnt_range[joints].T.copy()
        self._qpos, self._dofs = model.jnt_qposadr[joints], model.jnt_dofadr[joints]
        actuators = (*arm.actuator_names, arm.gripper_actuator)
        self._actuators = np.array([model.actuator(ARM_PREFIX + name).id for name in actuators])
        self._gains = model.actuator_gainprm[self._actuators].copy()
        self._biases = model.actuator_biasprm[self._actuators].copy()
        self._forces = model.actuator_forcerange[self._actuators].copy()
        self._links = np.array(
            [i for i in range(model.nbody) if model.body(i).name.startswith(ARM_PREFIX)], dtype=int
        )
        self._gravcomp = model.body_gravcomp[self._links].copy()
        self._limp = np.zeros(len(self.names), bool)
        self.time_s = 0.0
        self._left_s = 0.0
        self._steps = self._held = 0
        self.reset(0, {})

    def reset(self, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
        """The suite's scene of a seed; the arm stands where its episodes start."""
        for index in range(len(self.names)):
            self._stiffen(index, limp=False, torque=1.0)
        _, info = self.env.reset(seed=seed, options=dict(options))
        self._steps = self._held = 0
        self._left_s = 0.0
        return {"instruction": info["instruction"], "max_steps": self.env.max_steps}

    @property
    def angles(self) -> np.ndarray:
        return self.env.data.qpos[self._qpos]

    @property
    def speeds(self) -> np.ndarray:
        return self.env.data.qvel[self._dofs]

    @property
    def loads(self) -> np.ndarray:
        return np.clip(self.env.data.actuator_force[self._actuators] / STALL_TORQUE, -1.0, 1.0)

    def drive(self, index: int, target: float | None, torque: float) -> None:
        self._stiffen(index, limp=target is None, torque=torque)
        if target is not None:
            self.env.data.ctrl[self._actuators[index]] = np.clip(target, self.low[index], self.high[index])

    def advance(self, seconds: float) -> None:
        """Whole simulation steps; what is left over is made up for next time."""
        self._left_s += seconds
        num_steps = int(self._left_s / TIMESTEP_S + 1e-6)
        if not num_steps:
            return
        self._left_s -= num_steps * TIMESTEP_S
        self.time_s += num_steps * TIMESTEP_S
        control_steps = round(1.0 / (self.env.embodiment.control_hz * TIMESTEP_S))
        while num_steps:
            now = min(num_steps, control_steps - self._steps % control_steps)
            mujoco.mj_step(self.env.model, self.env.data, now)
            self._steps += now
            num_steps -= now
            if self._steps % control_steps == 0:
                mujoco.mj_forward(self.env.model, self.env.data)
                self._judge()
        mujoco.mj_forward(self.env.model, self.env.data)

    def outcome(self) -> dict[str, Any]:
        """Whether the task is fulfilled now, as the suite judges it, and control steps since the reset."""
        control_steps = round(1.0 / (self.env.embodiment.control_hz * TIMESTEP_S))
        return {"success": self._held >= HOLD_STEPS, "steps": self._steps // control_steps}

    def picture(self, camera: str) -> np.ndarray:
        """uint8 [size size 3] from ``front`` or ``wrist``."""
        roles = [c.name for c in self.env.embodiment.cameras]
        if camera not in roles:
            raise UnknownNameError("camera of the tabletop", camera, roles)
        return self.env.render_frame(self._size, camera)

    def _judge(self) -> None:
        assert self.env.goal is not None
        done = self.env.task.achieved(self.env.goal, self.env.world)
        self._held = self._held + 1 if done else 0

    def _stiffen(self, index: int, *, limp: bool, torque: float) -> None:
        """A limp servo pulls at nothing; once all of the arm's are, nothing holds its weight any more."""
        model, actuator = self.env.model, self._actuators[index]
        model.actuator_gainprm[actuator] = 0.0 if limp else self._gains[index]
        model.actuator_biasprm[actuator] = 0.0 if limp else self._biases[index]
        largest = min(torque * STALL_TORQUE, self._forces[index, 1])
        model.actuator_forcerange[actuator] = (-largest, largest)
        self._limp[index] = limp
        model.body_gravcomp[self._links] = 0.0 if self._limp[:-1].all() else self._gravcomp
