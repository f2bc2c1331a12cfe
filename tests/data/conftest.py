"""Stores and generators shared by the data tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data.lerobot_worlds import LENGTHS, write_v21
from tests.data.worlds import make_arm, make_episode
from vla.data import lerobot_files
from vla.data.exporting import export_lerobot
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


@pytest.fixture
def v21(tmp_path: Path) -> Path:
    return write_v21(tmp_path / "old")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A v3.0 data set of three episodes, two to a video file."""
    folder, rng, arm = tmp_path_factory.mktemp("v3"), np.random.default_rng(3), make_arm(wrist=False)
    with EpisodeStore.create(folder / "demos.zarr", embodiments=[arm]) as store:
        for i, length in enumerate(LENGTHS):
            store.append(make_episode(rng, arm, length=length, instruction=f"do {i % 2}"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lerobot_files, "VIDEO_S", 1.2)
            export_lerobot(store, folder / "new")
    return folder / "new"


@pytest.fixture
def v3(exported: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(exported, tmp_path / "new"))
