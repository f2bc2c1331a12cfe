"""Push: slide the named cube along the table into the named zone, without lifting it."""

from __future__ import annotations

import numpy as np

from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.objects import ZONE_HALF_LENGTH_M, Entity
from vla_envs.tabletop.tasks.base import Goal, Layout, choose, distinct_looks, standing
from vla_envs.tabletop.world import World

ZONE_HALF_WIDTH_M = 0.038


class Push:
    """Zones lie left and right of the cubes; which colour lies where is drawn anew each time."""

    name = "push"
    max_steps = 60

    def pool(self, arm: ArmModel) -> tuple[Entity, ...]:
        return (
            *(Entity(name=f"cube{i}", kind="cube") for i in range(num_rows(arm))),
            *(Entity(name=f"zone{i}", kind="zone", size=ZONE_HALF_WIDTH_M) for i in range(2)),
        )

    def layout(self, rng: np.random.Generator, arm: ArmModel) -> Layout:
        pool = {e.name: e for e in self.pool(arm)}
        cubes = [e for e in pool.values() if e.kind == "cube"]
        colors = distinct_looks([e.kind for e in pool.values()], rng)
        placements = {
            cube.name: standing(cube, x, rng.uniform(-0.02, 0.02), rng.uniform(-0.25, 0.25))
            for cube, x in zip(cubes, rows(rng, arm, len(cubes)), strict=True)
        }
        zone_y = arm.object_half_extent[1] - 0.015 - rng.uniform(0.0, 0.02)
        for name, side in zip(choose(rng, ["zone0", "zone1"], 2), (-1, 1), strict=True):
            placements[name] = standing(pool[name], rng.uniform(-0.01, 0.01), side * zone_y)
        return Layout(placements=placements, colors=dict(zip(pool, colors, strict=True)))

    def goals(self, layout: Layout, arm: ArmModel) -> list[Goal]:
        return [
            Goal(
                verb="push",
                target=cube,
                target_words=f"{layout.colors[cube]} cube",
                destination=zone,
                destination_words=f"{layout.colors[zone]} zone",
            )
            for cube in layout.colors
            if cube.startswith("cube")
            for zone in ("zone0", "zone1")
        ]

    def achieved(self, goal: Goal, world: World) -> bool:
        assert goal.destination is not None
        offset = np.abs(world.position(goal.target) - world.position(goal.destination))
        on_table = world.position(goal.target)[2] < world.pool[goal.target].half_height + 0.01
        return bool(offset[0] < ZONE_HALF_LENGTH_M and offset[1] < ZONE_HALF_WIDTH_M and on_table)

    def target_position(self, goal: Goal, world: World) -> np.ndarray:
        return world.position(goal.target)

    def goal_position(self, goal: Goal, world: World) -> np.ndarray:
        assert goal.destination is not None
        return np.array([world.position(goal.target)[0], world.position(goal.destination)[1], 0.0])


def num_rows(arm: ArmModel) -> int:
    """How many rows (along x, 7.5 cm apart) fit the arm's reach."""
    return 3 if arm.object_half_extent[0] >= 0.09 else 2


def rows(rng: np.random.Generator, arm: ArmModel, num: int) -> np.ndarray:
    """[num] x positions of rows whose paths along y do not cross, in random order, m."""
    spacing = 0.08
    centre = (np.arange(num) - (num - 1) / 2) * spacing
    slack = max(0.0, arm.object_half_extent[0] - 0.01 - centre.max())
    return rng.permutation(centre) + rng.uniform(-slack, slack) * 0.5
