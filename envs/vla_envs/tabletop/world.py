"""The simulated state in the task's own words: where things are, what is held, what is pressed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.objects import FREE_KINDS, PARTS, Entity
from vla_envs.tabletop.scene import ARM_PREFIX

PARKED_Z_M = 5.0  # absent entities float here, above every camera (below the table they would touch it)


class World:
    """Read and (at reset) write access to one compiled scene.

    All positions are metres in the world frame; yaw is radians about world z.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, arm: ArmModel, pool: Sequence[Entity]
    ) -> None:
        self.model, self.data, self.arm = model, data, arm
        self.pool = {entity.name: entity for entity in pool}
        self._body = {e.name: model.body(e.name).id for e in pool}
        for entity in pool:
            for part in PARTS.get(entity.kind, ()):
                name = f"{entity.name}/{part}"
                self._body[name] = model.body(name).id
        self._site = model.site(ARM_PREFIX + arm.tcp_site).id
        self._is_pad = np.zeros((2, model.ngeom), bool)  # of finger 1, of finger 2
        for is_pad, geoms in zip(self._is_pad, arm.pad_geoms, strict=True):
            is_pad[[model.geom(ARM_PREFIX + geom).id for geom in geoms]] = True
        self._gripper_q = int(model.joint(ARM_PREFIX + arm.gripper_joint).qposadr[0])
        self._joint_q = np.array([int(model.joint(ARM_PREFIX + j).qposadr[0]) for j in arm.joint_names])
        self.commanded = np.zeros(3)
        self.commanded_yaw = 0.0

    # --- the arm

    @property
    def tcp(self) -> np.ndarray:
        """[3] tool centre point."""
        return self.data.site_xpos[self._site]

    @property
    def tcp_yaw(self) -> float:
        """Yaw of the closing axis relative to world y, in (-pi/2, pi/2]."""
        y_axis = self.data.site_xmat[self._site].reshape(3, 3)[:, 1]
        return wrap(math.atan2(y_axis[1], y_axis[0]) - math.pi / 2, math.pi)

    @property
    def joint_position(self) -> np.ndarray:
        return self.data.qpos[self._joint_q]

    @property
    def gripper_opening(self) -> float:
        """0 closed .. 1 open, measured."""
        arm = self.arm
        q = self.data.qpos[self._gripper_q]
        return float((q - arm.gripper_closed_q) / (arm.gripper_open_q - arm.gripper_closed_q))

    # --- things

    def present(self, name: str) -> bool:
        return self.position(name)[2] < PARKED_Z_M / 2

    def position(self, name: str) -> np.ndarray:
        """[3] centre of a free thing, base of a fixed one."""
        return self.data.xpos[self._body[name]]

    def foot(self, name: str) -> np.ndarray:
        """[3] centre of a free thing's lower end."""
        z_axis = self.data.xmat[self._body[name]].reshape(3, 3)[:, 2]
        return self.position(name) - self.pool[name].half_height * z_axis

    def yaw(self, name: str) -> float:
        """Yaw of a thing's x axis, in (-pi, pi]."""
        matrix = self.data.xmat[self._body[name]]
        return math.atan2(matrix[3], matrix[0])

    def tilt(self, name: str) -> float:
        """Angle between a thing's z axis and the vertical, rad."""
        return math.acos(max(-1.0, min(1.0, self.data.xmat[self._body[name]][8])))

    def speed(self, name: str) -> float:
        """Linear speed of a thing, m/s."""
        return float(np.linalg.norm(self.data.cvel[self._body[name]][3:]))

    def slide(self, name: str) -> float:
        """Travel of a drawer, button cap or slider (m) or of a dial (rad)."""
        return float(self.data.qpos[self.model.joint(f"{name}/slide").qposadr[0]])

    def touching(self, name: str) -> tuple[bool, bool]:
        """Whether finger 1 and finger 2 touch the thing."""
        contacts = self.data.contact
        if not len(contacts.geom):
            return False, False
        pairs = contacts.geom[contacts.dist < 0.001]
        mine = self.model.geom_bodyid[pairs] == self._body[name]
        pad = self._is_pad[:, pairs]
        first, second = (pad[..., 0] & mine[:, 1] | pad[..., 1] & mine[:, 0]).any(-1)
        return bool(first), bool(second)

    def held(self, name: str) -> bool:
        """Both fingers press on the thing."""
        return all(self.touching(name))

    def released(self, name: str) -> bool:
        """No finger touches the thing."""
        return not any(self.touching(name))

    # --- writing (reset only)

    def place(self, name: str, position: Sequence[float], yaw: float) -> None:
        """Put an entity somewhere, at rest; free things get their weight back."""
        body = self._body[name]
        quat = np.array([math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)])
        if self.pool[name].kind in FREE_KINDS:
            start = int(self.model.joint(f"{name}/free").qposadr[0])
            self.data.qpos[start : start + 3] = position
            self.data.qpos[start + 3 : start + 7] = quat
            self.model.body_gravcomp[body] = 0.0
        else:
            self.model.body_pos[body] = position
            self.model.body_quat[body] = quat

    def park(self, name: str, index: int) -> None:
        """Take an entity out of the scene: weightless, far above the table."""
        body = self._body[name]
        position = np.array([0.3 * index, 0.0, PARKED_Z_M])
        if self.pool[name].kind in FREE_KINDS:
            start = int(self.model.joint(f"{name}/free").qposadr[0])
            self.data.qpos[start : start + 7] = [*position, 1, 0, 0, 0]
            self.model.body_gravcomp[body] = 1.0
        else:
            self.model.body_pos[body] = position

    def set_slide(self, name: str, value: float) -> None:
        self.data.qpos[self.model.joint(f"{name}/slide").qposadr[0]] = value

    def paint(self, name: str, rgb: Sequence[float]) -> None:
        """Colour every paintable geom of an entity (or of one drawer)."""
        for geom in range(self.model.ngeom):
            if self.model.geom(geom).name.startswith(f"{name}/paint"):
                self.model.geom_rgba[geom] = [*rgb, 1.0]


def wrap(angle: float, period: float) -> float:
    """The equivalent angle in (-period/2, period/2]."""
    return angle - period * math.ceil(angle / period - 0.5)
