"""Franka Emika Panda: 7 joints and the Franka Hand with two sliding fingers.

Sources. Link frames, limits, torque limits: Franka Control Interface documentation (DH parameters and
joint limits). Masses and inertias: Gaz et al. 2019, "Dynamic Identification of the Franka Emika Panda
Robot", as used by franka_description and MuJoCo Menagerie. Armature and damping: MuJoCo Menagerie. Servo
gains are our own, stiffer than Menagerie's (4500, 450), so that a target moving at 0.3 m/s is followed
within 1.5 cm.
"""

from __future__ import annotations

import mujoco
import numpy as np

from vla_envs.tabletop.arms import parts
from vla_envs.tabletop.arms.model import ArmModel
from vla_envs.tabletop.arms.parts import Hinge, Link, Servo, box, capsule, cylinder, sphere

WHITE = (0.93, 0.94, 0.95)
GREY = (0.62, 0.65, 0.68)
DARK = (0.22, 0.23, 0.25)

X90 = (0.7071067811865476, 0.7071067811865476, 0.0, 0.0)  # +90 deg about x
X270 = (0.7071067811865476, -0.7071067811865476, 0.0, 0.0)  # -90 deg about x

LARGE = Servo(stiffness=10000.0, damping=300.0, torque_limit=87.0)
MEDIUM = Servo(stiffness=8000.0, damping=240.0, torque_limit=87.0)
SMALL = Servo(stiffness=3000.0, damping=75.0, torque_limit=12.0)

BASE = Link(
    name="base",
    mass=0.629769,
    centre_of_mass=(-0.041018, -0.00014, 0.049974),
    inertia=(0.00315, 0.00388, 0.004285, 8.2904e-7, 0.00015, 8.2299e-6),
    shapes=(
        box((-0.045, 0.0, 0.03), (0.095, 0.07, 0.03), WHITE),
        capsule((-0.06, 0.0, 0.07), (0.0, 0.0, 0.09), 0.05, WHITE),
        cylinder((0.0, 0.0, 0.05), (0.0, 0.0, 0.138), 0.058, WHITE),
        cylinder((0.0, 0.0, 0.138), (0.0, 0.0, 0.143), 0.059, GREY),
    ),
)

LINKS = (
    Link(
        name="link1",
        position=(0.0, 0.0, 0.333),
        mass=4.970684,
        centre_of_mass=(0.003875, 0.002081, -0.04762),
        inertia=(0.70337, 0.70661, 0.0091170, -0.00013900, 0.0067720, 0.019169),
        hinge=Hinge(name="joint1", limits=(-2.8973, 2.8973)),
        servo=LARGE,
        shapes=(
            cylinder((0.0, 0.0, -0.19), (0.0, 0.0, -0.05), 0.056, WHITE),
            capsule((0.0, 0.0, -0.06), (0.0, -0.035, 0.0), 0.06, WHITE),
        ),
    ),
    Link(
        name="link2",
        quaternion=X270,
        mass=0.646926,
        centre_of_mass=(-0.003141, -0.02872, 0.003495),
        inertia=(0.0079620, 2.8110e-2, 2.5995e-2, -3.925e-3, 1.0254e-2, 7.04e-4),
        hinge=Hinge(name="joint2", limits=(-1.7628, 1.7628)),
        servo=LARGE,
        shapes=(
            cylinder((0.0, 0.0, -0.074), (0.0, 0.0, 0.074), 0.050, WHITE),
            capsule((0.0, 0.0, 0.03), (0.0, -0.06, 0.0), 0.06, WHITE),
            cylinder((0.0, -0.05, 0.0), (0.0, -0.19, 0.0), 0.056, WHITE),
        ),
    ),
    Link(
        name="link3",
        position=(0.0, -0.316, 0.0),
        quaternion=X90,
        mass=3.228604,
        centre_of_mass=(2.7518e-2, 3.9252e-2, -6.6502e-2),
        inertia=(3.7242e-2, 3.6155e-2, 1.083e-2, -4.761e-3, -1.1396e-2, -1.2805e-2),
        hinge=Hinge(name="joint3", limits=(-2.8973, 2.8973)),
        servo=MEDIUM,
        shapes=(
            cylinder((0.0, 0.0, -0.124), (0.0, 0.0, -0.116), 0.062, GREY),
            cylinder((0.0, 0.0, -0.116), (0.0, 0.0, -0.06), 0.06, WHITE),
            capsule((0.0, 0.0, -0.065), (0.072, 0.03, 0.0), 0.057, WHITE),
        ),
    ),
    Link(
        name="link4",
        position=(0.0825, 0.0, 0.0),
        quaternion=X90,
        mass=3.587895,
        centre_of_mass=(-5.317e-2, 1.04419e-1, 2.7454e-2),
        inertia=(2.5853e-2, 1.9552e-2, 2.8323e-2, 7.796e-3, -1.332e-3, 8.641e-3),
        hinge=Hinge(name="joint4", limits=(-3.0718, -0.0698)),
        servo=MEDIUM,
        shapes=(
            cylinder((0.0, 0.0, -0.070), (0.0, 0.0, 0.070), 0.05, DARK),
            capsule((0.0, 0.0, 0.03), (-0.075, 0.06, 0.0), 0.057, WHITE),
            cylinder((-0.0825, 0.06, 0.0), (-0.0825, 0.12, 0.0), 0.06, WHITE),
        ),
    ),
    Link(
        name="link5",
        position=(-0.0825, 0.384, 0.0),
        quaternion=X270,
        mass=1.225946,
        centre_of_mass=(-1.1953e-2, 4.1065e-2, -3.8437e-2),
        inertia=(3.5549e-2, 2.9474e-2, 8.627e-3, -2.117e-3, -4.037e-3, 2.29e-4),
        hinge=Hinge(name="joint5", limits=(-2.8973, 2.8973)),
        servo=SMALL,
        shapes=(
            cylinder((0.0, 0.0, -0.264), (0.0, 0.0, -0.256), 0.062, GREY),
            capsule((0.0, 0.0, -0.225), (0.0, 0.045, -0.16), 0.052, WHITE),
            capsule((0.0, 0.05, -0.18), (0.0, 0.065, 0.0), 0.037, WHITE),
            cylinder((0.0, 0.02, 0.0), (0.0, 0.085, 0.0), 0.042, WHITE),
        ),
    ),
    Link(
        name="link6",
        quaternion=X90,
        mass=1.666555,
        centre_of_mass=(6.0149e-2, -1.4117e-2, -1.0517e-2),
        inertia=(1.964e-3, 4.354e-3, 5.433e-3, 1.09e-4, -1.158e-3, 3.41e-4),
        hinge=Hinge(name="joint6", limits=(-0.0175, 3.7525)),
        servo=SMALL,
        shapes=(
            cylinder((0.0, 0.0, -0.06), (0.0, 0.0, 0.045), 0.045, DARK),
            capsule((0.01, 0.0, -0.01), (0.075, 0.0, -0.005), 0.045, WHITE),
            cylinder((0.088, -0.045, 0.0), (0.088, 0.05, 0.0), 0.052, WHITE),
        ),
    ),
    Link(
        name="link7",
        position=(0.088, 0.0, 0.0),
        quaternion=X90,
        mass=7.35522e-1,
        centre_of_mass=(1.0517e-2, -4.252e-3, 6.1597e-2),
        inertia=(1.2516e-2, 1.0027e-2, 4.815e-3, -4.28e-4, -1.196e-3, -7.41e-4),
        hinge=Hinge(name="joint7", limits=(-2.8973, 2.8973)),
        servo=SMALL,
        shapes=(
            cylinder((0.0, 0.0, 0.05), (0.0, 0.0, 0.107), 0.044, WHITE),
            sphere((0.024, 0.024, 0.08), 0.024, WHITE),
            cylinder((0.0, 0.0, 0.096), (0.0, 0.0, 0.108), 0.048, DARK),
        ),
    ),
)

# Franka Hand: flange to hand frame 107 mm and -45 deg about z; fingers at 58.4 mm, opening 0..40 mm each.
HAND = Link(
    name="hand",
    position=(0.0, 0.0, 0.107),
    quaternion=(0.9238795325112867, 0.0, 0.0, -0.3826834323650898),
    mass=0.73,
    centre_of_mass=(-0.01, 0.0, 0.03),
    inertia=(0.001, 0.0025, 0.0017),
    shapes=(
        box((0.0, 0.0, 0.036), (0.024, 0.098, 0.027), WHITE, collides=True),
        box((0.0, 0.0, 0.0625), (0.017, 0.1, 0.0035), DARK),
        cylinder((-0.012, 0.0, 0.0), (-0.012, 0.0, 0.03), 0.036, WHITE),
    ),
)
FINGER_MASS = 0.015
FINGER_INERTIA = (2.375e-6, 2.375e-6, 7.5e-7)
FINGER_HEIGHT = 0.0584  # m, of the finger frame over the hand frame
FINGER_TRAVEL = 0.04  # m, of each finger
PAD_CENTRE = (0.0, 0.004, 0.045)  # m, in the finger frame: rubber face at y = 0 when closed
PAD_HALF = (0.0085, 0.004, 0.0085)
TCP_HEIGHT = FINGER_HEIGHT + PAD_CENTRE[2]  # 0.1034 m, the TCP Franka states for its hand

HOME_Q = (0.0, 0.1288, 0.0, -2.3953, 0.0, 2.5241, 0.7854)
BASE_POSITION = (-0.5, 0.0, 0.0)


def _add_finger(hand: mujoco.MjsBody, name: str, joint: str, side: float) -> None:
    """A finger that slides outwards along its own y axis; at rest (``ref``) it is open."""
    finger = hand.add_body(
        name=name,
        pos=(0.0, side * FINGER_TRAVEL, FINGER_HEIGHT),
        quat=parts.IDENTITY if side > 0.0 else (0.0, 0.0, 0.0, 1.0),
        gravcomp=1.0,
    )
    parts.set_inertia(finger, FINGER_MASS, parts.ORIGIN, FINGER_INERTIA)
    finger.add_joint(
        name=joint,
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=(0.0, 1.0, 0.0),
        ref=FINGER_TRAVEL,
        range=(0.0, FINGER_TRAVEL),
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        armature=0.1,
        damping=1.0,
    )
    parts.add_shape(finger, box((0.0, 0.0135, 0.021), (0.0095, 0.0075, 0.0175), DARK, collides=True))
    parts.add_shape(finger, box((0.0, 0.0115, 0.0465), (0.0085, 0.0035, 0.007), WHITE, collides=True))
    parts.add_pad(finger, f"{name}_pad", PAD_CENTRE, PAD_HALF, DARK)


def build() -> ArmModel:
    """A fresh Panda."""
    spec = parts.new_spec("panda")
    hand = parts.add_chain(spec.worldbody, (BASE, *LINKS, HAND))
    _add_finger(hand, "left_finger", "finger_joint1", 1.0)
    _add_finger(hand, "right_finger", "finger_joint2", -1.0)
    parts.exclude_contacts(spec, "left_finger", "right_finger", "hand", "link7")
    parts.add_tcp(hand, (0.0, 0.0, TCP_HEIGHT))
    parts.add_wrist_camera(hand, (0.0, 0.0, TCP_HEIGHT))
    actuators = parts.add_servos(spec, LINKS)
    gripper = parts.add_gripper_drive(
        spec,
        ("finger_joint1", "finger_joint2"),
        stiffness=2000.0,
        damping=100.0,
        force_limit=60.0,
        control_range=(0.0, FINGER_TRAVEL),
    )
    return ArmModel(
        name="panda",
        spec=spec,
        joint_names=tuple(link.hinge.name for link in LINKS if link.hinge is not None),
        actuator_names=actuators,
        gripper_actuator=gripper,
        gripper_open_ctrl=FINGER_TRAVEL,
        gripper_closed_ctrl=0.0,
        gripper_joint="finger_joint1",
        gripper_open_q=FINGER_TRAVEL,
        gripper_closed_q=0.0,
        pad_geoms=(("left_finger_pad",), ("right_finger_pad",)),
        home_q=np.array(HOME_Q),
        base_position=BASE_POSITION,
        max_gripper_width=2.0 * FINGER_TRAVEL,
    )
