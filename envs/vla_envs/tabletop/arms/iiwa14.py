"""KUKA LBR iiwa 14 R820 with a Schunk WSG 50, the pairing of many laboratories.

Sources. Link frames (0.36, 0.42 and 0.40 m from axis to axis), joint limits and torques: KUKA LBR iiwa 14
R820 specification; masses and inertias: Drake's iiwa14 description, as used by MuJoCo Menagerie. Gripper:
Schunk WSG 50-110 data sheet (146 x 50 x 72.5 mm housing, 1.2 kg, two jaws of 55 mm stroke, up to 80 N); its
jaws open to 84 mm here, as far as the other arms' grippers do. Servo gains are our own.
"""

from __future__ import annotations

import mujoco
import numpy as np

from vla_envs.tabletop.arms import parts
from vla_envs.tabletop.arms.model import ArmModel
from vla_envs.tabletop.arms.parts import Hinge, Link, Servo, box, capsule, cylinder

ORANGE = (0.98, 0.46, 0.10)
GREY = (0.58, 0.59, 0.61)
LIGHT = (0.78, 0.79, 0.80)
DARK = (0.20, 0.20, 0.22)

HALF = 0.7071067811865476
TURNED = (0.0, 0.0, HALF, HALF)
X90 = (HALF, HALF, 0.0, 0.0)

FIRST = Servo(stiffness=14000.0, damping=420.0, torque_limit=320.0)
SECOND = Servo(stiffness=9000.0, damping=260.0, torque_limit=176.0)
FIFTH = Servo(stiffness=6000.0, damping=160.0, torque_limit=110.0)
WRIST = Servo(stiffness=3000.0, damping=70.0, torque_limit=40.0)

ODD, EVEN, LAST = (-2.96706, 2.96706), (-2.0944, 2.0944), (-3.05433, 3.05433)

BASE = Link(
    name="base",
    mass=5.0,
    centre_of_mass=(-0.1, 0.0, 0.07),
    inertia=(0.05, 0.06, 0.03),
    shapes=(
        cylinder((0.0, 0.0, 0.0), (0.0, 0.0, 0.025), 0.105, DARK),
        cylinder((0.0, 0.0, 0.025), (0.0, 0.0, 0.1575), 0.082, GREY),
        box((-0.09, 0.0, 0.05), (0.05, 0.045, 0.04), GREY),
    ),
)

LINKS = (
    Link(
        name="link1",
        position=(0.0, 0.0, 0.1575),
        mass=5.76,
        centre_of_mass=(0.0, -0.03, 0.12),
        inertia=(0.0333, 0.033, 0.0123),
        hinge=Hinge(name="joint1", limits=ODD),
        servo=FIRST,
        shapes=(
            cylinder((0.0, 0.0, 0.003), (0.0, 0.0, 0.06), 0.077, GREY),
            capsule((0.0, 0.0, 0.05), (0.0, -0.02, 0.17), 0.07, GREY),
        ),
    ),
    Link(
        name="link2",
        position=(0.0, 0.0, 0.2025),
        quaternion=TURNED,
        mass=6.35,
        centre_of_mass=(0.0003, 0.059, 0.042),
        inertia=(0.0305, 0.0304, 0.011),
        hinge=Hinge(name="joint2", limits=EVEN),
        servo=FIRST,
        shapes=(
            cylinder((0.0, 0.0, -0.075), (0.0, 0.0, 0.085), 0.070, ORANGE),
            capsule((0.0, 0.02, 0.03), (0.0, 0.14, 0.01), 0.064, GREY),
            cylinder((0.0, 0.12, 0.0), (0.0, 0.195, 0.0), 0.066, GREY),
        ),
    ),
    Link(
        name="link3",
        position=(0.0, 0.2045, 0.0),
        quaternion=TURNED,
        mass=3.5,
        centre_of_mass=(0.0, 0.03, 0.13),
        inertia=(0.025, 0.0238, 0.0076),
        hinge=Hinge(name="joint3", limits=ODD),
        servo=SECOND,
        shapes=(
            cylinder((0.0, 0.0, -0.009), (0.0, 0.0, 0.004), 0.067, LIGHT),
            cylinder((0.0, 0.0, 0.004), (0.0, 0.0, 0.08), 0.064, GREY),
            capsule((0.0, 0.0, 0.08), (0.0, 0.025, 0.19), 0.059, GREY),
        ),
    ),
    Link(
        name="link4",
        position=(0.0, 0.0, 0.2155),
        quaternion=X90,
        mass=3.5,
        centre_of_mass=(0.0, 0.067, 0.034),
        inertia=(0.017, 0.0164, 0.006),
        hinge=Hinge(name="joint4", limits=EVEN),
        servo=SECOND,
        shapes=(
            cylinder((0.0, 0.0, -0.065), (0.0, 0.0, 0.075), 0.062, ORANGE),
            capsule((0.0, 0.02, 0.025), (0.0, 0.13, 0.01), 0.056, GREY),
            cylinder((0.0, 0.11, 0.0), (0.0, 0.175, 0.0), 0.058, GREY),
        ),
    ),
    Link(
        name="link5",
        position=(0.0, 0.1845, 0.0),
        quaternion=TURNED,
        mass=3.5,
        centre_of_mass=(0.0001, 0.021, 0.076),
        inertia=(0.01, 0.0087, 0.00449),
        hinge=Hinge(name="joint5", limits=ODD),
        servo=FIFTH,
        shapes=(
            cylinder((0.0, 0.0, -0.009), (0.0, 0.0, 0.004), 0.059, LIGHT),
            cylinder((0.0, 0.0, 0.004), (0.0, 0.0, 0.07), 0.056, GREY),
            capsule((0.0, 0.01, 0.07), (0.0, 0.055, 0.17), 0.040, GREY),
            capsule((0.0, 0.06, 0.17), (0.0, 0.066, 0.2155), 0.036, GREY),
        ),
    ),
    Link(
        name="link6",
        position=(0.0, 0.0, 0.2155),
        quaternion=X90,
        mass=1.8,
        centre_of_mass=(0.0, 0.0006, 0.0004),
        inertia=(0.0049, 0.0047, 0.0036),
        hinge=Hinge(name="joint6", limits=EVEN),
        servo=WRIST,
        shapes=(
            cylinder((0.0, 0.0, -0.072), (0.0, 0.0, 0.062), 0.052, ORANGE),
            cylinder((0.0, 0.0, 0.0), (0.0, 0.06, 0.0), 0.052, GREY),
        ),
    ),
    Link(
        name="link7",
        position=(0.0, 0.081, 0.0),
        quaternion=TURNED,
        mass=1.2,
        centre_of_mass=(0.0, 0.0, 0.02),
        inertia=(0.001, 0.001, 0.001),
        hinge=Hinge(name="joint7", limits=LAST),
        servo=WRIST,
        shapes=(
            cylinder((0.0, 0.0, -0.021), (0.0, 0.0, 0.030), 0.048, LIGHT),
            cylinder((0.0, 0.0, 0.030), (0.0, 0.0, 0.045), 0.034, DARK),
        ),
    ),
)

HAND = Link(
    name="wsg50",
    position=(0.0, 0.0, 0.045),
    quaternion=(0.0, 0.0, 0.0, 1.0),
    mass=1.1,
    centre_of_mass=(0.0, 0.0, 0.036),
    inertia=(0.0025, 0.00071, 0.0022),
    shapes=(
        box((0.0, 0.0, 0.0365), (0.025, 0.073, 0.03625), GREY, collides=True),
        box((0.0, 0.0, 0.0735), (0.017, 0.068, 0.002), DARK),
    ),
)
JAW_TRAVEL = 0.042  # m, of each jaw
JAW_HEIGHT = 0.0755  # m, of the jaw's frame over the gripper's
JAW_MASS = 0.05
JAW_INERTIA = (3.2e-5, 3.0e-5, 4.0e-6)
PAD_CENTRE = (0.0, 0.004, 0.0765)  # m, in the jaw's frame: rubber face at y = 0 when closed
PAD_HALF = (0.010, 0.004, 0.0125)
TCP_HEIGHT = JAW_HEIGHT + 0.081

HOME_Q = (0.0, 0.6562, 0.0, -1.6230, 0.0, 0.8623, 0.0)
BASE_POSITION = (-0.56, 0.0, 0.0)


def _add_jaw(hand: mujoco.MjsBody, name: str, joint: str, side: float) -> None:
    """A jaw that slides outwards along its own y axis; at rest (``ref``) it is open."""
    jaw = hand.add_body(
        name=name,
        pos=(0.0, side * JAW_TRAVEL, JAW_HEIGHT),
        quat=parts.IDENTITY if side > 0.0 else (0.0, 0.0, 0.0, 1.0),
        gravcomp=1.0,
    )
    parts.set_inertia(jaw, JAW_MASS, (0.0, 0.01, 0.04), JAW_INERTIA)
    jaw.add_joint(
        name=joint,
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=(0.0, 1.0, 0.0),
        ref=JAW_TRAVEL,
        range=(0.0, JAW_TRAVEL),
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        armature=0.1,
        damping=1.0,
    )
    parts.add_shape(jaw, box((0.0, 0.016, 0.012), (0.012, 0.012, 0.012), LIGHT))
    parts.add_shape(jaw, box((0.0, 0.0115, 0.050), (0.010, 0.0035, 0.038), LIGHT, collides=True))
    parts.add_pad(jaw, f"{name}_pad", PAD_CENTRE, PAD_HALF, DARK)


def build() -> ArmModel:
    """A fresh iiwa with its gripper."""
    spec = parts.new_spec("iiwa14")
    hand = parts.add_chain(spec.worldbody, (BASE, *LINKS, HAND))
    _add_jaw(hand, "left_jaw", "jaw_joint1", 1.0)
    _add_jaw(hand, "right_jaw", "jaw_joint2", -1.0)
    parts.exclude_contacts(spec, "left_jaw", "right_jaw", "wsg50", "link7")
    parts.add_tcp(hand, (0.0, 0.0, TCP_HEIGHT))
    parts.add_wrist_camera(hand, (0.0, 0.0, TCP_HEIGHT))
    actuators = parts.add_servos(spec, LINKS)
    gripper = parts.add_gripper_drive(
        spec,
        ("jaw_joint1", "jaw_joint2"),
        stiffness=2000.0,
        damping=100.0,
        force_limit=60.0,
        control_range=(0.0, JAW_TRAVEL),
    )
    return ArmModel(
        name="iiwa14",
        spec=spec,
        joint_names=tuple(link.hinge.name for link in LINKS if link.hinge is not None),
        actuator_names=actuators,
        gripper_actuator=gripper,
        gripper_open_ctrl=JAW_TRAVEL,
        gripper_closed_ctrl=0.0,
        gripper_joint="jaw_joint1",
        gripper_open_q=JAW_TRAVEL,
        gripper_closed_q=0.0,
        pad_geoms=(("left_jaw_pad",), ("right_jaw_pad",)),
        home_q=np.array(HOME_Q),
        base_position=BASE_POSITION,
        max_gripper_width=2.0 * JAW_TRAVEL,
    )
