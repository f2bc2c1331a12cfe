"""Slide: move the knob of the named slider to the left or to the right end of its rail."""

from __future__ import annotations

import numpy as np

from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.objects import SLIDER_RANGE_M, Entity
from vla_envs.tabletop.tasks.base import Goal, Layout, distinct_looks, standing
from vla_envs.tabletop.tasks.push import num_rows, rows
from vla_envs.tabletop.tasks.turn import clasped, handle_position
from vla_envs.tabletop.world import World

MOVED_M = 0.042
START_M = 0.018
#: Left and right are the viewer's, who sits across the table from the robot: left is -y.
SIDE = {"slide_left": -1.0, "slide_right": 1.0}


class Slide:
    name = "slide"
    max_steps = 50

    def pool(self, arm: ArmModel) -> tuple[Entity, ...]:
        return tuple(Entity(name=f"slider{i}", kind="slider") for i in range(num_rows(arm)))

    def layout(self, rng: np.random.Generator, arm: ArmModel) -> Layout:
        sliders = self.pool(arm)
        colors = distinct_looks([e.kind for e in sliders], rng)
        reach = arm.object_half_extent[1] - SLIDER_RANGE_M - 0.02
        return Layout(
            placements={
                e.name: standing(e, x, rng.uniform(-reach, reach))
                for e, x in zip(sliders, rows(rng, arm, len(sliders)), strict=True)
            },
            colors={f"{e.name}/handle": c for e, c in zip(sliders, colors, strict=True)},
            slides={f"{e.name}/handle": float(rng.uniform(-START_M, START_M)) for e in sliders},
        )

    def goals(self, layout: Layout, arm: ArmModel) -> list[Goal]:
        return [
            Goal(verb=verb, target=name, target_words=f"{color} slider")
            for name, color in layout.colors.items()
            for verb, side in SIDE.items()
            if layout.slides[name] * side < MOVED_M
        ]

    def achieved(self, goal: Goal, world: World) -> bool:
        moved = world.slide(goal.target) * SIDE[goal.verb] > MOVED_M
        return moved and clasped(goal.target, world)  # a stray sweep of the arm does not count

    def target_position(self, goal: Goal, world: World) -> np.ndarray:
        return handle_position(goal.target, world)

    def goal_position(self, goal: Goal, world: World) -> np.ndarray:
        wanted = SIDE[goal.verb] * SLIDER_RANGE_M
        return handle_position(goal.target, world) + [0.0, wanted - world.slide(goal.target), 0.0]
