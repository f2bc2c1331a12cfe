"""Two-finger grippers whose fingertips move along an arc and stay parallel (a parallelogram per finger).

Each finger is a knuckle on a hinge and a fingertip that turns back by the same angle, so that the pads stay
parallel while both fingers, coupled one to one, close. The finger below stands on the gripper's +y side; the
other is its half turn about z.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from vla_envs.tabletop.arms import parts
from vla_envs.tabletop.arms.parts import Rgb, Shape, Vec3

SIDES = ("left", "right")  # +y and -y


@dataclass(frozen=True, kw_only=True)
class MassProperties:
    """Mass (kg), centre of mass (m) and principal inertia (kg m^2) of a finger part, in its own frame."""

    mass: float
    centre_of_mass: Vec3
    inertia: Vec3
    inertia_quaternion: parts.Quat = parts.IDENTITY


@dataclass(frozen=True, kw_only=True)
class LinkageGripper:
    """A gripper in the frame of its base: z out of the gripper, fingers closing along y.

    Attributes:
        pivot: (y, z) of the knuckle's hinge, m.
        inner_pivot: (y, z) of the second, inner rod of the parallelogram, m; it only shows in detailed arms.
        rod: (y, z) from that hinge to the fingertip's hinge with the gripper open, m.
        closing_angle: knuckle angle from open (0) to closed, rad.
        pad_face: y of the pad's surface in the fingertip's frame, m (negative: towards the middle).
        pad_bottom, pad_top: z of both ends of the pad in the fingertip's frame, m.
        tip_clearance: the tcp lies this far before the end of the closed pads, m.
        stiffness, damping, torque_limit: the drive, N m/rad, N m s/rad, N m over both knuckles.
    """

    pivot: tuple[float, float]
    inner_pivot: tuple[float, float]
    rod: tuple[float, float]
    closing_angle: float
    pad_face: float
    pad_bottom: float
    pad_top: float
    pad_half_width: float
    pad_rgb: Rgb
    tip_clearance: float
    knuckle: MassProperties
    fingertip: MassProperties
    knuckle_shapes: tuple[Shape, ...]
    fingertip_shapes: tuple[Shape, ...]
    stiffness: float
    damping: float
    torque_limit: float

    def rod_at(self, angle: float) -> tuple[float, float]:
        """(y, z) from the knuckle's hinge to the fingertip's at a knuckle angle, m."""
        (y, z), cos, sin = self.rod, np.cos(angle), np.sin(angle)
        return float(y * cos - z * sin), float(y * sin + z * cos)

    def gap(self, angle: float) -> float:
        """Distance between the pads at a knuckle angle, m."""
        return 2.0 * (self.pivot[0] + self.rod_at(angle)[0] + self.pad_face)

    @property
    def tcp_height(self) -> float:
        """z of the tcp in the gripper's frame, m."""
        return self.pivot[1] + self.rod_at(self.closing_angle)[1] + self.pad_top - self.tip_clearance


PAD_HALF_THICKNESS = 0.004


def add_linkage_gripper(
    spec: mujoco.MjSpec, hand: mujoco.MjsBody, gripper: LinkageGripper
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Adds fingers, couplings and the drive under ``hand``; returns the pad geoms of both fingers."""
    pads = tuple(_add_finger(spec, hand, gripper, side) for side in SIDES)
    bodies = [f"{side}_{part}" for side in SIDES for part in ("knuckle", "fingertip")]
    parts.exclude_contacts(spec, hand.name, *bodies)
    parts.add_gripper_drive(
        spec,
        ("left_driver_joint", "right_driver_joint"),
        stiffness=gripper.stiffness,
        damping=gripper.damping,
        force_limit=gripper.torque_limit,
        control_range=(0.0, gripper.closing_angle),
    )
    return pads[0], pads[1]


def _add_finger(
    spec: mujoco.MjSpec, hand: mujoco.MjsBody, gripper: LinkageGripper, side: str
) -> tuple[str, ...]:
    left = side == "left"
    pivot_y, pivot_z = gripper.pivot
    knuckle = hand.add_body(
        name=f"{side}_knuckle",
        pos=(0.0, pivot_y if left else -pivot_y, pivot_z),
        quat=parts.IDENTITY if left else (0.0, 0.0, 0.0, 1.0),
        gravcomp=1.0,
    )
    tip = knuckle.add_body(name=f"{side}_fingertip", pos=(0.0, *gripper.rod), gravcomp=1.0)
    for body, properties, shapes in (
        (knuckle, gripper.knuckle, gripper.knuckle_shapes),
        (tip, gripper.fingertip, gripper.fingertip_shapes),
    ):
        parts.set_inertia(
            body,
            properties.mass,
            properties.centre_of_mass,
            properties.inertia,
            properties.inertia_quaternion,
        )
        for shape in shapes:
            parts.add_shape(body, shape)
    driver = knuckle.add_joint(
        name=f"{side}_driver_joint",
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=(1.0, 0.0, 0.0),
        range=(0.0, gripper.closing_angle),
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        armature=0.005,
        damping=0.1,
    )
    driver.solref_limit, driver.solimp_limit = parts.STIFF_SOLREF, parts.STIFF_SOLIMP
    tip.add_joint(
        name=f"{side}_tip_joint",
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=(-1.0, 0.0, 0.0),
        armature=0.001,
        damping=0.001,
    )
    parts.couple_joints(spec, f"{side}_tip_joint", f"{side}_driver_joint", ratio=1.0)
    middle, names = (gripper.pad_bottom + gripper.pad_top) / 2.0, []
    for part, (low, high) in (
        ("outer", (middle, gripper.pad_top)),
        ("inner", (gripper.pad_bottom, middle)),
    ):
        centre = (0.0, gripper.pad_face + PAD_HALF_THICKNESS, (low + high) / 2.0)
        half = (gripper.pad_half_width, PAD_HALF_THICKNESS, (high - low) / 2.0)
        names.append(f"{side}_pad_{part}")
        parts.add_pad(tip, names[-1], centre, half, gripper.pad_rgb)
    return tuple(names)


def add_inner_rods(spec: mujoco.MjSpec, hand: mujoco.MjsBody, gripper: LinkageGripper) -> None:
    """Adds the parallelograms' inner rods, bodies ``left_inner_rod`` and ``right_inner_rod``, for looks."""
    for side in SIDES:
        left = side == "left"
        y, z = gripper.inner_pivot
        rod = hand.add_body(
            name=f"{side}_inner_rod",
            pos=(0.0, y if left else -y, z),
            quat=parts.IDENTITY if left else (0.0, 0.0, 0.0, 1.0),
            gravcomp=1.0,
        )
        parts.set_inertia(rod, 0.001, parts.ORIGIN, (1e-7, 1e-7, 1e-7))
        rod.add_joint(
            name=f"{side}_inner_joint",
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=(1.0, 0.0, 0.0),
            armature=0.001,
            damping=0.001,
        )
        parts.couple_joints(spec, f"{side}_inner_joint", f"{side}_driver_joint", ratio=1.0)
