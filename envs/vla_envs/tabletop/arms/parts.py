"""The pieces an arm's constants are written in, and the functions that put them into an ``MjSpec``.

Lengths in m, angles in rad, masses in kg, inertias in kg m^2 about the centre of mass in the link's frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from vla_envs.tabletop.arms.model import TCP_SITE, WRIST_CAMERA

Vec3 = tuple[float, float, float]
Quat = tuple[float, float, float, float]
Rgb = tuple[float, float, float]

ORIGIN: Vec3 = (0.0, 0.0, 0.0)
IDENTITY: Quat = (1.0, 0.0, 0.0, 0.0)

VISUAL_GROUP = 2
GEOM = mujoco.mjtGeom

# Rubber fingertips: friction (sliding, torsional in m, rolling in m) with torsion (condim 4); priority 1
# makes the pad's numbers count whatever it touches. Stiff contact, as the menagerie 2F-85 pads have it.
PAD_FRICTION = (1.8, 0.02, 0.0001)
PAD_SOLREF = (0.004, 1.0)
PAD_SOLIMP = (0.95, 0.99, 0.001, 0.5, 2.0)
STIFF_SOLREF = (0.005, 1.0)
STIFF_SOLIMP = (0.95, 0.99, 0.001, 0.5, 2.0)


@dataclass(frozen=True)
class Shape:
    """A primitive: ``size`` as MuJoCo has it; ``ends`` (two points) replaces position and quaternion."""

    kind: mujoco.mjtGeom
    size: tuple[float, ...]
    rgb: Rgb
    position: Vec3 = ORIGIN
    quaternion: Quat = IDENTITY
    ends: tuple[Vec3, Vec3] | None = None
    collides: bool = False


def capsule(start: Vec3, end: Vec3, radius: float, rgb: Rgb) -> Shape:
    """A rounded rod between two points."""
    return Shape(GEOM.mjGEOM_CAPSULE, (radius,), rgb, ends=(start, end))


def cylinder(start: Vec3, end: Vec3, radius: float, rgb: Rgb) -> Shape:
    """A flat-ended rod between two points."""
    return Shape(GEOM.mjGEOM_CYLINDER, (radius,), rgb, ends=(start, end))


def sphere(centre: Vec3, radius: float, rgb: Rgb) -> Shape:
    """A ball."""
    return Shape(GEOM.mjGEOM_SPHERE, (radius,), rgb, centre)


def ellipsoid(centre: Vec3, semi_axes: Vec3, rgb: Rgb, quaternion: Quat = IDENTITY) -> Shape:
    """An ellipsoid by its semi-axes."""
    return Shape(GEOM.mjGEOM_ELLIPSOID, semi_axes, rgb, centre, quaternion)


def box(centre: Vec3, half: Vec3, rgb: Rgb, quaternion: Quat = IDENTITY, *, collides: bool = False) -> Shape:
    """A box by its half extents."""
    return Shape(GEOM.mjGEOM_BOX, half, rgb, centre, quaternion, collides=collides)


@dataclass(frozen=True, kw_only=True)
class Hinge:
    """A revolute joint: limits in rad, armature in kg m^2, damping in N m s/rad, dry friction in N m."""

    name: str
    limits: tuple[float, float]
    axis: Vec3 = (0.0, 0.0, 1.0)
    armature: float = 0.1
    damping: float = 1.0
    frictionloss: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Servo:
    """A position servo: torque = stiffness (target - q) - damping dq, limited to +-torque_limit (N m)."""

    stiffness: float
    damping: float
    torque_limit: float


@dataclass(frozen=True, kw_only=True)
class Link:
    """A rigid link in its parent's frame; ``inertia`` is (xx, yy, zz) or (xx, yy, zz, xy, xz, yz)."""

    name: str
    position: Vec3 = ORIGIN
    quaternion: Quat = IDENTITY
    mass: float
    centre_of_mass: Vec3 = ORIGIN
    inertia: tuple[float, ...]
    inertia_quaternion: Quat = IDENTITY
    hinge: Hinge | None = None
    servo: Servo | None = None
    shapes: tuple[Shape, ...] = ()


def new_spec(name: str) -> mujoco.MjSpec:
    """An empty spec whose angles are in rad."""
    spec = mujoco.MjSpec()
    spec.modelname = name
    spec.compiler.degree = False
    return spec


def add_link(parent: mujoco.MjsBody, link: Link) -> mujoco.MjsBody:
    """Adds a link under ``parent``: body, inertia, hinge and shapes; gravity is compensated."""
    body = parent.add_body(name=link.name, pos=link.position, quat=link.quaternion, gravcomp=1.0)
    set_inertia(body, link.mass, link.centre_of_mass, link.inertia, link.inertia_quaternion)
    if link.hinge is not None:
        hinge = link.hinge
        body.add_joint(
            name=hinge.name,
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=hinge.axis,
            range=hinge.limits,
            limited=mujoco.mjtLimited.mjLIMITED_TRUE,
            armature=hinge.armature,
            damping=hinge.damping,
            frictionloss=hinge.frictionloss,
        )
    for shape in link.shapes:
        add_shape(body, shape)
    return body


def add_chain(parent: mujoco.MjsBody, links: Sequence[Link]) -> mujoco.MjsBody:
    """Adds links one under the other; returns the last body."""
    for link in links:
        parent = add_link(parent, link)
    return parent


def set_inertia(
    body: mujoco.MjsBody,
    mass: float,
    centre_of_mass: Vec3,
    inertia: tuple[float, ...],
    quaternion: Quat = IDENTITY,
) -> None:
    """Gives a body its published mass and inertia, so that its shapes count for looks and contact alone."""
    body.explicitinertial = True
    body.mass = mass
    body.ipos = centre_of_mass
    if len(inertia) == 6:
        body.fullinertia = inertia
    else:
        body.inertia, body.iquat = inertia, quaternion


def add_shape(body: mujoco.MjsBody, shape: Shape) -> mujoco.MjsGeom:
    """Adds a visible primitive; it takes part in contact only where it ``collides``."""
    size = np.zeros(3)
    size[: len(shape.size)] = shape.size
    geom = body.add_geom(type=shape.kind, size=size, rgba=(*shape.rgb, 1.0), group=VISUAL_GROUP)
    if shape.ends is None:
        geom.pos, geom.quat = shape.position, shape.quaternion
    else:
        geom.fromto = np.concatenate(shape.ends)
    geom.contype = geom.conaffinity = int(shape.collides)
    return geom


def add_pad(body: mujoco.MjsBody, name: str, centre: Vec3, half: Vec3, rgb: Rgb) -> mujoco.MjsGeom:
    """Adds a fingertip pad: a box of rubber that takes part in contact."""
    geom = add_shape(body, box(centre, half, rgb, collides=True))
    geom.name, geom.condim, geom.priority = name, 4, 1
    geom.friction, geom.solref, geom.solimp = PAD_FRICTION, PAD_SOLREF, PAD_SOLIMP
    return geom


def add_servos(spec: mujoco.MjSpec, links: Sequence[Link]) -> tuple[str, ...]:
    """Adds a position servo for each link that has one, named as its joint; returns their names."""
    names = []
    for link in links:
        if link.hinge is None or link.servo is None:
            continue
        limit = link.servo.torque_limit
        actuator = spec.add_actuator(
            name=link.hinge.name,
            target=link.hinge.name,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            ctrlrange=link.hinge.limits,
            ctrllimited=mujoco.mjtLimited.mjLIMITED_TRUE,
            forcerange=(-limit, limit),
            forcelimited=mujoco.mjtLimited.mjLIMITED_TRUE,
        )
        actuator.set_to_position(kp=link.servo.stiffness, kv=link.servo.damping)
        names.append(link.hinge.name)
    return tuple(names)


def add_gripper_drive(
    spec: mujoco.MjSpec,
    joints: tuple[str, str],
    *,
    stiffness: float,
    damping: float,
    force_limit: float,
    control_range: tuple[float, float],
) -> str:
    """Couples the joints of the two fingers one to one and drives both by one position servo.

    The servo pulls a tendon that is the mean of both joints, so that each finger gets half its force
    and the equality has little to do. Returns the actuator's name, ``gripper``.
    """
    tendon = spec.add_tendon(name="fingers")
    for joint in joints:
        tendon.wrap_joint(joint, 0.5)
    couple_joints(spec, joints[1], joints[0], ratio=1.0)
    actuator = spec.add_actuator(
        name="gripper",
        target="fingers",
        trntype=mujoco.mjtTrn.mjTRN_TENDON,
        ctrlrange=control_range,
        ctrllimited=mujoco.mjtLimited.mjLIMITED_TRUE,
        forcerange=(-force_limit, force_limit),
        forcelimited=mujoco.mjtLimited.mjLIMITED_TRUE,
    )
    actuator.set_to_position(kp=stiffness, kv=damping)
    return "gripper"


def couple_joints(spec: mujoco.MjSpec, follower: str, leader: str, *, ratio: float) -> None:
    """Equality ``follower = ratio * leader``, stiff."""
    equality = spec.add_equality(
        name=f"{follower}_follows_{leader}",
        type=mujoco.mjtEq.mjEQ_JOINT,
        name1=follower,
        name2=leader,
        objtype=mujoco.mjtObj.mjOBJ_JOINT,
        solref=STIFF_SOLREF,
        solimp=STIFF_SOLIMP,
    )
    data = np.zeros(len(equality.data))
    data[1] = ratio
    equality.data = data


def add_tcp(body: mujoco.MjsBody, position: Vec3, quaternion: Quat = IDENTITY) -> None:
    """Adds the tool-centre-point site."""
    body.add_site(name=TCP_SITE, pos=position, quat=quaternion, size=(0.003, 0.003, 0.003), group=4)


def add_wrist_camera(
    body: mujoco.MjsBody,
    tcp_position: Vec3,
    tcp_quaternion: Quat = IDENTITY,
    *,
    eye: Vec3 = (0.115, 0.0, -0.085),
    aim: Vec3 = (0.015, 0.0, 0.01),
    fovy_deg: float = 72.0,
) -> None:
    """Adds the wrist camera at ``eye``, looking at ``aim``, both in the tcp frame (m); image-up is tool x.

    The same pose in the tcp frame on every arm gives every arm the same picture of what it grasps.
    """
    z_axis = np.asarray(eye) - np.asarray(aim)
    z_axis /= np.linalg.norm(z_axis)
    x_axis = np.cross([1.0, 0.0, 0.0], z_axis)
    x_axis /= np.linalg.norm(x_axis)
    in_tcp = np.column_stack([x_axis, np.cross(z_axis, x_axis), z_axis])
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, np.asarray(tcp_quaternion, dtype=float))
    rotation = rotation.reshape(3, 3)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, (rotation @ in_tcp).ravel())
    position = np.asarray(tcp_position) + rotation @ np.asarray(eye)
    body.add_camera(name=WRIST_CAMERA, pos=position, quat=quaternion, fovy=fovy_deg)


def exclude_contacts(spec: mujoco.MjSpec, *bodies: str) -> None:
    """No contact between any two of these bodies."""
    for i, first in enumerate(bodies):
        for second in bodies[i + 1 :]:
            spec.add_exclude(name=f"{first}_{second}", bodyname1=first, bodyname2=second)
