"""Kinova Gen3 (7 joints, spherical wrist) with a Robotiq 2F-85.

Sources. Link frames, masses, inertias: kortex_description of Kinova's ros_kortex (GEN3_URDF_V12), as used by
MuJoCo Menagerie. Joint limits: Kinova Gen3 user guide (joints 1, 3, 5 and 7 turn without end; two turns are
given to them here). Torque limits: kortex_description (39 N m for the large, 9 N m for the small actuators).
Gripper: the 2F-85 that our UR5e carries. Servo gains are our own.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from vla_envs.tabletop.arms import parts, ur5e
from vla_envs.tabletop.arms.linkage import add_linkage_gripper
from vla_envs.tabletop.arms.model import ArmModel
from vla_envs.tabletop.arms.parts import Hinge, Link, Servo, Vec3, capsule, cylinder

SILVER = (0.80, 0.81, 0.83)
GREY = (0.55, 0.56, 0.58)
DARK = (0.20, 0.21, 0.23)

X90 = (0.7071067811865476, 0.7071067811865476, 0.0, 0.0)
X270 = (0.7071067811865476, -0.7071067811865476, 0.0, 0.0)
X180 = (0.0, 1.0, 0.0, 0.0)

FULL_TURNS = (-2.0 * math.pi, 2.0 * math.pi)
LARGE = Servo(stiffness=6000.0, damping=180.0, torque_limit=39.0)
SMALL = Servo(stiffness=2000.0, damping=50.0, torque_limit=9.0)

BASE = Link(
    name="base",
    mass=1.697,
    centre_of_mass=(-0.000648, -0.000166, 0.084487),
    inertia=(0.00462407, 0.00449437, 0.00207755),
    inertia_quaternion=(0.999294, 0.00139618, -0.0118387, 0.035636),
    shapes=(
        cylinder((0.0, 0.0, 0.0), (0.0, 0.0, 0.02), 0.062, DARK),
        cylinder((0.0, 0.0, 0.02), (0.0, 0.0, 0.135), 0.046, SILVER),
        cylinder((0.0, 0.0, 0.135), (0.0, 0.0, 0.142), 0.047, DARK),
    ),
)

LINKS = (
    Link(
        name="shoulder_link",
        position=(0.0, 0.0, 0.15643),
        quaternion=X180,
        mass=1.3773,
        centre_of_mass=(-2.3e-05, -0.010364, -0.07336),
        inertia=(0.00488868, 0.00457, 0.00135132),
        inertia_quaternion=(0.707051, 0.0451246, -0.0453544, 0.704263),
        hinge=Hinge(name="joint_1", limits=FULL_TURNS),
        servo=LARGE,
        shapes=(
            cylinder((0.0, 0.0, 0.0145), (0.0, 0.0, -0.085), 0.045, SILVER),
            capsule((0.0, 0.0, -0.09), (0.0, -0.012, -0.12838), 0.044, SILVER),
        ),
    ),
    Link(
        name="half_arm_1_link",
        position=(0.0, 0.005375, -0.12838),
        quaternion=X90,
        mass=1.1636,
        centre_of_mass=(-4.4e-05, -0.09958, -0.013278),
        inertia=(0.0113017, 0.011088, 0.00102532),
        inertia_quaternion=(0.482348, 0.516286, -0.516862, 0.483366),
        hinge=Hinge(name="joint_2", limits=(-2.24, 2.24)),
        servo=LARGE,
        shapes=(
            cylinder((0.0, 0.0, -0.05), (0.0, 0.0, 0.032), 0.044, GREY),
            capsule((0.0, -0.015, -0.01), (0.0, -0.12, -0.006375), 0.040, SILVER),
            cylinder((0.0, -0.11, -0.006375), (0.0, -0.195, -0.006375), 0.042, SILVER),
        ),
    ),
    Link(
        name="half_arm_2_link",
        position=(0.0, -0.21038, -0.006375),
        quaternion=X270,
        mass=1.1636,
        centre_of_mass=(-4.4e-05, -0.006641, -0.117892),
        inertia=(0.0111633, 0.010932, 0.00100671),
        inertia_quaternion=(0.706144, 0.0213722, -0.0209128, 0.707437),
        hinge=Hinge(name="joint_3", limits=FULL_TURNS),
        servo=LARGE,
        shapes=(
            cylinder((0.0, 0.0, 0.0155), (0.0, 0.0, 0.008), 0.043, DARK),
            cylinder((0.0, 0.0, 0.008), (0.0, 0.0, -0.09), 0.042, SILVER),
            capsule((0.0, 0.0, -0.09), (0.0, -0.012, -0.21038), 0.041, SILVER),
        ),
    ),
    Link(
        name="forearm_link",
        position=(0.0, 0.006375, -0.21038),
        quaternion=X90,
        mass=0.9302,
        centre_of_mass=(-1.8e-05, -0.075478, -0.015006),
        inertia=(0.00834839, 0.008147, 0.000598606),
        inertia_quaternion=(0.483678, 0.515961, -0.515859, 0.483455),
        hinge=Hinge(name="joint_4", limits=(-2.57, 2.57)),
        servo=LARGE,
        shapes=(
            cylinder((0.0, 0.0, -0.05), (0.0, 0.0, 0.032), 0.042, GREY),
            capsule((0.0, -0.015, -0.01), (0.0, -0.11, -0.006375), 0.038, SILVER),
            cylinder((0.0, -0.10, -0.006375), (0.0, -0.19, -0.006375), 0.035, SILVER),
        ),
    ),
    Link(
        name="spherical_wrist_1_link",
        position=(0.0, -0.20843, -0.006375),
        quaternion=X270,
        mass=0.6781,
        centre_of_mass=(1e-06, -0.009432, -0.063883),
        inertia=(0.00165901, 0.001596, 0.000346988),
        inertia_quaternion=(0.703558, 0.0707492, -0.0707492, 0.703558),
        hinge=Hinge(name="joint_5", limits=FULL_TURNS),
        servo=SMALL,
        shapes=(
            cylinder((0.0, 0.0, 0.0185), (0.0, 0.0, 0.012), 0.036, DARK),
            cylinder((0.0, 0.0, 0.012), (0.0, 0.0, -0.05), 0.035, SILVER),
            capsule((0.0, 0.0, -0.05), (0.0, -0.010, -0.10593), 0.034, SILVER),
        ),
    ),
    Link(
        name="spherical_wrist_2_link",
        position=(0.0, 0.00017505, -0.10593),
        quaternion=X90,
        mass=0.6781,
        centre_of_mass=(1e-06, -0.045483, -0.00965),
        inertia=(0.00170087, 0.001641, 0.00035013),
        inertia_quaternion=(0.44426, 0.550121, -0.550121, 0.44426),
        hinge=Hinge(name="joint_6", limits=(-2.09, 2.09)),
        servo=SMALL,
        shapes=(
            cylinder((0.0, 0.0, -0.044), (0.0, 0.0, 0.030), 0.035, GREY),
            capsule((0.0, -0.01, -0.008), (0.0, -0.06, 0.0), 0.033, SILVER),
            cylinder((0.0, -0.05, 0.0), (0.0, -0.088, 0.0), 0.035, SILVER),
        ),
    ),
    Link(
        name="bracelet_link",
        position=(0.0, -0.10593, -0.00017505),
        quaternion=X270,
        mass=0.5,
        centre_of_mass=(0.000281, 0.011402, -0.029798),
        inertia=(0.000657336, 0.000587019, 0.000320645),
        inertia_quaternion=(0.394358, 0.596779, -0.577293, 0.393789),
        hinge=Hinge(name="joint_7", limits=FULL_TURNS),
        servo=SMALL,
        shapes=(
            cylinder((0.0, 0.0, 0.018), (0.0, 0.0, 0.012), 0.036, DARK),
            cylinder((0.0, 0.0, 0.012), (0.0, 0.0, -0.0615), 0.036, SILVER),
        ),
    ),
)

FLANGE_M = 0.0615250  # from the bracelet's frame to the interface module, along its -z
HAND = replace(
    ur5e.HAND,
    position=(0.0, 0.0, -FLANGE_M - ur5e.GRIPPER_STANDOFF),
    quaternion=X180,
)
GRIPPER = ur5e.GRIPPER

HOME_Q = (-0.0014, 0.5291, 3.1480, -1.5946, -0.0038, -1.0180, 0.0061)
BASE_POSITION = (-0.48, 0.0, 0.0)


def build() -> ArmModel:
    """A fresh Gen3 with its gripper."""
    spec = parts.new_spec("gen3")
    hand = parts.add_chain(spec.worldbody, (BASE, *LINKS, HAND))
    tcp: Vec3 = (0.0, 0.0, GRIPPER.tcp_height)
    parts.add_tcp(hand, tcp)
    parts.add_wrist_camera(hand, tcp)
    actuators = parts.add_servos(spec, LINKS)
    pads = add_linkage_gripper(spec, hand, GRIPPER)
    return ArmModel(
        name="gen3",
        spec=spec,
        joint_names=tuple(link.hinge.name for link in LINKS if link.hinge is not None),
        actuator_names=actuators,
        gripper_actuator="gripper",
        gripper_open_ctrl=0.0,
        gripper_closed_ctrl=GRIPPER.closing_angle,
        gripper_joint="left_driver_joint",
        gripper_open_q=0.0,
        gripper_closed_q=GRIPPER.closing_angle,
        pad_geoms=pads,
        home_q=np.array(HOME_Q),
        base_position=BASE_POSITION,
        max_gripper_width=GRIPPER.gap(0.0),
    )
