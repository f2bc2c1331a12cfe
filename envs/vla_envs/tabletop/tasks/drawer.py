"""Drawer: open or close the named one of two drawers; half-open ones make the verb matter."""

from __future__ import annotations

import numpy as np

from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.objects import DRAWER_TRAVEL_M, KNOB_HEIGHT_M, Entity
from vla_envs.tabletop.tasks.base import Goal, Layout, Placement, distinct_looks
from vla_envs.tabletop.world import World

CABINET = "cabinet"
OPEN_M = 0.064
CLOSED_M = 0.014
STARTS_M = (0.0, DRAWER_TRAVEL_M / 2, DRAWER_TRAVEL_M)


class Drawer:
    name = "drawer"
    max_steps = 60

    def pool(self, arm: ArmModel) -> tuple[Entity, ...]:
        return (Entity(name=CABINET, kind="cabinet"),)

    def layout(self, rng: np.random.Generator, arm: ArmModel) -> Layout:
        drawers = [f"{CABINET}/drawer{i}" for i in (0, 1)]
        colors = distinct_looks(["drawer", "drawer"], rng)
        x = min(0.03, arm.object_half_extent[0] - 0.055) + rng.uniform(-0.012, 0.012)
        return Layout(
            placements={CABINET: Placement(position=(x, float(rng.uniform(-0.015, 0.015)), 0.0))},
            colors=dict(zip(drawers, colors, strict=True)),
            slides={d: STARTS_M[int(rng.integers(3))] for d in drawers},
        )

    def goals(self, layout: Layout, arm: ArmModel) -> list[Goal]:
        goals = []
        for name, color in layout.colors.items():
            for verb, done in (
                ("open", layout.slides[name] > OPEN_M),
                ("close", layout.slides[name] < CLOSED_M),
            ):
                if not done:
                    goals.append(Goal(verb=verb, target=name, target_words=f"{color} drawer"))
        return goals

    def achieved(self, goal: Goal, world: World) -> bool:
        travel = world.slide(goal.target)
        return travel > OPEN_M if goal.verb == "open" else travel < CLOSED_M

    def target_position(self, goal: Goal, world: World) -> np.ndarray:
        return knob_position(goal.target, world)

    def goal_position(self, goal: Goal, world: World) -> np.ndarray:
        wanted = DRAWER_TRAVEL_M if goal.verb == "open" else 0.0
        return knob_position(goal.target, world) - [wanted - world.slide(goal.target), 0.0, 0.0]


def knob_position(drawer: str, world: World) -> np.ndarray:
    """[3] centre of the drawer's knob, m."""
    return world.position(drawer) + [-0.006, 0.0, KNOB_HEIGHT_M]
