"""Turn: turn the bar of the named dial clockwise or counterclockwise, as seen from above."""

from __future__ import annotations

import numpy as np

from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.objects import HANDLE_HEIGHT_M, Entity
from vla_envs.tabletop.tasks.base import NOWHERE, Goal, Layout, distinct_looks, scatter
from vla_envs.tabletop.world import World

TURNED_RAD = 0.75
START_RAD = 0.25
CLASP_M = 0.025  # from the tool's centre to the handle's, at most
CLASP_OPENING = 0.6
SENSE = {"clockwise": -1.0, "counterclockwise": 1.0}


class Turn:
    name = "turn"
    max_steps = 60

    def pool(self, arm: ArmModel) -> tuple[Entity, ...]:
        return tuple(Entity(name=f"dial{i}", kind="dial") for i in range(2))

    def layout(self, rng: np.random.Generator, arm: ArmModel) -> Layout:
        dials = self.pool(arm)
        colors = distinct_looks([e.kind for e in dials], rng)
        a, b = arm.object_half_extent
        return Layout(
            placements=scatter(dials, rng, (a - 0.015, b - 0.015), gap=0.05, max_yaw=0.0, graspable=False),
            colors={f"{e.name}/handle": c for e, c in zip(dials, colors, strict=True)},
            slides={f"{e.name}/handle": float(rng.uniform(-START_RAD, START_RAD)) for e in dials},
        )

    def goals(self, layout: Layout, arm: ArmModel) -> list[Goal]:
        return [
            Goal(verb=verb, target=name, target_words=f"{color} dial")
            for name, color in layout.colors.items()
            for verb, sense in SENSE.items()
            if layout.slides[name] * sense < TURNED_RAD
        ]

    def achieved(self, goal: Goal, world: World) -> bool:
        turned = world.slide(goal.target) * SENSE[goal.verb] > TURNED_RAD
        return turned and clasped(goal.target, world)  # a stray sweep of the arm does not count

    def target_position(self, goal: Goal, world: World) -> np.ndarray:
        return handle_position(goal.target, world)

    def goal_position(self, goal: Goal, world: World) -> np.ndarray:
        return NOWHERE


def handle_position(handle: str, world: World) -> np.ndarray:
    """[3] where to grasp a dial's bar or a slider's knob, m."""
    return world.position(handle) + [0.0, 0.0, HANDLE_HEIGHT_M]


def clasped(handle: str, world: World) -> bool:
    """Whether the fingers have closed around a handle; one that cannot give way may touch just one."""
    near = float(np.linalg.norm(world.tcp - handle_position(handle, world))) < CLASP_M
    return near and world.gripper_opening < CLASP_OPENING and not world.released(handle)
