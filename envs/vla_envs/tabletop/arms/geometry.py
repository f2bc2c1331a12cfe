"""What the safety envelope looks at in simulation: the shapes of one of the suite's arms, and its table."""

from __future__ import annotations

import functools

from vla.control.geometry import ArmGeometry
from vla.robots.shapes import geometry_of
from vla_envs.tabletop.arms import ARM_NAMES, load_arm


@functools.cache
def tabletop_geometry(name: str) -> ArmGeometry | None:
    """Shapes of an arm where it stands at the table; None for a foreign arm, whose shapes are meshes.

    Things on the table are not among them: to touch these is what the arm is for.
    """
    if name not in ARM_NAMES:
        return None
    arm = load_arm(name)
    arm.spec.body("base").pos = arm.base_position
    return geometry_of(arm.spec, arm.joint_names, arm.tcp_site)
