"""Stack: put the named cube on top of the other named cube."""

from __future__ import annotations

import numpy as np

from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.objects import Entity
from vla_envs.tabletop.tasks.base import Goal, Layout, distinct_looks, scatter
from vla_envs.tabletop.world import World


class Stack:
    name = "stack"
    max_steps = 80

    def pool(self, arm: ArmModel) -> tuple[Entity, ...]:
        return tuple(Entity(name=f"cube{i}", kind="cube") for i in range(3))

    def layout(self, rng: np.random.Generator, arm: ArmModel) -> Layout:
        cubes = self.pool(arm)
        colors = distinct_looks([e.kind for e in cubes], rng)
        return Layout(
            placements=scatter(cubes, rng, arm.object_half_extent, gap=0.015),
            colors={e.name: c for e, c in zip(cubes, colors, strict=True)},
        )

    def goals(self, layout: Layout, arm: ArmModel) -> list[Goal]:
        return [
            Goal(
                verb="stack",
                target=top,
                target_words=f"{layout.colors[top]} cube",
                destination=base,
                destination_words=f"{layout.colors[base]} cube",
            )
            for top in layout.colors
            for base in layout.colors
            if top != base
        ]

    def achieved(self, goal: Goal, world: World) -> bool:
        assert goal.destination is not None
        top, base = world.pool[goal.target], world.pool[goal.destination]
        offset = world.position(goal.target) - world.position(goal.destination)
        return bool(
            np.hypot(offset[0], offset[1]) < base.size
            and abs(offset[2] - top.half_height - base.half_height) < 0.006
            and world.speed(goal.target) < 0.05
            and world.released(goal.target)
        )

    def target_position(self, goal: Goal, world: World) -> np.ndarray:
        return world.position(goal.target)

    def goal_position(self, goal: Goal, world: World) -> np.ndarray:
        assert goal.destination is not None
        return world.position(goal.destination)
