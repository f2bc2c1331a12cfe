"""Forward kinematics of an arm from any MJCF, and the scene of a suite to compare pictures with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from vla import registry
from vla.embodiment import Camera
from vla.errors import DatasetError

_TOOL_NAMES = ("tcp", "attachment_site", "grip_site", "ee", "end_effector", "gripperframe", "pinch")


@runtime_checkable
class RobotModel(Protocol):
    """What the solver asks of an arm."""

    @property
    def num_joints(self) -> int: ...

    @property
    def limits(self) -> np.ndarray:
        """[num_joints 2], rad (prismatic: m)."""
        ...

    @property
    def fixed_frame(self) -> bool:
        """Whether poses are in the frame that the data use too (a suite), not just some base frame."""
        ...

    @property
    def control_hz(self) -> float | None: ...

    def forward(self, q: np.ndarray) -> tuple[np.ndarray, Rotation]:
        """Joint angles [N num_joints] -> tool position [N 3], m, and orientation [N]."""
        ...


@runtime_checkable
class SceneModel(RobotModel, Protocol):
    """An arm whose cameras can be simulated."""

    @property
    def cameras(self) -> tuple[Camera, ...]: ...

    def render(self, q: np.ndarray, camera: str, size: int) -> np.ndarray:
        """uint8 [size size 3]: the arm at ``q`` over an empty table."""
        ...

    def camera_pose(self, q: np.ndarray, camera: str) -> tuple[np.ndarray, np.ndarray, float]:
        """Position [3], rotation [3 3] (x right, y up, looking along -z) and vertical field of view, rad."""
        ...


class MujocoRobot:
    """The joints between the world and a tool site.

    Args:
        model: a compiled MJCF.
        site: name of the tool site; empty: one whose name says so.

    Raises:
        DatasetError: no such site, or none that is moved by joints.
    """

    fixed_frame = False
    control_hz: float | None = None

    def __init__(self, model: mujoco.MjModel, site: str = "") -> None:
        self.model, self.data = model, mujoco.MjData(model)
        self._site = _tool_site(model, site)
        joints, body = [], int(model.site_bodyid[self._site])
        while body:
            first, count = int(model.body_jntadr[body]), int(model.body_jntnum[body])
            joints[:0] = range(first, first + count)
            body = int(model.body_parentid[body])
        kinds = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
        self._joints = [j for j in joints if int(model.jnt_type[j]) in kinds]
        if not self._joints:
            raise DatasetError(
                f"Site {model.site(self._site).name!r} is moved by no joint; name another one."
            )
        self._address = model.jnt_qposadr[self._joints]

    @classmethod
    def from_mjcf(cls, path: Path, site: str = "") -> MujocoRobot:
        if not path.exists():
            raise DatasetError(f"There is no robot model at {path}.")
        try:
            return cls(mujoco.MjModel.from_xml_path(str(path)), site)
        except ValueError as error:
            raise DatasetError(f"{path} is no MJCF that MuJoCo can read: {error}") from error

    @property
    def num_joints(self) -> int:
        return len(self._joints)

    @property
    def limits(self) -> np.ndarray:
        limited = self.model.jnt_limited[self._joints].astype(bool)
        return np.where(limited[:, None], self.model.jnt_range[self._joints], [-2 * np.pi, 2 * np.pi])

    def forward(self, q: np.ndarray) -> tuple[np.ndarray, Rotation]:
        positions, matrices = np.empty((len(q), 3)), np.empty((len(q), 3, 3))
        for i, angles in enumerate(q):
            self._place(angles)
            positions[i] = self.data.site_xpos[self._site]
            matrices[i] = self.data.site_xmat[self._site].reshape(3, 3)
        return positions, Rotation.from_matrix(matrices)

    def _place(self, q: np.ndarray) -> None:
        self.data.qpos[self._address] = q
        mujoco.mj_kinematics(self.model, self.data)


class SuiteRobot(MujocoRobot):
    """The arm of a suite, in the suite's own scene with nothing on the table."""

    fixed_frame = True

    def __init__(self, env: Any) -> None:
        env.reset(seed=0)
        super().__init__(env.model)
        self._env, self.data = env, env.data
        self.control_hz = float(env.embodiment.control_hz)
        self.cameras = cast(tuple[Camera, ...], env.embodiment.cameras)
        free = np.flatnonzero(self.model.jnt_type == int(mujoco.mjtJoint.mjJNT_FREE))
        for i, joint in enumerate(free):  # out of sight
            self.data.qpos[self.model.jnt_qposadr[joint] : self.model.jnt_qposadr[joint] + 3] = (i, 0, 50)

    def render(self, q: np.ndarray, camera: str, size: int) -> np.ndarray:
        self._place(q)
        mujoco.mj_forward(self.model, self.data)
        return self._env.render_frame(size, camera)

    def camera_pose(self, q: np.ndarray, camera: str) -> tuple[np.ndarray, np.ndarray, float]:
        self._place(q)
        mujoco.mj_camlight(self.model, self.data)
        number = _camera_number(self.model, camera)
        matrix = self.data.cam_xmat[number].reshape(3, 3)
        return (
            self.data.cam_xpos[number].copy(),
            matrix.copy(),
            float(np.deg2rad(self.model.cam_fovy[number])),
        )


def suite_robot(suite: str, arm: str) -> SuiteRobot:
    """The arm of a registered suite; close the env by dropping it."""
    made = registry.suite(suite)
    return SuiteRobot(made.make(made.tasks[0], arm))


def _tool_site(model: mujoco.MjModel, name: str) -> int:
    names = [model.site(i).name for i in range(model.nsite)]
    if name:
        if name not in names:
            raise DatasetError(f"The robot model has no site {name!r}; it has {', '.join(names) or 'none'}.")
        return names.index(name)
    for wanted in _TOOL_NAMES:
        found = [i for i, n in enumerate(names) if n.split("/")[-1].removeprefix("arm_") == wanted]
        if found:
            return found[0]
    if len(names) == 1:
        return 0
    raise DatasetError(
        f"Which site of the robot model is the tool? It has {', '.join(names) or 'none'}; none is called "
        f"{', '.join(_TOOL_NAMES)}. Name it."
    )


def _camera_number(model: mujoco.MjModel, camera: str) -> int:
    for i in range(model.ncam):
        if model.camera(i).name.split("/")[-1] == camera:
            return i
    raise DatasetError(f"The scene has no camera {camera!r}.")
