"""Place: put the named object in the named bowl or on the named plate."""

from __future__ import annotations

import numpy as np

from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.objects import BOWL_INNER_RADIUS_M, PLATE_RADIUS_M, Entity
from vla_envs.tabletop.tasks.base import Goal, Layout, choose, distinct_looks, scatter
from vla_envs.tabletop.tasks.pick import movable_pool
from vla_envs.tabletop.world import World


class Place:
    name = "place"
    max_steps = 80

    def pool(self, arm: ArmModel) -> tuple[Entity, ...]:
        return (
            *movable_pool(),
            *(Entity(name=f"bowl{i}", kind="bowl") for i in range(2)),
            *(Entity(name=f"plate{i}", kind="plate") for i in range(2)),
        )

    def layout(self, rng: np.random.Generator, arm: ArmModel) -> Layout:
        pool = {e.name: e for e in self.pool(arm)}
        objects = choose(rng, [n for n, e in pool.items() if e.kind in ("cube", "cylinder")], 2)
        goals = choose(rng, [n for n, e in pool.items() if e.kind in ("bowl", "plate")], 2)
        chosen = [pool[name] for name in (*goals, *objects)]
        colors = distinct_looks([e.kind for e in chosen], rng)
        return Layout(
            placements=scatter(chosen, rng, arm.object_half_extent),
            colors={e.name: c for e, c in zip(chosen, colors, strict=True)},
        )

    def goals(self, layout: Layout, arm: ArmModel) -> list[Goal]:
        kinds = {e.name: e.kind for e in self.pool(arm)}
        things = [n for n in layout.colors if kinds[n] in ("cube", "cylinder")]
        places = [n for n in layout.colors if kinds[n] in ("bowl", "plate")]
        return [
            Goal(
                verb="place",
                target=thing,
                target_words=f"{layout.colors[thing]} {kinds[thing]}",
                destination=place,
                destination_words=f"{layout.colors[place]} {kinds[place]}",
                prep="in" if kinds[place] == "bowl" else "on",
            )
            for thing in things
            for place in places
        ]

    def achieved(self, goal: Goal, world: World) -> bool:
        assert goal.destination is not None
        return resting_in(goal.target, goal.destination, world)

    def target_position(self, goal: Goal, world: World) -> np.ndarray:
        return world.position(goal.target)

    def goal_position(self, goal: Goal, world: World) -> np.ndarray:
        assert goal.destination is not None
        return world.position(goal.destination)


def resting_in(thing: str, place: str, world: World) -> bool:
    """Inside the bowl's rim or on the plate, low, slow, and let go."""
    offset = world.position(thing) - world.position(place)
    radius = BOWL_INNER_RADIUS_M if world.pool[place].kind == "bowl" else PLATE_RADIUS_M
    low = offset[2] < world.pool[thing].half_height + 0.02
    inside = float(np.hypot(offset[0], offset[1])) < radius * 0.9
    return bool(inside and low and world.speed(thing) < 0.05 and world.released(thing))
