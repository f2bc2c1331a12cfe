"""What the safety envelope looks at, made of an arm's model: its shapes and the table that it stands on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import mujoco

from vla.control.geometry import ArmGeometry
from vla.errors import EmbodimentError

#: Joints between two bodies that are made to touch: neighbours, and those one joint further.
NEAR = 2
TABLE = "table"


def arm_geometry(path: str | Path, joint_names: Sequence[str], tcp_site: str) -> ArmGeometry:
    """Shapes of the arm in the MJCF file at ``path``; see :func:`geometry_of`.

    Raises:
        EmbodimentError: no such file, joint or site, or the model holds meshes.
    """
    try:
        spec = mujoco.MjSpec.from_file(str(path))
    except (ValueError, OSError) as error:
        raise EmbodimentError(f"The arm model {path} cannot be loaded: {error}") from error
    return geometry_of(spec, joint_names, tcp_site)


def geometry_of(spec: mujoco.MjSpec, joint_names: Sequence[str], tcp_site: str) -> ArmGeometry:
    """Shapes of an arm on a table whose top is at z = 0 of its world.

    Every shape of the model counts. Not looked at are bodies with fewer than ``NEAR`` joints between them
    (their shapes overlap where they are joined), the parts of the gripper among themselves, the base on the
    table, and the gripper on the table: it works there, and the box keeps its centre above.

    Args:
        spec: without meshes; changed.
        joint_names: from base to wrist.
        tcp_site: at the tool centre, on the gripper.

    Raises:
        EmbodimentError: no such joint or site, or the model holds meshes.
    """
    site = spec.site(tcp_site)
    missing = [name for name in joint_names if spec.joint(name) is None] + [tcp_site] * (site is None)
    if missing or spec.meshes:
        wrong = f"lacks {missing}" if missing else "has meshes, which are not looked at"
        raise EmbodimentError(f"The arm model {spec.modelname!r} {wrong}.")
    for exclude in list(spec.excludes):
        spec.delete(exclude)
    for geom in spec.geoms:
        geom.contype = geom.conaffinity = 1
    spec.worldbody.add_geom(name=TABLE, type=mujoco.mjtGeom.mjGEOM_PLANE, size=[2, 2, 0.1])
    chain = {name: _joints_above(spec, name) for name in (body.name for body in _bodies(spec))}
    gripper = {name for name, above in chain.items() if above[: len(joint_names)] == list(joint_names)}
    for name, other in itertools.combinations(chain, 2):
        apart = len(set(chain[name]) ^ set(chain[other]))
        if apart < NEAR or {name, other} <= gripper:
            spec.add_exclude(bodyname1=name, bodyname2=other)
    for name, above in chain.items():
        if name in gripper or not above:
            spec.add_exclude(bodyname1="world", bodyname2=name)
    spec.compile()
    return ArmGeometry(mjcf=spec.to_xml(), joints=tuple(joint_names), tcp_site=tcp_site)


def _bodies(spec: mujoco.MjSpec) -> Iterator[mujoco.MjsBody]:
    return (body for body in spec.bodies if body.name != "world")


def _joints_above(spec: mujoco.MjSpec, name: str) -> list[str]:
    """Names of the joints from the world to a body."""
    body, found = spec.body(name), []
    while body.name != "world":
        found = [joint.name for joint in body.joints] + found
        body = body.parent
    return found
