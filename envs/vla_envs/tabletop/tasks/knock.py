"""Knock: tip the named bottle over and leave the others standing."""

from __future__ import annotations

import math

import numpy as np

from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.objects import Entity
from vla_envs.tabletop.tasks.base import NOWHERE, Goal, Layout, distinct_looks, standing
from vla_envs.tabletop.tasks.push import num_rows, rows
from vla_envs.tabletop.world import World

FALLEN_RAD = math.radians(60)


class Knock:
    name = "knock"
    max_steps = 50

    def pool(self, arm: ArmModel) -> tuple[Entity, ...]:
        return tuple(Entity(name=f"bottle{i}", kind="bottle", size=0.017) for i in range(num_rows(arm)))

    def layout(self, rng: np.random.Generator, arm: ArmModel) -> Layout:
        bottles = self.pool(arm)
        colors = distinct_looks([e.kind for e in bottles], rng)
        reach = arm.object_half_extent[1] - 0.06
        return Layout(
            placements={
                e.name: standing(e, x, rng.uniform(-reach, reach))
                for e, x in zip(bottles, rows(rng, arm, len(bottles)), strict=True)
            },
            colors={e.name: c for e, c in zip(bottles, colors, strict=True)},
        )

    def goals(self, layout: Layout, arm: ArmModel) -> list[Goal]:
        return [
            Goal(verb="knock", target=name, target_words=f"{color} bottle")
            for name, color in layout.colors.items()
        ]

    def achieved(self, goal: Goal, world: World) -> bool:
        return world.tilt(goal.target) > FALLEN_RAD

    def target_position(self, goal: Goal, world: World) -> np.ndarray:
        return world.position(goal.target)

    def goal_position(self, goal: Goal, world: World) -> np.ndarray:
        return NOWHERE
