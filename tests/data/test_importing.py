"""Import into our store: exact numbers, resuming, damage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.memory import memory_source
from tests.data.test_hdf5 import write_robomimic
from vla.cli.data import run
from vla.data.archive import VideoCodec, write_archive
from vla.data.codec import JpegCodec
from vla.data.damage import damage_lines
from vla.data.exporting import export_lerobot
from vla.data.fix import FixConfig, fix
from vla.data.importing import import_dataset
from vla.data.mapped import MappedSource
from vla.data.mixture import stated_ranges
from vla.data.readers import open_source
from vla.data.source import EpisodeSource
from vla.data.store import EpisodeStore
from vla.data.summary import describe, left_out
from vla.errors import DatasetError
from vla.types import Episode


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


def test_a_reason_without_a_full_stop_gets_one(source: EpisodeSource, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise DatasetError("its frame does not decode")

    source.frame_reader = broken  # type: ignore[assignment,method-assign]
    with pytest.raises(DatasetError, match=r"does not decode\. --skip-damaged leaves such"):
        import_dataset(source, tmp_path / "out.zarr")


def test_settings_that_differ_are_named_and_no_others(source: EpisodeSource, tmp_path: Path) -> None:
    import_dataset(source, tmp_path / "out.zarr")
    said = r"an import with JPEG quality 95 \(now 50\), image size as stored \(now 4\): give another"
    with pytest.raises(DatasetError, match=said):
        import_dataset(source, tmp_path / "out.zarr", jpeg_quality=50, image_size=4)
    other = memory_source()
    with pytest.raises(DatasetError, match="other content, another description or other cameras") as caught:
        import_dataset(other, tmp_path / "out.zarr")
    assert not set("{}") & set(str(caught.value))


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
        export_lerobot(store, tmp_path / "exported", image_storage="image")
    assert stated_ranges(open_source(tmp_path / "exported")) == "measured"
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
        "episode 2: y (and 1 more fault)",
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


def test_what_is_left_out_is_said_and_remembered(tmp_path: Path) -> None:
    source = memory_source(num_episodes=2, length=9)
    source = MappedSource(source.raw, replace(source.description, skip_first=1, skip_last=2))
    source.raw.columns = {**source.raw.columns, "force": source.raw.columns["state"]}  # type: ignore[misc]
    source.raw.cameras = {**source.raw.cameras, "side": source.raw.cameras["front"]}  # type: ignore[misc]
    said = {
        "cameras left out": "side",
        "columns left out": "force",
        "steps left out": "6, of each episode 1 at the start, 2 at the end",
    }
    assert left_out(source) == said
    rows = dict(describe(source))
    assert said.items() <= rows.items()
    assert rows["pictures stored"] == "36"
    import_dataset(source, tmp_path / "out.zarr")
    with EpisodeStore.open(tmp_path / "out.zarr") as store:
        assert left_out(store) == said


def test_an_interrupted_import_says_what_stands_and_goes_on(tmp_path: Path, monkeypatch, capsys) -> None:
    path, out, append = write_robomimic(tmp_path / "a.hdf5", libero=True), tmp_path / "out.zarr", []

    def once(store: EpisodeStore, episode: Episode) -> int:
        if append:
            raise KeyboardInterrupt
        append.append(episode)
        return stored(store, episode)

    stored = EpisodeStore.append
    with monkeypatch.context() as patch:
        patch.setattr(EpisodeStore, "append", once)
        assert run(["import", str(path), "--out", str(out)]) == 130
    assert f"{out} holds 1 whole episode; the same command goes on" in capsys.readouterr().err
    assert run(["import", str(path), "--out", str(out)]) == 0
    assert "2 episodes, 9 steps" in capsys.readouterr().out


def test_a_set_says_its_format_and_where_it_came_from(source: EpisodeSource, tmp_path: Path) -> None:
    assert "came from" not in dict(describe(source))
    export_lerobot(source, tmp_path / "exported", image_storage="image")
    rows = dict(describe(open_source(tmp_path / "exported")))
    assert rows["format"] == "lerobot_v3"
    assert rows["came from"] == "libero (2 episodes)"


@pytest.mark.parametrize("quality", [None, 95])
def test_colour_is_stored_at_half_resolution_by_size_alone(quality: int | None) -> None:
    for side, luma in ((191, 0x11), (192, 0x22)):
        jpeg = JpegCodec(quality=quality).encode(np.zeros((side, side, 3), np.uint8))
        header = jpeg.index(b"\xff\xc0")
        assert jpeg[header + 11] == luma


def test_an_archive_of_a_foreign_set_remembers_its_ranges_and_a_failed_one_leaves_nothing(
    tmp_path: Path,
) -> None:
    source = memory_source()
    source.description = replace(source.description, ranges="measured")
    write_archive(source, tmp_path / "a.zarr", VideoCodec())
    with EpisodeStore.open(tmp_path / "a.zarr") as store:
        assert stated_ranges(store) == "measured"
    source.frame_reader = lambda *_: 1 / 0  # type: ignore[assignment,method-assign]
    with pytest.raises(ZeroDivisionError):
        write_archive(source, tmp_path / "b.zarr", VideoCodec())
    assert not (tmp_path / "b.zarr").exists()


def test_an_import_does_not_go_on_in_an_archive_of_itself(source: EpisodeSource, tmp_path: Path) -> None:
    import_dataset(source, tmp_path / "s.zarr", episodes=[0])
    with EpisodeStore.open(tmp_path / "s.zarr") as store:
        write_archive(store, tmp_path / "a.zarr", VideoCodec())
    with pytest.raises(DatasetError, match="other demonstrations"):
        import_dataset(source, tmp_path / "a.zarr")
