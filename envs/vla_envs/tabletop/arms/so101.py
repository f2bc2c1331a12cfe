"""SO-101 (TheRobotStudio / Hugging Face): 5 joints and a jaw that closes against a fixed one.

Sources. Link frames, masses, inertias, joint limits and the servo model (stiffness, damping, dry friction,
armature, torque limit of the STS3215 servo): SO-ARM100 project, Simulation/SO101, "new calibration" model.
The gripper's torque is limited to 2 N m (about 25 N at the fingertips).

The jaw opens to one side, so the middle of a held object lies half its width from the fixed jaw: the tcp
lies 24 mm from it, enough for a 4 cm object to pass, and closed fingertips meet 24 mm aside of the tcp.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np

from vla_envs.tabletop.arms import parts
from vla_envs.tabletop.arms.model import ArmModel
from vla_envs.tabletop.arms.parts import Hinge, Link, Servo, Vec3, box, capsule

ORANGE = (0.95, 0.55, 0.12)
BLACK = (0.11, 0.11, 0.12)
WOOD = (0.55, 0.50, 0.44)

HALF = 0.7071067811865476
STS3215 = Servo(stiffness=40.0, damping=0.0, torque_limit=3.35)
JOINT_DAMPING, JOINT_FRICTION, JOINT_ARMATURE = 0.60, 0.052, 0.028


def _hinge(name: str, low: float, high: float) -> Hinge:
    return Hinge(
        name=name,
        limits=(low, high),
        armature=JOINT_ARMATURE,
        damping=JOINT_DAMPING,
        frictionloss=JOINT_FRICTION,
    )


# The arm stands on a block, as its wrist cannot point a tool down that is lifted high over the base's level.
RISER_HEIGHT = 0.09  # m

BASE = Link(
    name="base",
    mass=0.147,
    centre_of_mass=(0.0137179, -5.19711e-05, 0.0334843),
    inertia=(0.000114686, 0.000136117, 0.000130364, -4.59787e-07, 4.97151e-06, 9.75275e-08),
    shapes=(
        box((0.020, 0.0, 0.006), (0.044, 0.053, 0.008), ORANGE),
        box((0.013, 0.0, 0.045), (0.040, 0.023, 0.023), ORANGE),
        box((0.028, 0.0, 0.048), (0.026, 0.0245, 0.014), BLACK),
        box((-0.027, 0.0, 0.047), (0.004, 0.025, 0.021), BLACK),
    ),
)

LINKS = (
    Link(
        name="shoulder",
        position=(0.0388353, 0.0, 0.0624),
        quaternion=(0.0, 0.0, -1.0, 0.0),
        mass=0.100006,
        centre_of_mass=(-0.0307604, -1.66727e-05, -0.0252713),
        inertia=(8.3759e-05, 8.10403e-05, 2.39783e-05, 7.55525e-08, -1.16342e-06, 1.54663e-07),
        hinge=_hinge("shoulder_pan", -1.9198621771937616, 1.9198621771937634),
        servo=STS3215,
        shapes=(
            box((-0.014, 0.0, -0.002), (0.026, 0.021, 0.008), ORANGE),
            box((-0.030, 0.0, -0.024), (0.020, 0.0255, 0.016), ORANGE),
            box((-0.0305, 0.0, -0.045), (0.0125, 0.020, 0.021), BLACK),
        ),
    ),
    Link(
        name="upper_arm",
        position=(-0.0303992, -0.0182778, -0.0542),
        quaternion=(0.5, -0.5, -0.5, -0.5),
        mass=0.103,
        centre_of_mass=(-0.0898471, -0.00838224, 0.0184089),
        inertia=(4.08002e-05, 0.000147318, 0.000142487, -1.97819e-05, -4.03016e-08, 8.97326e-09),
        hinge=_hinge("shoulder_lift", -1.7453292519943224, 1.7453292519943366),
        servo=STS3215,
        shapes=(
            capsule((0.0, 0.0, -0.009), (-0.115, 0.0, -0.009), 0.012, ORANGE),
            capsule((0.0, 0.0, 0.045), (-0.115, 0.0, 0.045), 0.012, ORANGE),
            box((-0.068, 0.0, 0.018), (0.030, 0.010, 0.030), ORANGE),
            box((-0.1125, -0.0155, 0.018), (0.0125, 0.0225, 0.020), BLACK),
        ),
    ),
    Link(
        name="lower_arm",
        position=(-0.11257, -0.028, 0.0),
        quaternion=(HALF, 0.0, 0.0, HALF),
        mass=0.104,
        centre_of_mass=(-0.0980701, 0.00324376, 0.0182831),
        inertia=(2.87438e-05, 0.000159844, 0.00014529, 7.41152e-06, 1.26409e-06, -4.90188e-08),
        hinge=_hinge("elbow_flex", -1.69, 1.69),
        servo=STS3215,
        shapes=(
            capsule((0.0, 0.0, -0.007), (-0.095, 0.0, -0.007), 0.011, ORANGE),
            capsule((0.0, 0.0, 0.044), (-0.095, 0.0, 0.044), 0.011, ORANGE),
            box((-0.070, 0.0, 0.018), (0.035, 0.010, 0.030), ORANGE),
            box((-0.105, 0.003, 0.020), (0.014, 0.0175, 0.028), ORANGE),
            box((-0.1225, 0.005, 0.018), (0.0225, 0.0125, 0.020), BLACK),
        ),
    ),
    Link(
        name="wrist",
        position=(-0.1349, 0.0052, 0.0),
        quaternion=(HALF, 0.0, 0.0, -HALF),
        mass=0.079,
        centre_of_mass=(-0.000103312, -0.0386143, 0.0281156),
        inertia=(3.68263e-05, 2.5391e-05, 2.1e-05, 1.7893e-08, -5.28128e-08, 3.6412e-06),
        hinge=_hinge("wrist_flex", -1.6580628494556928, 1.6580627293335335),
        servo=STS3215,
        shapes=(
            capsule((0.0, 0.0, -0.004), (0.0, -0.035, 0.0), 0.011, ORANGE),
            capsule((0.0, 0.0, 0.046), (0.0, -0.035, 0.042), 0.011, ORANGE),
            box((0.0, -0.043, 0.0305), (0.0125, 0.020, 0.0225), BLACK),
            box((-0.001, -0.052, 0.020), (0.018, 0.012, 0.026), ORANGE),
        ),
    ),
    Link(
        name="gripper",
        position=(0.0, -0.0611, 0.0181),
        quaternion=(0.0172091, -0.0172091, 0.706897, 0.706897),
        mass=0.087,
        centre_of_mass=(0.000213627, 0.000245138, -0.025187),
        inertia=(2.75087e-05, 4.33657e-05, 3.45059e-05, -3.35241e-07, -5.7352e-06, -5.17847e-08),
        hinge=_hinge("wrist_roll", -2.7438472969992493, 2.841206309382605),
        servo=STS3215,
        shapes=(
            box((0.0075, 0.0, -0.0235), (0.0225, 0.0195, 0.0125), BLACK),
            box((-0.004, -0.002, -0.006), (0.028, 0.024, 0.006), ORANGE),
            box((-0.024, -0.001, -0.030), (0.008, 0.022, 0.025), ORANGE, collides=True),
            box((-0.0175, 0.0, -0.066), (0.006, 0.016, 0.018), ORANGE, (0.9945, 0.0, -0.1045, 0.0)),
            box((-0.0105, 0.0, -0.092), (0.0035, 0.013, 0.0124), ORANGE, collides=True),
        ),
    ),
)

JAW_POSITION: Vec3 = (0.0202, 0.0188, -0.0234)
JAW_QUATERNION: parts.Quat = (HALF, HALF, 0.0, 0.0)
JAW_MASS = 0.012
JAW_CENTRE: Vec3 = (-0.00157495, -0.0300244, 0.0192755)
JAW_INERTIA = (6.61427e-06, 1.89032e-06, 5.28738e-06, -3.19807e-07, -5.90717e-09, -1.09945e-07)
JAW_CLOSED, JAW_OPEN = -0.02, 0.90  # rad: pads touch; pads 70 mm apart (the hardware opens to 1.745)
JAW_TORQUE_LIMIT = 2.0
JAW_STIFFNESS = 17.8

# Pads: parallel when 36 mm apart (gripper joint 0.41 rad).
PAD_HALF: Vec3 = (0.0045, 0.010, 0.0075)
FIXED_PAD: Vec3 = (-0.0060, -0.0002, -0.0970)  # in the gripper's frame; its face is at x = -1.5 mm
MOVING_PAD: Vec3 = (-0.01233, -0.07625, 0.0190)  # in the jaw's frame
PARALLEL_ANGLE = 0.41

# The tcp in the gripper's frame: 24 mm from the fixed pad; z out of the gripper (-z), y away from the fixed
# jaw (+x).
TCP_POSITION: Vec3 = (0.0225, -0.0002, -0.0970)
TCP_QUATERNION: parts.Quat = (0.0, HALF, HALF, 0.0)

HOME_Q = (0.0373, 0.0595, 0.1971, 1.3165, -1.484)
BASE_POSITION = (-0.235, 0.03, RISER_HEIGHT)


def _add_jaw(gripper: mujoco.MjsBody) -> None:
    """The moving jaw: hinged, its pad turned to be parallel to the fixed one at ``PARALLEL_ANGLE``."""
    jaw = gripper.add_body(name="moving_jaw", pos=JAW_POSITION, quat=JAW_QUATERNION, gravcomp=1.0)
    parts.set_inertia(jaw, JAW_MASS, JAW_CENTRE, JAW_INERTIA)
    jaw.add_joint(
        name="gripper",
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=(0.0, 0.0, 1.0),
        range=(JAW_CLOSED, JAW_OPEN),
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        armature=JOINT_ARMATURE,
        damping=JOINT_DAMPING,
        frictionloss=JOINT_FRICTION,
    )
    half_angle = -PARALLEL_ANGLE / 2.0
    turned: parts.Quat = (math.cos(half_angle), 0.0, 0.0, math.sin(half_angle))
    # The jaw's arm runs behind the pad, from the hinge to the fingertip.
    parts.add_shape(jaw, capsule((0.0, 0.0, 0.003), (0.0, 0.0, 0.038), 0.0095, ORANGE))
    parts.add_shape(jaw, box((0.001, -0.026, 0.019), (0.006, 0.022, 0.015), ORANGE))
    arm = box((-0.0020, -0.062, 0.019), (0.0050, 0.018, 0.012), ORANGE, turned, collides=True)
    parts.add_shape(jaw, arm)
    pad = parts.add_pad(jaw, "moving_pad", MOVING_PAD, (PAD_HALF[0], PAD_HALF[2], PAD_HALF[1]), BLACK)
    pad.quat = turned


def build() -> ArmModel:
    """A fresh SO-101."""
    spec = parts.new_spec("so101")
    gripper = parts.add_chain(spec.worldbody, (BASE, *LINKS))
    riser = box((0.020, 0.0, -RISER_HEIGHT / 2.0), (0.05, 0.06, RISER_HEIGHT / 2.0), WOOD)
    parts.add_shape(spec.body("base").add_body(name="riser"), riser)
    parts.add_pad(gripper, "fixed_pad", FIXED_PAD, PAD_HALF, BLACK)
    _add_jaw(gripper)
    parts.add_tcp(gripper, TCP_POSITION, TCP_QUATERNION)
    parts.add_wrist_camera(gripper, TCP_POSITION, TCP_QUATERNION)
    actuators = parts.add_servos(spec, LINKS)
    drive = spec.add_actuator(
        name="gripper",
        target="gripper",
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        ctrlrange=(JAW_CLOSED, JAW_OPEN),
        ctrllimited=mujoco.mjtLimited.mjLIMITED_TRUE,
        forcerange=(-JAW_TORQUE_LIMIT, JAW_TORQUE_LIMIT),
        forcelimited=mujoco.mjtLimited.mjLIMITED_TRUE,
    )
    drive.set_to_position(kp=JAW_STIFFNESS)
    return ArmModel(
        name="so101",
        spec=spec,
        joint_names=tuple(link.hinge.name for link in LINKS if link.hinge is not None),
        actuator_names=actuators,
        gripper_actuator="gripper",
        gripper_open_ctrl=JAW_OPEN,
        gripper_closed_ctrl=JAW_CLOSED,
        gripper_joint="gripper",
        gripper_open_q=JAW_OPEN,
        gripper_closed_q=JAW_CLOSED,
        pad_geoms=(("fixed_pad",), ("moving_pad",)),
        home_q=np.array(HOME_Q),
        base_position=BASE_POSITION,
        object_half_extent=(0.09, 0.115),
        max_gripper_width=0.07,
        tool_down_weight=0.3,
        closed_fingertips=(0.0, -0.024, 0.0),
        max_tool_height=0.14,
    )
