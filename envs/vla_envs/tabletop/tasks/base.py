"""What a task is: a pool of things, a random layout, the goals it admits, and when one is achieved.

A *goal* is one feasible instruction of a scene. Every scene admits several, so that only the
instruction tells what to do; ``swapped`` evaluation asks for another goal of the same scene.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from vla.errors import EnvError
from vla_envs.tabletop.arms import ArmModel
from vla_envs.tabletop.names import COLORS
from vla_envs.tabletop.objects import FREE_KINDS, Entity
from vla_envs.tabletop.world import World

FINGER_REACH_M = 0.056  # from the tool centre to the outside of an open finger, along y
FINGER_DEPTH_M = 0.012  # half extent of the fingers along x
NOWHERE = np.full(3, np.nan)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One feasible instruction: ``verb`` the ``target`` (to the ``destination``).

    ``target_words`` and ``destination_words`` are what a person calls them, e.g. "red cube". Where the
    target is named by a ``relation``, ``also_called`` are the (colour, noun) pairs that may be said besides.
    ``beside`` is true where the target goes not onto the destination but to a spot told from it.
    """

    verb: str
    target: str
    target_words: str
    destination: str | None = None
    destination_words: str | None = None
    prep: str = "on"
    relation: str | None = None
    also_called: tuple[tuple[str, str], ...] = ()
    beside: bool = False


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where an entity stands: x, y, z of its body in m, yaw in rad."""

    position: tuple[float, float, float]
    yaw: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A scene drawn from a seed: placements of the present entities, colours, positions of drawers,
    dials and sliders."""

    placements: Mapping[str, Placement]
    colors: Mapping[str, str]
    slides: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layout:
        """Inverse of ``dataclasses.asdict``."""
        placements = {
            name: Placement(position=tuple(p["position"]), yaw=p["yaw"])
            for name, p in data["placements"].items()
        }
        return cls(placements=placements, colors=data["colors"], slides=data["slides"])


class Task(Protocol):
    """A family of scenes; implementations are stateless."""

    name: str
    max_steps: int

    def pool(self, arm: ArmModel) -> tuple[Entity, ...]: ...

    def layout(self, rng: np.random.Generator, arm: ArmModel) -> Layout: ...

    def goals(self, layout: Layout, arm: ArmModel) -> list[Goal]: ...

    def achieved(self, goal: Goal, world: World) -> bool: ...

    def target_position(self, goal: Goal, world: World) -> np.ndarray: ...

    def goal_position(self, goal: Goal, world: World) -> np.ndarray: ...


def scatter(
    entities: Sequence[Entity],
    rng: np.random.Generator,
    half_extent: tuple[float, float],
    *,
    gap: float = 0.012,
    graspable: bool = True,
    max_yaw: float = 0.5,
    tries: int = 4000,
) -> dict[str, Placement]:
    """Place entities at random without overlap inside ``|x| <= a, |y| <= b`` (m).

    Args:
        gap: free space between two footprints, m.
        graspable: leave room for open fingers beside each free thing (they close along y).

    Raises:
        EnvError: when no such layout was found.
    """
    a, b = half_extent
    for _ in range(tries // 40):
        points: list[tuple[float, float, Entity]] = []
        for entity in entities:
            for _ in range(40):
                x, y = rng.uniform(-a, a), rng.uniform(-b, b)
                if all(_apart(x - px, y - py, entity, other, gap, graspable) for px, py, other in points):
                    points.append((x, y, entity))
                    break
            else:
                break
        if len(points) == len(entities):
            return {
                e.name: standing(e, x, y, rng.uniform(-max_yaw, max_yaw))
                for e, (x, y, _) in zip(entities, points, strict=True)
            }
    raise EnvError(f"No room for {[e.name for e in entities]} within +-{a} x +-{b} m.")


def _apart(dx: float, dy: float, a: Entity, b: Entity, gap: float, graspable: bool) -> bool:
    """Whether two things with centres (dx, dy) apart leave each other, and the fingers, room."""
    if dx**2 + dy**2 < (a.footprint + b.footprint + gap) ** 2:
        return False
    for thing, other in ((a, b), (b, a)):
        blocked = abs(dx) < other.footprint + FINGER_DEPTH_M and abs(dy) < other.footprint + FINGER_REACH_M
        if graspable and thing.kind in FREE_KINDS and blocked:
            return False
    return True


def standing(entity: Entity, x: float, y: float, yaw: float = 0.0) -> Placement:
    """The entity upright on the table."""
    z = entity.half_height if entity.kind in FREE_KINDS else 0.0
    return Placement(position=(float(x), float(y), float(z)), yaw=float(yaw))


def distinct_looks(
    kinds: Sequence[str], rng: np.random.Generator, *, pairs: set[tuple[str, str]] | None = None
) -> list[str]:
    """A colour for each kind such that no two things share colour *and* kind."""
    used: set[tuple[str, str]] = set(pairs or ())
    colors = []
    for kind in kinds:
        free = [c for c in COLORS if (c, kind) not in used]
        color = free[int(rng.integers(len(free)))]
        used.add((color, kind))
        colors.append(color)
    return colors


def choose(rng: np.random.Generator, items: Sequence[str], num: int) -> list[str]:
    """``num`` different items in random order."""
    return [str(items[int(i)]) for i in rng.permutation(len(items))[:num]]
