"""What ``vla data info`` says of where the meaning of the columns comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.lerobot_worlds import describe_v21, write_v21
from tests.data.memory import memory_source
from tests.data.test_hdf5 import write_robomimic
from vla.data.description import description_path
from vla.data.importing import import_dataset
from vla.data.readers import open_source, open_to_look
from vla.data.resample import ResampledSource
from vla.data.store import EpisodeStore
from vla.data.summary import describe

pytest.importorskip("pyarrow")


def test_a_published_layout_is_named(tmp_path: Path) -> None:
    rows = dict(describe(open_source(write_robomimic(tmp_path / "a.hdf5", libero=True))))
    assert rows["columns described by"] == "the published layout of LIBERO, known by its content"


def test_the_embodiment_file_that_was_read_is_named(tmp_path: Path) -> None:
    folder, other = write_v21(tmp_path / "d"), tmp_path / "mine.json"
    describe_v21().save(description_path(folder))
    replace(describe_v21(), ranges="assumed").save(other)
    rows = dict(describe(open_source(folder)))
    assert rows["columns described by"] == "the embodiment file beside the data, embodiment.json"
    assert rows["ranges of fields"] == "declared by the robot or its controller"
    rows = dict(describe(open_source(folder, other)))
    assert rows["columns described by"] == f"the embodiment file {other}"
    assert rows["ranges of fields"].startswith("assumed: round numbers")


def test_what_nobody_describes_is_said_to_be_so(tmp_path: Path) -> None:
    rows = dict(describe(open_to_look(write_v21(tmp_path / "d"))))
    assert rows["columns described by"].startswith("nobody")
    assert "ranges of fields" not in rows


def test_a_view_and_a_store_made_of_it_say_whence_the_ranges_are(tmp_path: Path) -> None:
    source = memory_source()
    source.description = replace(source.description, ranges="measured")
    rows = dict(describe(ResampledSource(source, source.description.embodiment.control_hz)))
    assert rows["ranges of fields"].startswith("measured: those of these data")
    import_dataset(source, tmp_path / "s.zarr")
    with EpisodeStore.open(tmp_path / "s.zarr") as store:
        rows = dict(describe(store))
    assert rows["ranges of fields"].startswith("measured: those of these data")
    assert rows["format"] == "our own store"
    assert "columns described by" not in rows


def test_one_episode_is_no_plural() -> None:
    assert "1 episode, 20.0 steps each" in dict(describe(memory_source(num_episodes=1))).values()
