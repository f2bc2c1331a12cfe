"""Stores and generators shared by the data tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.worlds import make_arm, make_episode
from vla.data.store import EpisodeStore


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def filled(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A store of eight episodes of two arms and two tasks, closed."""
    arms = [make_arm("alpha"), make_arm("beta", wrist=False, joints=5)]
    with EpisodeStore.create(tmp_path / "demos.zarr", embodiments=arms) as store:
        for i in range(8):
            task = "reach" if i % 4 < 3 else "push"
            episode = make_episode(
                rng, arms[i % 2], length=6 + i, instruction=f"do {i}", provenance={"task": task, "seed": i}
            )
            store.append(episode)
    return tmp_path / "demos.zarr"
