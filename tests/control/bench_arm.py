"""A three-joint arm on a table: two links of 0.3 m, jerk-limited, driven by joint angles at 100 Hz."""

from typing import Any

from vla.control.geometry import ArmGeometry
from vla.embodiment import Embodiment, Field

HIGH = (2.8, 1.6, 2.4)
LOW = (-2.8, -1.6, -2.4)
VELOCITY, ACCELERATION, JERK = (2.0, 2.0, 2.5), (8.0, 8.0, 10.0), (80.0, 80.0, 100.0)
MJCF = """
<mujoco>
  <worldbody>
    <geom name="table" type="plane" size="1 1 .1"/>
    <body name="post" pos="0 0 .02">
      <joint name="turn" axis="0 0 1" range="-2.8 2.8"/>
      <geom name="post" type="cylinder" size=".05 .1" pos="0 0 .12"/>
      <body name="upper" pos="0 0 .28">
        <joint name="shoulder" axis="0 1 0"/>
        <geom name="upper" type="capsule" size=".03" fromto="0 0 0.06 0 0 .3"/>
        <body name="fore" pos="0 0 .3">
          <joint name="elbow" axis="0 1 0"/>
          <geom name="fore" type="capsule" size=".03" fromto="0 0 .06 0 0 .3"/>
          <site name="tool" pos="0 0 .3"/>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""
GEOMETRY = ArmGeometry(mjcf=MJCF, joints=("turn", "shoulder", "elbow"), tcp_site="tool")
ANGLES: Any = {"size": 3, "unit": "rad", "frame": "joint", "low": LOW, "high": HIGH}
MEASURED = Field(name="joint_position", mode="absolute", slot="arm0.joint_position", **ANGLES)


def bench(*, limited: bool = True, boxed: bool = True, control_hz: float = 100.0) -> Embodiment:
    """The arm, with its limits of motion and its box or without."""
    motion: Any = {"max_velocity": VELOCITY, "max_acceleration": ACCELERATION, "max_jerk": JERK}
    target = Field(
        name="joint_target",
        mode="absolute",
        slot="arm0.joint_position",
        **ANGLES,
        **(motion if limited else {}),
    )
    box: Any = {"workspace_low": (-0.55, -0.55, 0.1), "workspace_high": (0.55, 0.55, 0.85)} if boxed else {}
    return Embodiment(
        name="bench", cameras=(), state=(MEASURED,), action=(target,), control_hz=control_hz, **box
    )
