"""Which demonstrations are most like a scene: what was taught that should have helped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla.data.source import EpisodeSource
from vla.errors import ConfigError

_PLACES = ("target_position", "goal_position")


@dataclass(frozen=True, kw_only=True)
class Near:
    """A demonstration like a scene.

    Args:
        store, episode: where it is.
        instruction: what was said.
        distance_m: how far target and goal lie from the scene's, both together (root of summed squares).
    """

    store: str
    episode: int
    instruction: str
    distance_m: float


def nearest_episodes(
    source: EpisodeSource, task: str, embodiment: str, places: Mapping[str, np.ndarray], *, count: int = 3
) -> list[Near]:
    """Demonstrations of the same task with the same arm whose target and goal begin nearest; nearest first.

    Args:
        places: ``target_position`` and ``goal_position`` [3] of the scene before the first step, m, world;
            what is missing or not finite there is not compared.

    Raises:
        ConfigError: demonstrations without these quantities (they are not from a simulator).
    """
    asked = {name: np.asarray(places[name]) for name in _PLACES if name in places}
    asked = {name: value for name, value in asked.items() if np.isfinite(value).all()}
    found = []
    for info in source.episodes:
        if info.embodiment != embodiment or info.provenance.get("task", task) != task:
            continue
        columns = source.columns(info.index)
        lacking = [name for name in asked if f"aux/{name}" not in columns]
        if lacking:
            raise ConfigError(
                f"{source.path}, episode {info.index} has no aux/{lacking[0]}: "
                "only demonstrations from a simulator can be compared with a scene."
            )
        squares = [
            float(((source.column(info.index, f"aux/{name}")[0] - value) ** 2).sum())
            for name, value in asked.items()
        ]
        if np.isfinite(squares).all():
            name = Path(str(source.path)).name
            found.append(
                Near(
                    store=name, episode=info.index, instruction=info.instruction,
                    distance_m=float(np.sqrt(sum(squares))),
                )
            )  # fmt: skip
    return sorted(found, key=lambda near: near.distance_m)[:count]
