"""Beside: put the named cube left of, right of, in front of or behind the other named cube."""

from __future__ import annotations

import numpy as np

from vla.errors import EnvError
from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.objects import Entity
from vla_envs.tabletop.tasks.base import Goal, Layout, distinct_looks, scatter
from vla_envs.tabletop.tasks.relation import COMPASS
from vla_envs.tabletop.world import World

SPOT_M = {"left_of": 0.085, "right_of": 0.085, "behind": 0.075, "in_front_of": 0.075}
NEAREST_M, FARTHEST_M, ASIDE_M = 0.045, 0.125, 0.032
FREE_M = (0.06, 0.085)  # room that a cube and open fingers (which close along y) need around a spot, x and y
MIN_GOALS = 4


class Beside:
    name = "beside"
    max_steps = 80

    def pool(self, arm: ArmModel) -> tuple[Entity, ...]:
        return tuple(Entity(name=f"cube{i}", kind="cube") for i in range(3))

    def layout(self, rng: np.random.Generator, arm: ArmModel) -> Layout:
        cubes = self.pool(arm)
        colors = distinct_looks([e.kind for e in cubes], rng)
        for _ in range(500):
            layout = Layout(
                placements=scatter(cubes, rng, arm.object_half_extent, gap=0.015),
                colors={e.name: c for e, c in zip(cubes, colors, strict=True)},
            )
            goals = self.goals(layout, arm)
            if len(goals) >= MIN_GOALS and len({goal.target for goal in goals}) > 1:
                return layout
        raise EnvError(f"No layout of three cubes with room beside them for {arm.name!r}.")

    def goals(self, layout: Layout, arm: ArmModel) -> list[Goal]:
        where = {name: np.array(p.position) for name, p in layout.placements.items()}
        limits = np.array(arm.object_half_extent)
        goals = []
        for cube, start in where.items():
            for reference, stands in where.items():
                for side in COMPASS:
                    spot = spot_beside(stands, side)
                    taken = any(
                        (np.abs(spot - position)[:2] < FREE_M).all()
                        for name, position in where.items()
                        if name not in (cube, reference)
                    )
                    done = stands_beside(start - stands, side)
                    inside = (np.abs(spot[:2]) < limits).all()
                    if cube != reference and inside and not taken and not done:
                        goals.append(_goal(cube, reference, side, layout))
        return goals

    def achieved(self, goal: Goal, world: World) -> bool:
        assert goal.destination is not None
        offset = world.position(goal.target) - world.position(goal.destination)
        return bool(
            stands_beside(offset, goal.verb)
            and abs(offset[2]) < 0.006
            and world.speed(goal.target) < 0.05
            and world.released(goal.target)
        )

    def target_position(self, goal: Goal, world: World) -> np.ndarray:
        return world.position(goal.target)

    def goal_position(self, goal: Goal, world: World) -> np.ndarray:
        assert goal.destination is not None
        return spot_beside(world.position(goal.destination), goal.verb)


def spot_beside(reference: np.ndarray, side: str) -> np.ndarray:
    """[3] where a cube shall stand to be on that side of the reference, m."""
    dx, dy = COMPASS[side]
    return reference + SPOT_M[side] * np.array([dx, dy, 0.0])


def stands_beside(offset: np.ndarray, side: str) -> bool:
    """Whether a thing ``offset`` [3] from the reference is on that side of it, next to it."""
    dx, dy = COMPASS[side]
    along, aside = offset[0] * dx + offset[1] * dy, abs(offset[0] * dy) + abs(offset[1] * dx)
    return bool(NEAREST_M < along < FARTHEST_M and aside < ASIDE_M)


def _goal(cube: str, reference: str, side: str, layout: Layout) -> Goal:
    return Goal(
        verb=side,
        target=cube,
        target_words=f"{layout.colors[cube]} cube",
        destination=reference,
        destination_words=f"{layout.colors[reference]} cube",
        beside=True,
    )
