"""UFACTORY xArm7 with its parallel-linkage gripper.

Sources. Link lengths (DH: d1 267, d3 293, a4 52.5, d5 342.5, a5 77.5, a6 76, d7 97 mm), joint limits and
torques: UFACTORY xArm user manual and xarm_description. Masses and inertias: xarm_description, as used by
robosuite and MuJoCo Menagerie. Gripper: UFACTORY xArm gripper (84 mm stroke, 30 N), dimensions of
xarm_description. Servo gains are our own, stiffer than Menagerie's (1500, 150), to follow a target moving
at 0.3 m/s.
"""

from __future__ import annotations

import math

import numpy as np

from vla_envs.tabletop.arms import parts
from vla_envs.tabletop.arms.linkage import LinkageGripper, MassProperties, add_linkage_gripper
from vla_envs.tabletop.arms.model import ArmModel
from vla_envs.tabletop.arms.parts import Hinge, Link, Servo, Vec3, box, capsule, cylinder

WHITE = (0.94, 0.94, 0.93)
SILVER = (0.70, 0.71, 0.73)
BLACK = (0.13, 0.13, 0.14)

X90 = (0.7071067811865476, 0.7071067811865476, 0.0, 0.0)
X270 = (0.7071067811865476, -0.7071067811865476, 0.0, 0.0)

FULL_TURNS = (-2.0 * math.pi, 2.0 * math.pi)
LARGE = Servo(stiffness=8000.0, damping=220.0, torque_limit=50.0)
MEDIUM = Servo(stiffness=4000.0, damping=110.0, torque_limit=30.0)
SMALL = Servo(stiffness=2500.0, damping=65.0, torque_limit=20.0)

BASE = Link(
    name="base",
    mass=0.88556,
    centre_of_mass=(-0.021131, -0.0016302, 0.056488),
    inertia=(0.00382023, 0.00335282, 0.00167725),
    inertia_quaternion=(0.696843, 0.20176, 0.10388, 0.680376),
    shapes=(
        cylinder((0.0, 0.0, 0.0), (0.0, 0.0, 0.012), 0.063, SILVER),
        cylinder((0.0, 0.0, 0.012), (0.0, 0.0, 0.155), 0.052, WHITE),
        box((-0.06, 0.0, 0.04), (0.03, 0.035, 0.035), WHITE),
    ),
)

LINKS = (
    Link(
        name="link1",
        position=(0.0, 0.0, 0.267),
        mass=2.382,
        centre_of_mass=(-0.0002, 0.02905, -0.01233),
        inertia=(0.00569127, 0.00533384, 0.00293865),
        inertia_quaternion=(0.978953, -0.202769, -0.00441617, -0.0227264),
        hinge=Hinge(name="joint1", limits=FULL_TURNS),
        servo=LARGE,
        shapes=(
            cylinder((0.0, 0.0, -0.112), (0.0, 0.0, -0.102), 0.05, SILVER),
            capsule((0.0, 0.0, -0.07), (0.0, 0.0, 0.0), 0.048, WHITE),
            cylinder((0.0, -0.02, 0.0), (0.0, 0.075, 0.0), 0.047, WHITE),
        ),
    ),
    Link(
        name="link2",
        quaternion=X270,
        mass=1.869,
        centre_of_mass=(0.00022, -0.12856, 0.01735),
        inertia=(0.00959898, 0.00937717, 0.00201315),
        inertia_quaternion=(0.50198, 0.86483, -0.00778841, 0.00483285),
        hinge=Hinge(name="joint2", limits=(-2.059, 2.0944)),
        servo=LARGE,
        shapes=(
            cylinder((0.0, 0.0, 0.075), (0.0, 0.0, 0.119), 0.047, WHITE),
            cylinder((0.0, 0.0, 0.069), (0.0, 0.0, 0.075), 0.049, SILVER),
            capsule((0.0, -0.015, 0.085), (0.0, -0.12, 0.01), 0.042, WHITE),
            cylinder((0.0, -0.11, 0.0), (0.0, -0.192, 0.0), 0.044, WHITE),
        ),
    ),
    Link(
        name="link3",
        position=(0.0, -0.293, 0.0),
        quaternion=X90,
        mass=1.6383,
        centre_of_mass=(0.0466, -0.02463, -0.00768),
        inertia=(0.00351721, 0.00294089, 0.00195868),
        inertia_quaternion=(0.913819, 0.289775, 0.281481, -0.0416455),
        hinge=Hinge(name="joint3", limits=FULL_TURNS),
        servo=MEDIUM,
        shapes=(
            cylinder((0.0, 0.0, -0.101), (0.0, 0.0, -0.094), 0.045, SILVER),
            capsule((0.0, 0.0, -0.06), (0.0, 0.0, -0.01), 0.042, WHITE),
            capsule((0.0, 0.0, -0.01), (0.05, 0.02, 0.0), 0.041, WHITE),
            cylinder((0.0525, -0.02, 0.0), (0.0525, 0.069, 0.0), 0.042, WHITE),
        ),
    ),
    Link(
        name="link4",
        position=(0.0525, 0.0, 0.0),
        quaternion=X90,
        mass=1.7269,
        centre_of_mass=(0.07047, -0.11575, 0.012),
        inertia=(0.00657137, 0.00647948, 0.00186763),
        inertia_quaternion=(0.422108, 0.852026, -0.126025, 0.282832),
        hinge=Hinge(name="joint4", limits=(-0.19198, 3.927)),
        servo=MEDIUM,
        shapes=(
            cylinder((0.0, 0.0, 0.069), (0.0, 0.0, 0.107), 0.042, WHITE),
            cylinder((0.0, 0.0, 0.064), (0.0, 0.0, 0.07), 0.044, SILVER),
            capsule((0.01, -0.01, 0.075), (0.07, -0.105, 0.01), 0.038, WHITE),
            cylinder((0.0775, -0.095, 0.0), (0.0775, -0.169, 0.0), 0.042, WHITE),
        ),
    ),
    Link(
        name="link5",
        position=(0.0775, -0.3425, 0.0),
        quaternion=X90,
        mass=1.3203,
        centre_of_mass=(-0.00032, 0.01604, -0.026),
        inertia=(0.00534729, 0.00499076, 0.0013489),
        inertia_quaternion=(0.999311, -0.0304457, 0.000577067, 0.0212082),
        hinge=Hinge(name="joint5", limits=FULL_TURNS),
        servo=MEDIUM,
        shapes=(
            cylinder((0.0, 0.0, -0.173), (0.0, 0.0, -0.167), 0.044, SILVER),
            capsule((0.0, 0.0, -0.135), (0.0, 0.0, -0.08), 0.04, WHITE),
            capsule((0.0, 0.01, -0.09), (0.0, 0.045, -0.01), 0.033, WHITE),
            cylinder((0.0, -0.02, 0.0), (0.0, 0.065, 0.0), 0.037, WHITE),
        ),
    ),
    Link(
        name="link6",
        quaternion=X90,
        mass=1.325,
        centre_of_mass=(0.06469, 0.03278, 0.02141),
        inertia=(0.00245421, 0.00221646, 0.00107273),
        inertia_quaternion=(-0.217672, 0.772419, 0.16258, 0.574069),
        hinge=Hinge(name="joint6", limits=(-1.69297, 3.14159)),
        servo=SMALL,
        shapes=(
            cylinder((0.0, 0.0, -0.037), (0.0, 0.0, 0.055), 0.037, WHITE),
            capsule((0.01, 0.0, 0.012), (0.07, 0.02, 0.006), 0.036, WHITE),
            cylinder((0.076, -0.01, 0.0), (0.076, 0.069, 0.0), 0.037, WHITE),
        ),
    ),
    Link(
        name="link7",
        position=(0.076, 0.097, 0.0),
        quaternion=X270,
        mass=0.17,
        centre_of_mass=(0.0, -0.00677, -0.01098),
        inertia=(0.000132176, 9.3e-05, 5.85236e-05),
        inertia_quaternion=(0.487612, 0.512088, -0.512088, 0.487612),
        hinge=Hinge(name="joint7", limits=FULL_TURNS),
        servo=SMALL,
        shapes=(cylinder((0.0, 0.0, -0.028), (0.0, 0.0, 0.0), 0.037, SILVER),),
    ),
)

HAND = Link(
    name="gripper",
    mass=0.54156,
    centre_of_mass=(-0.00065489, -0.0018497, 0.048028),
    inertia=(0.000471093, 0.000332307, 0.000254799),
    inertia_quaternion=(0.997403, -0.0717512, -0.0061836, 0.000477479),
    shapes=(
        cylinder((0.0, 0.0, 0.0), (0.0, 0.0, 0.045), 0.037, WHITE),
        box((0.0, 0.0, 0.060), (0.028, 0.052, 0.020), WHITE, collides=True),
        box((0.0, 0.0, 0.0835), (0.012, 0.030, 0.006), BLACK),
    ),
)

GRIPPER = LinkageGripper(
    pivot=(0.035, 0.059098),
    inner_pivot=(0.02, 0.074098),
    rod=(0.035465, 0.042039),
    closing_angle=0.85,
    pad_face=-0.026003,
    pad_bottom=0.0225,
    pad_top=0.0595,
    pad_half_width=0.012,
    pad_rgb=(0.26, 0.26, 0.27),
    tip_clearance=0.0085,
    knuckle=MassProperties(
        mass=0.0566306,  # outer and inner knuckle
        centre_of_mass=(0.0, 0.0156, 0.0259),
        inertia=(3.2e-05, 2.8e-05, 8.0e-06),
    ),
    fingertip=MassProperties(
        mass=0.048304,
        centre_of_mass=(0.0, -0.016413, 0.029258),
        inertia=(1.88037e-05, 1.7493e-05, 3.56792e-06),
        inertia_quaternion=(0.697634, 0.115353, -0.115353, 0.697634),
    ),
    knuckle_shapes=(
        capsule((0.0, 0.0, 0.0), (0.0, 0.0355, 0.0420), 0.010, BLACK),
        capsule((0.0, 0.0, 0.0), (0.0, 0.030, 0.006), 0.009, BLACK),
        capsule((0.0, 0.030, 0.006), (0.0, 0.0355, 0.0420), 0.008, BLACK),
    ),
    fingertip_shapes=(
        box((0.0, -0.006, 0.010), (0.010, 0.012, 0.010), BLACK),
        box((0.0, -0.0145, 0.040), (0.011, 0.0055, 0.0185), BLACK, collides=True),
    ),
    stiffness=80.0,
    damping=6.0,
    torque_limit=3.0,
)

HOME_Q = (0.0, 0.0906, 0.0, 1.0518, 0.0, 0.9612, 0.0)
BASE_POSITION = (-0.48, 0.0, 0.0)


def build() -> ArmModel:
    """A fresh xArm7 with its gripper."""
    spec = parts.new_spec("xarm7")
    hand = parts.add_chain(spec.worldbody, (BASE, *LINKS, HAND))
    tcp: Vec3 = (0.0, 0.0, GRIPPER.tcp_height)
    parts.add_tcp(hand, tcp)
    parts.add_wrist_camera(hand, tcp)
    actuators = parts.add_servos(spec, LINKS)
    pads = add_linkage_gripper(spec, hand, GRIPPER)
    return ArmModel(
        name="xarm7",
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
