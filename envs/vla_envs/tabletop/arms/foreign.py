"""Arms described by somebody else's MJCF and an ``arm.json``: no code needed.

``arm.json`` says which of the model's names play which part; its keys are those of :class:`ArmFile`.
Everything the tabletop relies on is checked when the arm is loaded, so that a wrong axis or name is an
error with its reason and not an arm that never grasps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from vla.errors import EnvError, UnknownNameError
from vla_envs.tabletop.arms import parts
from vla_envs.tabletop.arms.ik import ToolIK
from vla_envs.tabletop.arms.model import TCP_SITE, WRIST_CAMERA, ArmModel
from vla_envs.tabletop.arms.parts import Quat, Vec3
from vla_envs.tabletop.arms.verify import verify_arm

VLA_ARM_PATH = "VLA_ARM_PATH"
ARM_FILE = "arm.json"
HIDDEN_GROUP = 4  # of sites, which no camera shall show


@dataclass(frozen=True, kw_only=True)
class Gripper:
    """The gripper's actuator and the joint that tells its opening; ``width_m`` is the widest gap."""

    actuator: str
    joint: str
    open_control: float
    closed_control: float
    open_position: float
    closed_position: float
    width_m: float


@dataclass(frozen=True, kw_only=True)
class Tcp:
    """The tool centre point on a body: z out of the gripper, y along the closing direction (m, w x y z)."""

    body: str
    position: Vec3
    quaternion: Quat = parts.IDENTITY


@dataclass(frozen=True, kw_only=True)
class WristCamera:
    """Where the wrist camera is and what it looks at, in the tcp frame (m)."""

    eye: Vec3 = (0.115, 0.0, -0.085)
    aim: Vec3 = (0.015, 0.0, 0.01)
    fovy_deg: float = 72.0


@dataclass(frozen=True, kw_only=True)
class ArmFile:
    """The contents of an ``arm.json``; see :class:`ArmModel` for the meaning of each key.

    ``pads`` lists, for each finger, geoms by name or bodies whose colliding geoms all count.
    """

    name: str
    mjcf: str
    joints: tuple[str, ...]
    actuators: tuple[str, ...]
    gripper: Gripper
    pads: tuple[tuple[str, ...], tuple[str, ...]]
    tcp: Tcp
    wrist_camera: WristCamera = WristCamera()
    home_q: tuple[float, ...]
    base_position: Vec3
    object_half_extent: tuple[float, float]
    max_tool_height: float = 0.25
    tool_down_weight: float = 1.0
    closed_fingertips: Vec3 = parts.ORIGIN

    @classmethod
    def read(cls, path: Path) -> ArmFile:
        """The file at ``path``, every key checked."""
        try:
            data = json.loads(path.read_text())
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise EnvError(f"cannot read the arm file {path}: {error}") from error
        return _decode(cls, data, str(path))


def load_foreign_arm(path: str | Path) -> ArmModel:
    """A fresh arm from a folder with an ``arm.json`` in it, or from such a file.

    Raises:
        EnvError: a file cannot be read, a value has the wrong shape, or the arm does not do what it says.
        UnknownNameError: a key, joint, actuator, body or geom that does not exist.
    """
    arm = _build(Path(path))
    verify_arm(arm)
    return arm


def find_home_q(path: str | Path, *, height_m: float = 0.15) -> np.ndarray:
    """Angles for ``home_q`` near those in the file: tool down, ``height_m`` over the workspace centre."""
    arm = _build(Path(path))
    scene = mujoco.MjSpec()
    scene.attach(arm.spec, prefix="arm/", frame=scene.worldbody.add_frame(pos=arm.base_position))
    joints = [f"arm/{name}" for name in arm.joint_names]
    ik = ToolIK(scene.compile(), joints, "arm/tcp", arm.tool_down_weight, home_q=arm.home_q)
    target = np.array([0.0, 0.0, height_m])
    q = ik.solve(arm.home_q, target, 0.0, iterations=300)
    missed = float(np.linalg.norm(ik.tcp_pose(q)[0] - target))
    if missed > 0.002:
        raise EnvError(
            f"arm {arm.name!r} stays {1e3 * missed:.0f} mm from {height_m} m over the workspace centre: "
            "start from another home_q or move base_position"
        )
    return q


def _build(path: Path) -> ArmModel:
    """The arm as described, its conventions unchecked."""
    file = path / ARM_FILE if path.is_dir() else path
    described = ArmFile.read(file)
    spec = _read_spec(file.parent / described.mjcf)
    _check_names(spec, described)
    tool = spec.body(described.tcp.body)
    _replace(spec, spec.site(TCP_SITE), spec.camera(WRIST_CAMERA))
    parts.add_tcp(tool, described.tcp.position, described.tcp.quaternion)
    camera = described.wrist_camera
    parts.add_wrist_camera(
        tool,
        described.tcp.position,
        described.tcp.quaternion,
        eye=camera.eye,
        aim=camera.aim,
        fovy_deg=camera.fovy_deg,
    )
    gripper = described.gripper
    return ArmModel(
        name=described.name,
        spec=spec,
        joint_names=described.joints,
        actuator_names=described.actuators,
        gripper_actuator=gripper.actuator,
        gripper_open_ctrl=gripper.open_control,
        gripper_closed_ctrl=gripper.closed_control,
        gripper_joint=gripper.joint,
        gripper_open_q=gripper.open_position,
        gripper_closed_q=gripper.closed_position,
        pad_geoms=(_pad_geoms(spec, described.pads[0]), _pad_geoms(spec, described.pads[1])),
        home_q=np.array(described.home_q),
        base_position=described.base_position,
        object_half_extent=described.object_half_extent,
        max_gripper_width=gripper.width_m,
        tool_down_weight=described.tool_down_weight,
        closed_fingertips=described.closed_fingertips,
        max_tool_height=described.max_tool_height,
    )


def foreign_arm_files() -> dict[str, Path]:
    """Name -> ``arm.json`` of every arm in the folders of ``VLA_ARM_PATH`` and in their subfolders."""
    found: dict[str, Path] = {}
    for folder in filter(None, os.environ.get(VLA_ARM_PATH, "").split(os.pathsep)):
        root = Path(folder)
        if not root.is_dir():
            raise EnvError(f"{VLA_ARM_PATH} names {folder!r}, which is not a folder")
        for file in sorted([*root.glob(ARM_FILE), *root.glob(f"*/{ARM_FILE}")]):
            name = ArmFile.read(file).name
            if name in found:
                raise EnvError(f"two arms are called {name!r}: {found[name]} and {file}; rename one")
            found[name] = file
    return found


def _read_spec(path: Path) -> mujoco.MjSpec:
    """The model without what belongs to a scene: options, keyframes, lights, floor, cameras of the world."""
    try:
        spec = mujoco.MjSpec.from_file(str(path))
    except (ValueError, OSError) as error:
        raise EnvError(f"MuJoCo cannot read {path}: {error}") from error
    plain = mujoco.MjSpec()
    spec.option, spec.authored = plain.option, plain.authored
    scenery = [*spec.keys, *spec.lights, *spec.worldbody.geoms, *spec.worldbody.cameras]
    _replace(spec, *scenery)
    for body in spec.bodies:
        body.gravcomp = 1.0
    for site in spec.sites:
        site.group = HIDDEN_GROUP
    return spec


def _replace(spec: mujoco.MjSpec, *elements: Any) -> None:
    for element in elements:
        if element is not None:
            spec.delete(element)


def _check_names(spec: mujoco.MjSpec, arm: ArmFile) -> None:
    known = {
        "joint": [j.name for j in spec.joints],
        "actuator": [a.name for a in spec.actuators],
        "body": [b.name for b in spec.bodies],
        "geom or body": [e.name for e in (*spec.geoms, *spec.bodies) if e.name],
    }
    wanted = {
        "joint": (*arm.joints, arm.gripper.joint),
        "actuator": (*arm.actuators, arm.gripper.actuator),
        "geom or body": (*arm.pads[0], *arm.pads[1]),
        "body": (arm.tcp.body,),
    }
    for kind, names in wanted.items():
        for name in names:
            if name not in known[kind]:
                raise UnknownNameError(f"{kind} in {arm.mjcf} of arm {arm.name!r}", name, known[kind])
    if not len(arm.joints) == len(arm.actuators) == len(arm.home_q):
        raise EnvError(
            f"arm {arm.name!r}: joints, actuators and home_q must be equally many, "
            f"given {len(arm.joints)}, {len(arm.actuators)} and {len(arm.home_q)}"
        )


def _pad_geoms(spec: mujoco.MjSpec, names: tuple[str, ...]) -> tuple[str, ...]:
    """Geom names of a finger; the colliding geoms of a body named here get names where they have none."""
    geoms = []
    for name in names:
        if spec.geom(name) is not None:
            geoms.append(name)
            continue
        for index, geom in enumerate(g for g in spec.body(name).geoms if g.contype and g.conaffinity):
            geom.name = geom.name or f"{name}/pad{index}"
            geoms.append(geom.name)
    if not geoms:
        raise EnvError(f"the finger {', '.join(names)} has no geom that takes part in contact")
    return tuple(geoms)


# --- strict decoding of the file

_NESTED = {"gripper": Gripper, "tcp": Tcp, "wrist_camera": WristCamera}
_VECTORS = {
    "position": 3,
    "quaternion": 4,
    "eye": 3,
    "aim": 3,
    "base_position": 3,
    "object_half_extent": 2,
    "closed_fingertips": 3,
    "home_q": None,
}


def _decode(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise EnvError(f"{where}: expected an object with the keys of {cls.__name__}, given {data!r}")
    known = {f.name: f for f in fields(cls)}
    for key in data:
        if key not in known:
            raise UnknownNameError(f"key in {where}", key, known)
    required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in required if name not in data]:
        raise EnvError(f"{where} lacks the keys {', '.join(missing)}")
    return cls(**{key: _value(key, value, f"{where}: {key}") for key, value in data.items()})


def _value(key: str, value: Any, where: str) -> Any:
    if key in _NESTED:
        return _decode(_NESTED[key], value, where)
    if key in _VECTORS:
        return _numbers(value, _VECTORS[key], where)
    if key in ("joints", "actuators"):
        return _names(value, where)
    if key == "pads":
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
            raise EnvError(f"{where}: expected two lists of geom names, one a finger, given {value!r}")
        return tuple(_names(names, where) for names in value)
    if key in ("name", "mjcf", "actuator", "joint", "body"):
        if not isinstance(value, str) or not value:
            raise EnvError(f"{where}: expected a name, given {value!r}")
        return value
    return _numbers([value], 1, where)[0]


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise EnvError(f"{where}: expected a list of names, given {value!r}")
    return tuple(value)


def _numbers(value: Any, count: int | None, where: str) -> tuple[float, ...]:
    good = isinstance(value, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in value
    )
    if not good or (count is not None and len(value) != count) or not np.isfinite(value).all():
        raise EnvError(f"{where}: expected {count or 'a list of'} finite number(s), given {value!r}")
    return tuple(float(v) for v in value)
