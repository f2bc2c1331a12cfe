"""A foreign data set in memory, at any rate and without our auxiliary quantities."""

from __future__ import annotations

import numpy as np

from tests.data.worlds import make_arm
from vla.data.description import CameraRule, ColumnRule, DatasetDescription
from vla.data.mapped import MappedSource
from vla.data.readers.memory import MemoryDataset, MemoryEpisode
from vla.embodiment import Embodiment

INSTRUCTION = "reach the red square"


def memory_source(
    arm: Embodiment | None = None, *, num_episodes: int = 3, length: int = 20, seed: int = 0
) -> MappedSource:
    """Random episodes of an arm (default: ``gamma``, 20 px, a front camera)."""
    arm = arm or make_arm("gamma", image_size=20, wrist=False)
    rng = np.random.default_rng(seed)
    episodes = []
    for _ in range(num_episodes):
        columns: dict[str, np.ndarray] = {
            "state": rng.normal(size=(length, arm.state_dim)).astype(np.float32),
            "action": rng.uniform(arm.action_low, arm.action_high, (length, arm.action_dim)),
        }
        pictures = {
            c.name: rng.integers(0, 256, (length, c.height, c.width, 3), dtype=np.uint8) for c in arm.cameras
        }
        episodes.append(MemoryEpisode(columns=columns, pictures=pictures, instruction=INSTRUCTION))
    return MappedSource(MemoryDataset(episodes), describe(arm))


def describe(arm: Embodiment) -> DatasetDescription:
    """Columns ``state`` and ``action`` with the fields side by side, cameras under their own names."""
    rules = {
        kind: tuple(
            ColumnRule(field=f.name, column=kind, start=arm.field_slice(f.name, of=kind).start)
            for f in members
        )
        for kind, members in (("state", arm.state), ("action", arm.action))
    }
    cameras = tuple(CameraRule(camera=c.name, column=c.name) for c in arm.cameras)
    return DatasetDescription(embodiment=arm, cameras=cameras, **rules)
