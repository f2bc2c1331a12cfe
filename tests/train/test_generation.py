"""Recipes that make their own demonstrations: a source for the suite, one more for each of its seasons."""

from __future__ import annotations

from pathlib import Path

import pytest

from vla.data.mixture import SourceConfig
from vla.data.store import EpisodeStore
from vla.errors import ConfigError
from vla.train.config import DataConfig, GenerationConfig
from vla.train.setup import ensure_demonstrations

RECIPE = GenerationConfig(
    tasks=("pick",), embodiments=("panda",), episodes_per_cell=2, seasons=(3,), episodes_per_season_cell=1,
    image_size=16, num_workers=1,
)  # fmt: skip


def test_seasons_fill_the_sources_after_the_first(tmp_path: Path) -> None:
    sources = tuple(SourceConfig(path=str(tmp_path / name)) for name in ("base.zarr", "season3.zarr"))
    config = DataConfig(sources=sources, generate=RECIPE, image_size=16)
    ensure_demonstrations(config)
    for source, suite, count in zip(sources, ("tabletop", "tabletop@3"), (2, 1), strict=True):
        with EpisodeStore.open(source.path) as store:
            assert [info.provenance["suite"] for info in store.episodes] == [suite] * count
    before = [Path(source.path, "zarr.json").stat().st_mtime_ns for source in sources]
    ensure_demonstrations(config)  # complete: nothing is made
    assert [Path(source.path, "zarr.json").stat().st_mtime_ns for source in sources] == before


def test_a_season_without_a_source_of_its_own_is_refused(tmp_path: Path) -> None:
    config = DataConfig(sources=(SourceConfig(path=str(tmp_path / "base.zarr")),), generate=RECIPE)
    with pytest.raises(ConfigError, match=r"fills 2 sources \(tabletop, tabletop@3\), data\.sources has 1"):
        ensure_demonstrations(config)
    assert not (tmp_path / "base.zarr").exists()
