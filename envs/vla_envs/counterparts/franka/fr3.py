"""A mesh-free FR3 for franka-sim: the suite's Panda, whose links an FR3 shares, without its hand.

Sources. Kinematics: Franka Robotics, "Denavit-Hartenberg parameters", the same for both arms. Joint limits:
FR3 data sheet. Masses and inertias: those of the Panda (``vla_envs.tabletop.arms.panda``); viscous damping as
in MuJoCo Menagerie's Panda.
"""

from __future__ import annotations

import mujoco

from vla_envs.tabletop.arms import panda, parts

#: rad, of joints 1 to 7.
LIMITS = (
    (-2.7437, 2.7437),
    (-1.7837, 1.7837),
    (-2.9007, 2.9007),
    (-3.0421, -0.1518),
    (-2.8065, 2.8065),
    (0.5445, 4.5169),
    (-3.0159, 3.0159),
)

#: kg m^2, of the rotors seen through their gears. franka-sim's position servo (gains of Menagerie's FR3,
#: at 1 ms) oscillates with half of it.
_ARMATURE = 0.2


def fr3_xml() -> str:
    """MJCF with joints ``joint1`` .. ``joint7`` and bodies ``link1`` .. ``link7``, as franka-sim asks for."""
    spec = parts.new_spec("fr3")
    parts.add_chain(spec.worldbody, (panda.BASE, *panda.LINKS))
    for number, (low, high) in enumerate(LIMITS, start=1):
        joint = spec.joint(f"joint{number}")
        joint.range, joint.limited = [low, high], mujoco.mjtLimited.mjLIMITED_TRUE
        joint.armature = _ARMATURE
    for body in spec.bodies:
        collides = [geom for geom in body.geoms if geom.contype or geom.conaffinity]
        for geom in collides:
            geom.contype, geom.conaffinity = 0, 0  # it stands in free space: the table is the mirror's
    spec.compile()
    return spec.to_xml()
