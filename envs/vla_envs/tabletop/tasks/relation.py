"""Relation: lift the cube that stands in the said relation, or has the said size; colours don't help."""

from __future__ import annotations

import numpy as np

from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.instructions import RELATIONS
from vla_envs.tabletop.names import COLORS
from vla_envs.tabletop.objects import Entity
from vla_envs.tabletop.tasks.base import NOWHERE, Goal, Layout, choose, scatter, standing
from vla_envs.tabletop.tasks.pick import lifted
from vla_envs.tabletop.world import World

SIZES_M = {"cube0": 0.020, "cube1": 0.020, "cube2": 0.020, "small": 0.014, "large": 0.023}
#: Offsets from the bowl, m. Left, right, in front and behind are the viewer's, who sits across the
#: table from the robot and sees what the front camera sees: left is -y, in front is +x.
COMPASS = {
    "left_of": (0.0, -1.0),
    "right_of": (0.0, 1.0),
    "behind": (-1.0, 0.0),
    "in_front_of": (1.0, 0.0),
}


class Relation:
    name = "relation"
    max_steps = 50

    def pool(self, arm: ArmModel) -> tuple[Entity, ...]:
        return (
            *(Entity(name=name, kind="cube", size=size) for name, size in SIZES_M.items()),
            Entity(name="bowl", kind="bowl"),
        )

    def layout(self, rng: np.random.Generator, arm: ArmModel) -> Layout:
        pool = {e.name: e for e in self.pool(arm)}
        mode = (self._compass, self._row, self._sizes)[int(rng.integers(3))]
        placements = mode(rng, arm, pool)
        color = choose(rng, list(COLORS), 2)
        return Layout(
            placements=placements,
            colors={name: color[1] if name == "bowl" else color[0] for name in placements},
        )

    def goals(self, layout: Layout, arm: ArmModel) -> list[Goal]:
        where = {n: p.position for n, p in layout.placements.items()}
        cubes = [n for n in where if n != "bowl"]
        if "bowl" in where:
            found = {}
            for relation, (dx, dy) in COMPASS.items():
                along = {
                    c: (where[c][0] - where["bowl"][0]) * dx + (where[c][1] - where["bowl"][1]) * dy
                    for c in cubes
                }
                best = max(along, key=lambda c: along[c])
                if along[best] > 0.05:
                    found[relation] = best
        elif "small" in where:
            found = {"smallest": "small", "largest": "large"}
        else:
            ordered = sorted(cubes, key=lambda c: where[c][1])
            found = {"left": ordered[0], "middle": ordered[1], "right": ordered[2]}
        bowl = (((layout.colors["bowl"], "bowl")),) if "bowl" in where else ()
        return [
            Goal(
                verb="pick",
                target=cube,
                target_words=RELATIONS[relation][0],
                relation=relation,
                also_called=((layout.colors[cube], "cube"), *bowl),
            )
            for relation, cube in found.items()
        ]

    def achieved(self, goal: Goal, world: World) -> bool:
        return lifted(goal.target, world)

    def target_position(self, goal: Goal, world: World) -> np.ndarray:
        return world.position(goal.target)

    def goal_position(self, goal: Goal, world: World) -> np.ndarray:
        return NOWHERE

    def _compass(self, rng, arm: ArmModel, pool):
        """A bowl with cubes on three of its four sides."""
        a, b = arm.object_half_extent
        reach_x, reach_y = (0.08, min(a, 0.1)), (0.108, min(b, 0.125))  # open fingers pass the rim in y
        placements = {"bowl": standing(pool["bowl"], *rng.uniform(-0.008, 0.008, 2))}
        for cube, side in zip(("cube0", "cube1", "cube2"), choose(rng, list(COMPASS), 3), strict=True):
            dx, dy = COMPASS[side]
            nearest, farthest = reach_x if dx else reach_y
            along = rng.uniform(min(nearest, farthest), farthest)
            aside = rng.uniform(-0.015, 0.015)
            placements[cube] = standing(
                pool[cube], dx * along + dy * aside, dy * along + dx * aside, rng.uniform(-0.4, 0.4)
            )
        return placements

    def _row(self, rng, arm: ArmModel, pool):
        """Three cubes from left to right at clearly different y, any x."""
        a, b = arm.object_half_extent
        spread = rng.uniform(0.075, b - 0.02)
        centre = rng.uniform(-(b - spread), b - spread)
        cubes = choose(rng, ["cube0", "cube1", "cube2"], 3)
        return {
            cube: standing(pool[cube], rng.uniform(-a, a) * 0.9, centre + k * spread, rng.uniform(-0.4, 0.4))
            for cube, k in zip(cubes, (-1, 0, 1), strict=True)
        }

    def _sizes(self, rng, arm: ArmModel, pool):
        """A small, a middling and a large cube."""
        return scatter([pool[n] for n in ("small", "cube0", "large")], rng, arm.object_half_extent, gap=0.02)
