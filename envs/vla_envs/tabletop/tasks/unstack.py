"""Unstack: take the named cube off the cube it stands on, and leave that one where it is."""

from __future__ import annotations

import dataclasses

import numpy as np

from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.objects import Entity
from vla_envs.tabletop.tasks.base import NOWHERE, Goal, Layout, distinct_looks, scatter
from vla_envs.tabletop.world import World

CLEAR_M = 0.045  # of the upper cube's centre over where it stood
UPRIGHT_RAD = 0.2
TOWERS = (("top0", "base0"), ("top1", "base1"))


class Unstack:
    name = "unstack"
    max_steps = 50

    def pool(self, arm: ArmModel) -> tuple[Entity, ...]:
        return tuple(
            Entity(name=name, kind="cube", size=0.019 if name.startswith("top") else 0.021)
            for tower in TOWERS
            for name in tower
        )

    def layout(self, rng: np.random.Generator, arm: ArmModel) -> Layout:
        pool = {e.name: e for e in self.pool(arm)}
        colors = distinct_looks([e.kind for e in pool.values()], rng)
        bases = [pool[base] for _, base in TOWERS]
        placements = scatter(bases, rng, arm.object_half_extent, gap=0.02)
        for top, base in TOWERS:
            below = placements[base]
            x, y, z = below.position
            placements[top] = dataclasses.replace(
                below,
                position=(x, y, z + pool[base].half_height + pool[top].half_height),
                yaw=below.yaw + float(rng.uniform(-0.2, 0.2)),
            )
        return Layout(placements=placements, colors=dict(zip(pool, colors, strict=True)))

    def goals(self, layout: Layout, arm: ArmModel) -> list[Goal]:
        return [
            Goal(
                verb="unstack",
                target=top,
                target_words=f"{layout.colors[top]} cube",
                destination=base,
                destination_words=f"{layout.colors[base]} cube",
                beside=True,
            )
            for top, base in TOWERS
        ]

    def achieved(self, goal: Goal, world: World) -> bool:
        assert goal.destination is not None
        top, base = world.pool[goal.target], world.pool[goal.destination]
        stands = 2 * base.half_height + top.half_height
        return bool(
            world.position(goal.target)[2] > stands + CLEAR_M
            and not world.released(goal.target)
            and world.tilt(goal.destination) < UPRIGHT_RAD
            and world.position(goal.destination)[2] < base.half_height + 0.006
        )

    def target_position(self, goal: Goal, world: World) -> np.ndarray:
        return world.position(goal.target)

    def goal_position(self, goal: Goal, world: World) -> np.ndarray:
        return NOWHERE
