"""The embodiment of every arm on this table: same action convention, own joints and reach."""

from __future__ import annotations

from vla.embodiment import Camera, Embodiment, Field
from vla_envs.tabletop.arms import ArmModel

DELTA_LIMIT_M = 0.03
YAW_LIMIT_RAD = 0.15
CONTROL_HZ = 10.0
_PI = 3.1416


def tabletop_embodiment(arm: ArmModel, image_size: int) -> Embodiment:
    """Front and wrist camera, tool pose state, tool deltas and a gripper as action."""
    a, b = arm.object_half_extent
    top = float(arm.max_tool_height)
    low, high = (-a - 0.04, -b - 0.05, 0.004), (a + 0.04, b + 0.05, top)
    num_joints = len(arm.joint_names)
    state = (
        Field(
            name="tcp_position",
            size=3,
            unit="m",
            frame="world",
            mode="absolute",
            low=(-1.5,) * 3,
            high=(1.5,) * 3,
            slot="arm0.tcp_position",
        ),
        Field(
            name="tcp_yaw",
            size=2,
            unit="1",
            frame="world",
            mode="absolute",
            low=(-1.001,) * 2,
            high=(1.001,) * 2,
            slot="arm0.tcp_yaw",
            rotation_format="cos_sin_2yaw",
        ),
        Field(
            name="tcp_error",
            size=3,
            unit="m",
            frame="world",
            mode="absolute",
            low=(-1.0,) * 3,
            high=(1.0,) * 3,
            slot="arm0.tcp_error",
        ),
        Field(
            name="joint_position",
            size=num_joints,
            unit="rad",
            frame="joint",
            mode="absolute",
            low=(-2 * _PI,) * num_joints,
            high=(2 * _PI,) * num_joints,
            slot="arm0.joint_position",
        ),
        Field(
            name="gripper_opening",
            size=1,
            unit="1",
            frame="none",
            mode="absolute",
            low=(-0.2,),
            high=(1.2,),
            slot="arm0.gripper_opening",
            gripper_sign="positive_opens",
        ),
        Field(
            name="gripper_command",
            size=1,
            unit="1",
            frame="none",
            mode="absolute",
            low=(-1.0,),
            high=(1.0,),
            slot="arm0.gripper_command",
            gripper_sign="positive_closes",
        ),
    )
    action = (
        Field(
            name="tcp_position_delta",
            size=3,
            unit="m/step",
            frame="world",
            mode="delta",
            low=(-DELTA_LIMIT_M,) * 3,
            high=(DELTA_LIMIT_M,) * 3,
            slot="arm0.tcp_position_delta",
        ),
        Field(
            name="tcp_yaw_delta",
            size=1,
            unit="rad/step",
            frame="world",
            mode="delta",
            low=(-YAW_LIMIT_RAD,),
            high=(YAW_LIMIT_RAD,),
            slot="arm0.tcp_rotation_delta",
            slot_start=2,
            rotation_format="yaw",
        ),
        Field(
            name="gripper",
            size=1,
            unit="1",
            frame="none",
            mode="absolute",
            low=(-1.0,),
            high=(1.0,),
            slot="arm0.gripper",
            gripper_sign="positive_closes",
        ),
    )
    return Embodiment(
        name=arm.name,
        cameras=(
            Camera(name="front", role="front", height=image_size, width=image_size),
            Camera(name="wrist", role="wrist", height=image_size, width=image_size),
        ),
        state=state,
        action=action,
        control_hz=CONTROL_HZ,
        home_q=tuple(float(q) for q in arm.home_q),
        workspace_low=low,
        workspace_high=high,
    )
