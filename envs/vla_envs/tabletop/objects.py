"""Things on the table: each kind is a function that adds one body to a MuJoCo spec.

Positions are metres in the world frame (table top at z = 0). Geoms whose colour is drawn anew each
episode are named ``<entity>/paint*``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import mujoco

Kind = Literal[
    "cube",
    "cylinder",
    "bottle",
    "peg",
    "bowl",
    "plate",
    "zone",
    "socket",
    "button",
    "cabinet",
    "dial",
    "slider",
]
Mark = Literal["none", "dot", "bar", "frame"]

FREE_KINDS = ("cube", "cylinder", "bottle", "peg")
#: Moving parts that are things of their own: ``cabinet/drawer0``, ``dial0/handle``.
PARTS = {"cabinet": ("drawer0", "drawer1"), "dial": ("handle",), "slider": ("handle",)}
DRAWER_TRAVEL_M = 0.08
BUTTON_TRAVEL_M = 0.012
BOWL_INNER_RADIUS_M = 0.043
PLATE_RADIUS_M = 0.047
ZONE_HALF_LENGTH_M = 0.13
DRAWER_SPACING_M = 0.15
KNOB_HEIGHT_M = 0.055
PEG_HALF_HEIGHT_M = 0.04
SOCKET_HOLE_M = 0.0185  # half width of the square hole
SOCKET_HEIGHT_M = 0.03
HANDLE_HEIGHT_M = 0.038  # of a dial's bar and a slider's knob over the table
DIAL_RANGE_RAD = 1.0
SLIDER_RANGE_M = 0.05
OBJECT_FRICTION = 0.45
_GREY = (0.55, 0.55, 0.58, 1.0)


@dataclass(frozen=True, kw_only=True)
class Entity:
    """A thing in the scene's pool; ``size`` is its half edge or radius in m, ``mark`` is painted on top."""

    name: str
    kind: Kind
    size: float = 0.02
    mark: Mark = "none"

    @property
    def half_height(self) -> float:
        """Half of its height, m (height of its centre when it stands on the table)."""
        if self.kind == "cylinder":
            return 0.022
        if self.kind == "bottle":
            return 0.045
        if self.kind == "peg":
            return PEG_HALF_HEIGHT_M
        return self.size

    @property
    def footprint(self) -> float:
        """Radius that no other thing may enter at the start, m."""
        return {
            "cube": self.size * 1.3,
            "cylinder": self.size,
            "bottle": self.size,
            "peg": self.size,
            "bowl": 0.056,
            "plate": PLATE_RADIUS_M,
            "zone": 0.05,
            "socket": 0.046,
            "button": 0.032,
            "cabinet": 0.1,
            "dial": 0.04,
            "slider": 0.08,
        }[self.kind]


def add_entity(spec: mujoco.MjSpec, entity: Entity) -> None:
    """Add the entity's body to the world at the origin; the env places it at each reset."""
    body = spec.worldbody.add_body(name=entity.name)
    if entity.kind in FREE_KINDS:
        body.add_freejoint(name=f"{entity.name}/free")
    _BUILDERS[entity.kind](body, entity)
    if entity.mark != "none":
        _mark(body, entity)


def _cube(body: mujoco.MjsBody, entity: Entity) -> None:
    s = entity.size
    body.add_geom(
        name=f"{entity.name}/paint",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[s, s, s],
        mass=0.05,
        **_contact(),
    )


def _cylinder(body: mujoco.MjsBody, entity: Entity) -> None:
    body.add_geom(
        name=f"{entity.name}/paint",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[entity.size, entity.half_height, 0],
        mass=0.05,
        **_contact(),
    )


def _bottle(body: mujoco.MjsBody, entity: Entity) -> None:
    r, h = entity.size, entity.half_height
    body.add_geom(
        name=f"{entity.name}/paint",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[r, 0.032, 0],
        pos=[0, 0, -h + 0.032],
        mass=0.04,
        **_contact(),
    )
    body.add_geom(
        name=f"{entity.name}/paint_neck",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[r * 0.55, 0.013, 0],
        pos=[0, 0, h - 0.013],
        mass=0.01,
        **_contact(),
    )


def _bowl(body: mujoco.MjsBody, entity: Entity) -> None:
    body.add_geom(
        name=f"{entity.name}/paint_floor",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[BOWL_INNER_RADIUS_M, 0.003, 0],
        pos=[0, 0, 0.003],
        friction=[0.6, 0.01, 0.0005],
    )
    sides, height = 8, 0.011
    radius = BOWL_INNER_RADIUS_M + 0.004
    for i in range(sides):
        angle = 2 * math.pi * i / sides
        body.add_geom(
            name=f"{entity.name}/paint_wall{i}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.003, radius * math.tan(math.pi / sides) * 1.04, height],
            pos=[radius * math.cos(angle), radius * math.sin(angle), height],
            quat=_quat_z_then_lean(angle, 0.25),
            friction=[0.4, 0.01, 0.0005],
        )


def _plate(body: mujoco.MjsBody, entity: Entity) -> None:
    body.add_geom(
        name=f"{entity.name}/paint",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[PLATE_RADIUS_M, 0.003, 0],
        pos=[0, 0, 0.003],
        friction=[0.6, 0.01, 0.0005],
    )


def _zone(body: mujoco.MjsBody, entity: Entity) -> None:
    body.add_geom(
        name=f"{entity.name}/paint",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[ZONE_HALF_LENGTH_M, entity.size, 0.0008],
        pos=[0, 0, 0.0008],
        contype=0,
        conaffinity=0,
    )


def _button(body: mujoco.MjsBody, entity: Entity) -> None:
    body.add_geom(
        name=f"{entity.name}/base",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[0.03, 0.006, 0],
        pos=[0, 0, 0.006],
        rgba=_GREY,
    )
    cap = body.add_body(name=f"{entity.name}/cap", pos=[0, 0, 0.026])
    cap.add_joint(
        name=f"{entity.name}/slide",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[0, 0, -1],
        limited=True,
        range=[0, BUTTON_TRAVEL_M],
        stiffness=60.0,
        damping=1.5,
        springref=-0.004,
    )
    cap.add_geom(
        name=f"{entity.name}/paint",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[entity.size, 0.008, 0],
        mass=0.03,
    )


def _cabinet(body: mujoco.MjsBody, entity: Entity) -> None:
    """Two drawers side by side that slide towards the robot (-x); knobs stand up to be grasped."""
    body.add_geom(
        name=f"{entity.name}/top",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.05, DRAWER_SPACING_M, 0.004],
        pos=[0.08, 0, 0.044],
        rgba=(0.62, 0.52, 0.42, 1),
    )
    for y in (-DRAWER_SPACING_M, 0.0, DRAWER_SPACING_M):
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.05, 0.004, 0.022],
            pos=[0.08, y, 0.022],
            rgba=(0.55, 0.45, 0.36, 1),
            contype=0,
            conaffinity=0,
        )
    for i, y in enumerate((-DRAWER_SPACING_M / 2, DRAWER_SPACING_M / 2)):
        name = f"{entity.name}/drawer{i}"
        drawer = body.add_body(name=name, pos=[0.03, y, 0])
        drawer.add_joint(
            name=f"{name}/slide",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[-1, 0, 0],
            limited=True,
            range=[0, DRAWER_TRAVEL_M],
            damping=6.0,
            frictionloss=0.3,
        )
        half_width = DRAWER_SPACING_M / 2 - 0.008
        drawer.add_geom(
            name=f"{name}/paint_front",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.005, half_width, 0.017],
            pos=[0, 0, 0.02],
            mass=0.1,
            contype=0,
            conaffinity=0,
        )
        drawer.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.04, half_width, 0.003],
            pos=[0.045, 0, 0.008],
            mass=0.1,
            rgba=(0.75, 0.68, 0.6, 1),
            contype=0,
            conaffinity=0,
        )
        drawer.add_geom(
            name=f"{name}/paint_knob",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.012, 0.012, 0.02],
            pos=[-0.006, 0, KNOB_HEIGHT_M],
            mass=0.05,
            **_contact(),
        )


def _peg(body: mujoco.MjsBody, entity: Entity) -> None:
    body.add_geom(
        name=f"{entity.name}/paint",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[entity.size, PEG_HALF_HEIGHT_M, 0],
        mass=0.05,
        **_contact(),
    )


def _socket(body: mujoco.MjsBody, entity: Entity) -> None:
    """Four walls around a square hole with a dark floor."""
    wall, half = 0.009, SOCKET_HEIGHT_M / 2
    across = SOCKET_HOLE_M + wall
    for i, (x, y) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
        body.add_geom(
            name=f"{entity.name}/paint_wall{i}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[wall if x else SOCKET_HOLE_M + 2 * wall, wall if y else SOCKET_HOLE_M, half],
            pos=[x * across, y * across, half],
            friction=[0.2, 0.01, 0.0005],
        )
    body.add_geom(
        name=f"{entity.name}/floor",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[SOCKET_HOLE_M, SOCKET_HOLE_M, 0.001],
        pos=[0, 0, 0.001],
        rgba=(0.15, 0.15, 0.16, 1),
    )


def _dial(body: mujoco.MjsBody, entity: Entity) -> None:
    """A bar on a disc that turns about the vertical; the bar stands up to be grasped."""
    body.add_geom(
        name=f"{entity.name}/base",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[0.036, 0.005, 0],
        pos=[0, 0, 0.005],
        rgba=_GREY,
    )
    name = f"{entity.name}/handle"
    handle = body.add_body(name=name)
    handle.add_joint(
        name=f"{name}/slide",
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=[0, 0, 1],
        limited=True,
        range=[
            -math.degrees(DIAL_RANGE_RAD),
            math.degrees(DIAL_RANGE_RAD),
        ],  # the spec's angles are in degrees
        damping=0.03,
        frictionloss=0.1,
        armature=0.0005,
    )
    handle.add_geom(
        name=f"{name}/disc",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[0.032, 0.004, 0],
        pos=[0, 0, 0.014],
        mass=0.04,
        rgba=(0.86, 0.86, 0.84, 1),
        contype=0,
        conaffinity=0,
    )
    handle.add_geom(
        name=f"{name}/paint",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.03, 0.012, 0.018],
        pos=[0, 0, HANDLE_HEIGHT_M - 0.002],
        mass=0.05,
        **_contact(),
    )


def _slider(body: mujoco.MjsBody, entity: Entity) -> None:
    """A knob that slides along y on a rail."""
    body.add_geom(
        name=f"{entity.name}/base",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.018, SLIDER_RANGE_M + 0.02, 0.005],
        pos=[0, 0, 0.005],
        rgba=_GREY,
    )
    body.add_geom(
        name=f"{entity.name}/slot",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.004, SLIDER_RANGE_M + 0.008, 0.0006],
        pos=[0, 0, 0.0102],
        rgba=(0.15, 0.15, 0.16, 1),
        contype=0,
        conaffinity=0,
    )
    name = f"{entity.name}/handle"
    handle = body.add_body(name=name)
    handle.add_joint(
        name=f"{name}/slide",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[0, 1, 0],
        limited=True,
        range=[-SLIDER_RANGE_M, SLIDER_RANGE_M],
        damping=6.0,
        frictionloss=1.5,
    )
    handle.add_geom(
        name=f"{name}/paint",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.013, 0.012, 0.021],
        pos=[0, 0, HANDLE_HEIGHT_M - 0.005],
        mass=0.1,
        **_contact(),
    )


def _mark(body: mujoco.MjsBody, entity: Entity) -> None:
    """Something white painted on top of a cube or a cylinder; it touches nothing."""
    top, edge = entity.half_height, entity.size
    strips = {
        "dot": [(0.0, 0.0, 0.4, 0.4)],
        "bar": [(0.0, 0.0, 0.85, 0.22)],
        "frame": [
            (x, y, 0.7 if y else 0.12, 0.7 if x else 0.12)
            for x, y in ((0.58, 0), (-0.58, 0), (0, 0.58), (0, -0.58))
        ],
    }[entity.mark]
    for i, (x, y, half_x, half_y) in enumerate(strips):
        body.add_geom(
            name=f"{entity.name}/mark{i}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[half_x * edge, half_y * edge, 0.0006],
            pos=[x * edge, y * edge, top + 0.0004],
            rgba=(0.93, 0.93, 0.92, 1),
            mass=1e-5,
            contype=0,
            conaffinity=0,
        )


def _contact() -> dict:
    # Sliding friction low enough that rubber fingers (1.8) pushing sideways cannot wedge a thing
    # into the table: 1.8 * 0.45 < 1. Held things feel the pads' friction, which has priority.
    return {"friction": [OBJECT_FRICTION, 0.01, 0.0005], "condim": 4}


def _quat_z_then_lean(angle: float, lean: float) -> list[float]:
    """Rotation about z by ``angle``, then about the new y by ``lean`` (walls lean outwards)."""
    cz, sz, cy, sy = math.cos(angle / 2), math.sin(angle / 2), math.cos(lean / 2), math.sin(lean / 2)
    return [cz * cy, -sz * sy, cz * sy, sz * cy]


_BUILDERS = {
    "cube": _cube,
    "cylinder": _cylinder,
    "bottle": _bottle,
    "bowl": _bowl,
    "plate": _plate,
    "zone": _zone,
    "button": _button,
    "cabinet": _cabinet,
    "peg": _peg,
    "socket": _socket,
    "dial": _dial,
    "slider": _slider,
}
