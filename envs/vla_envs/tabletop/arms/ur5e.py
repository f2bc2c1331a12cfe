"""Universal Robots UR5e with a two-finger gripper of the Robotiq 2F-85 class.

Sources. Link lengths: Universal Robots, "DH parameters for calculations of kinematics and dynamics" (UR5e).
Masses, inertias and the split of the links into frames: ROS-Industrial ur_description as used by MuJoCo
Menagerie. Joint limits and torques: UR5e data sheet. Gripper: Robotiq 2F-85 manual (85 mm stroke) and the
link dimensions of MuJoCo Menagerie's robotiq_2f85, whose four-bar linkage is here the parallelogram it
follows while it grips in parallel. Servo gains are our own, stiffer than Menagerie's (2000, 400), to follow a
target moving at 0.3 m/s.
"""

from __future__ import annotations

import math

import numpy as np

from vla_envs.tabletop.arms import parts
from vla_envs.tabletop.arms.linkage import LinkageGripper, MassProperties, add_linkage_gripper
from vla_envs.tabletop.arms.model import ArmModel
from vla_envs.tabletop.arms.parts import Hinge, Link, Servo, Vec3, box, capsule, cylinder

LIGHT = (0.80, 0.81, 0.82)
JOINT_GREY = (0.28, 0.28, 0.30)
BLUE = (0.42, 0.62, 0.78)
BLACK = (0.12, 0.12, 0.13)
STEEL = (0.50, 0.51, 0.53)

Y90 = (0.7071067811865476, 0.0, 0.7071067811865476, 0.0)  # +90 deg about y
Y_AXIS: Vec3 = (0.0, 1.0, 0.0)

# DH lengths, m: d1, a2, a3, d4, d5, d6 (signs in the frames below).
D1, A2, A3, D4, D5, D6 = 0.1625, 0.425, 0.3922, 0.1333, 0.0997, 0.0996
SHOULDER_OFFSET, ELBOW_OFFSET = 0.138, 0.131  # sideways, cancelling but for D4

FULL_TURNS = (-2.0 * math.pi, 2.0 * math.pi)
LARGE = Servo(stiffness=12000.0, damping=350.0, torque_limit=150.0)
SMALL = Servo(stiffness=3000.0, damping=75.0, torque_limit=28.0)

BASE = Link(
    name="base",
    quaternion=(0.0, 0.0, 0.0, -1.0),
    mass=4.0,
    inertia=(0.00443333156, 0.00443333156, 0.0072),
    shapes=(
        cylinder((0.0, 0.0, 0.0), (0.0, 0.0, 0.03), 0.075, JOINT_GREY),
        cylinder((0.0, 0.0, 0.03), (0.0, 0.0, 0.099), 0.06, JOINT_GREY),
    ),
)

LINKS = (
    Link(
        name="shoulder_link",
        position=(0.0, 0.0, D1),
        mass=3.7,
        inertia=(0.0102675, 0.0102675, 0.00666),
        hinge=Hinge(name="shoulder_pan_joint", limits=FULL_TURNS, damping=0.0),
        servo=LARGE,
        shapes=(
            cylinder((0.0, 0.0, -0.064), (0.0, 0.0, 0.03), 0.058, JOINT_GREY),
            cylinder((0.0, -0.03, 0.0), (0.0, 0.074, 0.0), 0.057, JOINT_GREY),
            cylinder((0.0, 0.0, 0.03), (0.0, 0.0, 0.072), 0.056, BLUE),
        ),
    ),
    Link(
        name="upper_arm_link",
        position=(0.0, SHOULDER_OFFSET, 0.0),
        quaternion=Y90,
        mass=8.393,
        centre_of_mass=(0.0, 0.0, 0.2125),
        inertia=(0.133886, 0.133886, 0.0151074),
        hinge=Hinge(name="shoulder_lift_joint", axis=Y_AXIS, limits=FULL_TURNS, damping=0.0),
        servo=LARGE,
        shapes=(
            cylinder((0.0, -0.064, 0.0), (0.0, 0.05, 0.0), 0.058, JOINT_GREY),
            cylinder((0.0, 0.05, 0.0), (0.0, 0.072, 0.0), 0.06, BLUE),
            capsule((0.0, 0.0, 0.03), (0.0, 0.0, A2), 0.054, LIGHT),
            cylinder((0.0, -0.074, A2), (0.0, 0.05, A2), 0.056, JOINT_GREY),
            cylinder((0.0, 0.05, A2), (0.0, 0.072, A2), 0.058, BLUE),
        ),
    ),
    Link(
        name="forearm_link",
        position=(0.0, -ELBOW_OFFSET, A2),
        mass=2.275,
        centre_of_mass=(0.0, 0.0, 0.196),
        inertia=(0.0311796, 0.0311796, 0.004095),
        hinge=Hinge(name="elbow_joint", axis=Y_AXIS, limits=(-math.pi, math.pi), damping=0.0),
        servo=LARGE,
        shapes=(
            cylinder((0.0, -0.048, 0.0), (0.0, 0.055, 0.0), 0.056, JOINT_GREY),
            capsule((0.0, 0.0, 0.04), (0.0, 0.0, 0.34), 0.045, LIGHT),
            cylinder((0.0, -0.035, A3), (0.0, 0.053, A3), 0.038, JOINT_GREY),
            cylinder((0.0, -0.056, A3), (0.0, -0.03, A3), 0.039, BLUE),
            cylinder((0.0, 0.0, 0.33), (0.0, 0.0, A3), 0.036, JOINT_GREY),
        ),
    ),
    Link(
        name="wrist_1_link",
        position=(0.0, 0.0, A3),
        quaternion=Y90,
        mass=1.219,
        centre_of_mass=(0.0, 0.127, 0.0),
        inertia=(0.0025599, 0.0025599, 0.0021942),
        hinge=Hinge(name="wrist_1_joint", axis=Y_AXIS, limits=FULL_TURNS, damping=0.0),
        servo=SMALL,
        shapes=(
            cylinder((0.0, 0.053, 0.0), (0.0, 0.15, 0.0), 0.038, JOINT_GREY),
            cylinder((0.0, 0.127, -0.03), (0.0, 0.127, 0.052), 0.037, JOINT_GREY),
            cylinder((0.0, 0.127, -0.056), (0.0, 0.127, -0.028), 0.039, BLUE),
        ),
    ),
    Link(
        name="wrist_2_link",
        position=(0.0, D4 - SHOULDER_OFFSET + ELBOW_OFFSET, 0.0),
        mass=1.219,
        centre_of_mass=(0.0, 0.0, 0.1),
        inertia=(0.0025599, 0.0025599, 0.0021942),
        hinge=Hinge(name="wrist_2_joint", limits=FULL_TURNS, damping=0.0),
        servo=SMALL,
        shapes=(
            cylinder((0.0, 0.0, 0.054), (0.0, 0.0, 0.125), 0.038, JOINT_GREY),
            cylinder((0.0, -0.03, D5), (0.0, 0.052, D5), 0.037, JOINT_GREY),
            cylinder((0.0, -0.057, D5), (0.0, -0.028, D5), 0.039, BLUE),
        ),
    ),
    Link(
        name="wrist_3_link",
        position=(0.0, 0.0, D5),
        mass=0.1889,
        centre_of_mass=(0.0, 0.0771683, 0.0),
        inertia=(0.000132134, 9.90863e-05, 9.90863e-05),
        inertia_quaternion=(0.7071067811865476, 0.0, 0.0, 0.7071067811865476),
        hinge=Hinge(name="wrist_3_joint", axis=Y_AXIS, limits=FULL_TURNS, damping=0.0),
        servo=SMALL,
        shapes=(cylinder((0.0, 0.053, 0.0), (0.0, D6, 0.0), 0.0375, LIGHT),),
    ),
)

# The gripper's frame: 10.8 mm (coupling) before the flange, z out of the flange.
GRIPPER_STANDOFF = 0.0108
HAND = Link(
    name="gripper",
    position=(0.0, D6 + GRIPPER_STANDOFF, 0.0),
    quaternion=(-0.7071067811865476, 0.7071067811865476, 0.0, 0.0),
    mass=0.777441,
    centre_of_mass=(0.0, -2.70394e-05, 0.0354675),
    inertia=(0.000260285, 0.000225381, 0.000152708),
    shapes=(
        cylinder((0.0, 0.0, -0.0108), (0.0, 0.0, 0.003), 0.0375, BLACK),
        box((0.0, 0.0, 0.045), (0.019, 0.040, 0.044), BLACK, collides=True),
        cylinder((0.0, 0.0, 0.0), (0.0, 0.0, 0.05), 0.037, BLACK),
    ),
)

GRIPPER = LinkageGripper(
    pivot=(0.0306011, 0.054904),
    inner_pivot=(0.0132, 0.0609),
    rod=(0.0375989, 0.043496),
    closing_angle=0.8,
    pad_face=-0.0255,
    pad_bottom=0.01352,
    pad_top=0.05102,
    pad_half_width=0.011,
    pad_rgb=(0.30, 0.30, 0.31),
    tip_clearance=0.0085,
    knuckle=MassProperties(
        mass=0.0452573,  # driver, coupler and spring link
        centre_of_mass=(0.0, 0.0190, 0.0205),
        inertia=(2.6e-05, 2.2e-05, 8.0e-06),
    ),
    fingertip=MassProperties(
        mass=0.0160223,  # follower and pad
        centre_of_mass=(0.0, -0.0133, 0.0168),
        inertia=(5.2e-06, 4.8e-06, 1.2e-06),
    ),
    knuckle_shapes=(
        capsule((0.0, 0.0, 0.0), (0.0, 0.0315, -0.0041), 0.009, STEEL),
        capsule((0.0, 0.0315, -0.0041), (0.0, 0.0376, 0.0435), 0.0075, BLACK),
    ),
    fingertip_shapes=(
        capsule((0.0, -0.002, 0.0), (0.0, -0.012, 0.018), 0.0075, BLACK),
        box((0.0, -0.0145, 0.031), (0.010, 0.006, 0.0185), BLACK, collides=True),
    ),
    stiffness=80.0,
    damping=6.0,
    torque_limit=4.0,
)

HOME_Q = (2.8824, -1.4650, 1.8853, -1.9910, -1.5708, -1.8299)
BASE_POSITION = (-0.52, 0.0, 0.0)


def build() -> ArmModel:
    """A fresh UR5e with its gripper."""
    spec = parts.new_spec("ur5e")
    hand = parts.add_chain(spec.worldbody, (BASE, *LINKS, HAND))
    tcp: Vec3 = (0.0, 0.0, GRIPPER.tcp_height)
    parts.add_tcp(hand, tcp)
    parts.add_wrist_camera(hand, tcp)
    actuators = parts.add_servos(spec, LINKS)
    pads = add_linkage_gripper(spec, hand, GRIPPER)
    return ArmModel(
        name="ur5e",
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
