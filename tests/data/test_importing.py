"""Import into our store: exact numbers, resuming, damage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.memory import memory_source
from tests.data.test_hdf5 import write_robomimic
from vla.cli.data import run
from vla.data.damage import damage_lines
from vla.data.fix import FixConfig, fix
from vla.data.importing import import_dataset
from vla.data.mixture import stated_ranges
from vla.data.readers import open_source
from vla.data.source import EpisodeSource
from vla.data.store import EpisodeStore
from vla.errors import DatasetError


@pytest.fixture
def source(tmp_path: Path) -> EpisodeSource:
    return open_source(write_robomimic(tmp_path / "a.hdf5", libero=True))


def test_numbers_and_words_are_kept_exactly(source: EpisodeSource, tmp_path: Path) -> None:
    import_dataset(source, tmp_path / "out.zarr")
    with EpisodeStore.open(tmp_path / "out.zarr") as store:
        for index, info in enumerate(source.episodes):
            assert store.episodes[index].instruction == info.instruction
            for name in ("state", "action", "executed"):
                np.testing.assert_array_equal(store.column(index, name), source.column(index, name))
            times = source.column(index, "time_s")
            np.testing.assert_array_equal(store.column(index, "time_s"), times)
        assert store.episodes[1].provenance["demo"] == "demo_10"


def test_import_goes_on_where_it_stopped(source: EpisodeSource, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    assert import_dataset(source, out, episodes=[1]).num_episodes == 1
    assert import_dataset(source, out).num_episodes == 2
    assert import_dataset(source, out).num_steps == 9


def test_other_content_is_never_mixed_in(source: EpisodeSource, tmp_path: Path) -> None:
    import_dataset(source, tmp_path / "out.zarr")
    with pytest.raises(DatasetError, match="give another path"):
        import_dataset(source, tmp_path / "out.zarr", jpeg_quality=50)


def test_pictures_are_resized_on_request(source: EpisodeSource, tmp_path: Path) -> None:
    import_dataset(source, tmp_path / "out.zarr", image_size=4)
    with EpisodeStore.open(tmp_path / "out.zarr") as store:
        assert store.frames(0, "agentview_rgb", [0]).shape == (1, 4, 4, 3)


def test_a_store_remembers_that_nobody_declared_its_ranges(tmp_path: Path) -> None:
    source = memory_source()
    import_dataset(source, tmp_path / "declared.zarr")
    source.description = replace(source.description, ranges="measured")
    import_dataset(source, tmp_path / "measured.zarr")
    with EpisodeStore.open(tmp_path / "measured.zarr") as store:
        fix(store, tmp_path / "fixed.zarr", FixConfig(drop=("short_episode",)))
    for name, ranges in (("declared", "declared"), ("measured", "measured"), ("fixed", "measured")):
        with EpisodeStore.open(tmp_path / f"{name}.zarr") as store:
            assert stated_ranges(store) == ranges


def test_damaged_episode_stops_or_is_reported(source: EpisodeSource, tmp_path: Path) -> None:
    column = source.column

    def backwards(index: int, name: str) -> np.ndarray:
        return column(index, name)[::-1] if (index, name) == (0, "time_s") else column(index, name)

    source.column = backwards  # type: ignore[method-assign]
    with pytest.raises(DatasetError, match=r"Episode 0 of .* time goes from"):
        import_dataset(source, tmp_path / "a.zarr")
    done = import_dataset(source, tmp_path / "b.zarr", skip_damaged=True)
    assert done.num_episodes == 1
    assert "episode 0" in done.skipped[0]


def test_nothing_is_left_behind_when_nothing_could_be_imported(source: EpisodeSource, tmp_path: Path) -> None:
    before, column = sorted(tmp_path.rglob("*")), source.column

    def damaged(index: int, name: str) -> np.ndarray:
        if name == "action":
            raise DatasetError("the file a.hdf5 is damaged")
        return column(index, name)

    source.column = damaged  # type: ignore[method-assign]
    message = r"(?s)No episode of .* nothing was written.*episodes 0-1 \(2\): the file a\.hdf5 is damaged"
    with pytest.raises(DatasetError, match=message):
        import_dataset(source, tmp_path / "a.zarr", skip_damaged=True)
    with pytest.raises(DatasetError, match=r"Episode 0 of .* cannot be imported"):
        import_dataset(source, tmp_path / "a.zarr")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_fault_is_one_line_however_many_episodes_and_steps_it_takes() -> None:
    assert damage_lines([(4, "x"), (0, "x"), (1, "x"), (2, "y"), (2, "z"), (None, "file"), (3, "y")]) == [
        "file",
        "episodes 0-1, 4 (3): x",
        "episode 2: y (and 1 more faults)",
        "episode 3: y",
    ]


def test_verb_skips_a_truncated_file_with_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    write_robomimic(tmp_path / "in/a.hdf5", libero=True)
    (tmp_path / "in/b.hdf5").write_bytes((tmp_path / "in/a.hdf5").read_bytes()[:900])
    assert run(["import", str(tmp_path / "in"), "--out", str(tmp_path / "o"), "--skip-damaged"]) == 1
    assert "b.hdf5 is no whole HDF5 file" in capsys.readouterr().out
