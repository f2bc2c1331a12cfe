"""Press: push down the named button."""

from __future__ import annotations

import numpy as np

from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.objects import Entity
from vla_envs.tabletop.tasks.base import NOWHERE, Goal, Layout, distinct_looks, scatter
from vla_envs.tabletop.world import World

PRESSED_M = 0.006
CAP_HEIGHT_M = 0.034


class Press:
    name = "press"
    max_steps = 50

    def pool(self, arm: ArmModel) -> tuple[Entity, ...]:
        return tuple(Entity(name=f"button{i}", kind="button", size=0.022) for i in range(4))

    def layout(self, rng: np.random.Generator, arm: ArmModel) -> Layout:
        buttons = self.pool(arm)
        colors = distinct_looks([e.kind for e in buttons], rng)
        return Layout(
            placements=scatter(buttons, rng, arm.object_half_extent, gap=0.01, max_yaw=0.0, graspable=False),
            colors={e.name: c for e, c in zip(buttons, colors, strict=True)},
        )

    def goals(self, layout: Layout, arm: ArmModel) -> list[Goal]:
        return [
            Goal(verb="press", target=name, target_words=f"{color} button")
            for name, color in layout.colors.items()
        ]

    def achieved(self, goal: Goal, world: World) -> bool:
        return world.slide(goal.target) > PRESSED_M

    def target_position(self, goal: Goal, world: World) -> np.ndarray:
        return world.position(goal.target) + [0.0, 0.0, CAP_HEIGHT_M]

    def goal_position(self, goal: Goal, world: World) -> np.ndarray:
        return NOWHERE
