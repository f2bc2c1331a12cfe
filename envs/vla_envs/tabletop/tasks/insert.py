"""Insert: put the named peg into the hole of the named socket."""

from __future__ import annotations

import numpy as np

from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.objects import SOCKET_HOLE_M, Entity
from vla_envs.tabletop.tasks.base import Goal, Layout, distinct_looks, scatter
from vla_envs.tabletop.world import World

PEG_RADIUS_M = 0.012
LEAN_RAD = 0.7  # of a peg in the hole against a wall, at most


class Insert:
    name = "insert"
    max_steps = 90

    def pool(self, arm: ArmModel) -> tuple[Entity, ...]:
        return (
            *(Entity(name=f"socket{i}", kind="socket") for i in range(2)),
            *(Entity(name=f"peg{i}", kind="peg", size=PEG_RADIUS_M) for i in range(2)),
        )

    def layout(self, rng: np.random.Generator, arm: ArmModel) -> Layout:
        things = self.pool(arm)
        colors = distinct_looks([e.kind for e in things], rng)
        return Layout(
            placements=scatter(things, rng, arm.object_half_extent, gap=0.015, max_yaw=0.3),
            colors={e.name: c for e, c in zip(things, colors, strict=True)},
        )

    def goals(self, layout: Layout, arm: ArmModel) -> list[Goal]:
        return [
            Goal(
                verb="insert",
                target=peg,
                target_words=f"{layout.colors[peg]} peg",
                destination=socket,
                destination_words=f"{layout.colors[socket]} socket",
                prep="into",
            )
            for peg in ("peg0", "peg1")
            for socket in ("socket0", "socket1")
        ]

    def achieved(self, goal: Goal, world: World) -> bool:
        return bool(in_hole(goal, world) and world.speed(goal.target) < 0.05 and world.released(goal.target))

    def target_position(self, goal: Goal, world: World) -> np.ndarray:
        return world.position(goal.target)

    def goal_position(self, goal: Goal, world: World) -> np.ndarray:
        assert goal.destination is not None
        return world.position(goal.destination)


def in_hole(goal: Goal, world: World) -> bool:
    """Whether the peg's foot is at the bottom of the hole."""
    assert goal.destination is not None
    offset = world.foot(goal.target) - world.position(goal.destination)
    inside = float(np.abs(offset[:2]).max()) < SOCKET_HOLE_M
    return bool(inside and offset[2] < 0.015 and world.tilt(goal.target) < LEAN_RAD)
