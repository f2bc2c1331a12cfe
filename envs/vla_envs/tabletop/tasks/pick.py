"""Pick: lift the named object from among others that share its colour or its shape."""

from __future__ import annotations

import numpy as np

from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.objects import Entity
from vla_envs.tabletop.tasks.base import NOWHERE, Goal, Layout, choose, distinct_looks, scatter
from vla_envs.tabletop.world import World

LIFT_M = 0.05


class Pick:
    name = "pick"
    max_steps = 50
    num_objects = 4

    def pool(self, arm: ArmModel) -> tuple[Entity, ...]:
        return movable_pool()

    def layout(self, rng: np.random.Generator, arm: ArmModel) -> Layout:
        pool = {e.name: e for e in self.pool(arm)}
        chosen = [pool[name] for name in choose(rng, list(pool), self.num_objects)]
        colors = distinct_looks([e.kind for e in chosen], rng)
        return Layout(
            placements=scatter(chosen, rng, arm.object_half_extent),
            colors={e.name: c for e, c in zip(chosen, colors, strict=True)},
        )

    def goals(self, layout: Layout, arm: ArmModel) -> list[Goal]:
        kinds = {e.name: e.kind for e in self.pool(arm)}
        return [
            Goal(verb="pick", target=name, target_words=f"{color} {kinds[name]}")
            for name, color in layout.colors.items()
        ]

    def achieved(self, goal: Goal, world: World) -> bool:
        return lifted(goal.target, world)

    def target_position(self, goal: Goal, world: World) -> np.ndarray:
        return world.position(goal.target)

    def goal_position(self, goal: Goal, world: World) -> np.ndarray:
        return NOWHERE


def movable_pool() -> tuple[Entity, ...]:
    """Three cubes and two upright cylinders."""
    return (
        *(Entity(name=f"cube{i}", kind="cube") for i in range(3)),
        *(Entity(name=f"cylinder{i}", kind="cylinder", size=0.018) for i in range(2)),
    )


def lifted(name: str, world: World) -> bool:
    """Its centre is ``LIFT_M`` above where it stands on the table, in the fingers."""
    entity = world.pool[name]
    return bool(world.position(name)[2] > entity.half_height + LIFT_M and not world.released(name))
