"""The actions of ``vla data`` through their real parsers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.data.lerobot_worlds import write_v21
from tests.data.worlds import make_arm, make_episode
from vla.cli.data.archive import Archive, run_archive
from vla.cli.data.check import Check, run_check
from vla.cli.data.exporting import Export, run_export
from vla.cli.data.fix import Fix, run_fix
from vla.cli.data.flags import Demonstrations
from vla.cli.data.importing import Import, run_import
from vla.cli.data.look import Info, Stats, run_verify
from vla.cli.data.view import View
from vla.cli.flags import parse
from vla.data.shards import HEADER_BYTES
from vla.data.store import EpisodeStore
from vla.data.verification import Damage
from vla.errors import ConfigError, StoreError


def test_verify_says_one_line_an_episode_with_the_number_of_its_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rng, path = np.random.default_rng(0), tmp_path / "s.zarr"
    with EpisodeStore.create(path, embodiments=[make_arm()]) as store:
        for _ in range(3):
            store.append(make_episode(rng, make_arm(), length=6))
        begins = store.frame_reader(1, "front").index[:, 0]
    frames = path / "part-00000/steps/alpha/cameras/front/frames/c/0"
    raw = bytearray(frames.read_bytes())
    for begin in begins.tolist():
        raw[HEADER_BYTES + begin + 200 : HEADER_BYTES + begin + 204] = b"\0\1\2\3"
    frames.write_bytes(raw)
    assert run_verify([str(path)]) == 1
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("episode 1: cameras/front/index: ")
    assert first.endswith("(and 5 more faults)")
    assert rest == [f"{path}: 3 episodes, 6 faults, 1 episode damaged"]


@pytest.mark.parametrize("flags", [Info, Stats, Check, View, Archive, Export, Fix, Import])
def test_every_action_is_told_of_its_demonstrations_in_the_same_words(
    flags: type[Demonstrations], capsys: pytest.CaptureFixture[str]
):
    out = ["--out", "o"] if flags in (Archive, Export, Fix, Import) else []
    given = parse(flags, "data x", ["s3://bucket/demos", "--description", "d.json", *out])
    assert (given.path, given.description) == ("s3://bucket/demos", "d.json")
    with pytest.raises(SystemExit):
        parse(flags, "data x", ["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "embodiment file that says what the columns mean" in text
    assert "our own store" in text


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A store of three episodes."""
    rng, path = np.random.default_rng(0), tmp_path / "s.zarr"
    with EpisodeStore.create(path, embodiments=[make_arm()]) as store:
        for _ in range(3):
            store.append(make_episode(rng, make_arm(), length=6))
    return path


def test_a_store_at_a_url_is_verified(three: Path, capsys: pytest.CaptureFixture[str]):
    assert run_verify([f"file://{three}"]) == 0
    table = three / "part-00000/episodes/c/0/0"
    table.write_bytes(table.read_bytes()[:-9000])
    assert run_verify([f"file://{three}"]) == 1
    assert "part-00000: " in capsys.readouterr().out.splitlines()[1]


def test_verify_finds_what_only_other_libraries_read_and_asks_for_a_header(three: Path):
    (three / "part-00000/episodes/c/0/0").unlink()
    assert run_verify([str(three)]) == 1
    (three / "zarr.json").unlink()
    with pytest.raises(StoreError, match="put that file back"):
        run_verify([str(three)])


def test_a_repair_that_lost_episodes_does_not_look_clean(three: Path, capsys: pytest.CaptureFixture[str]):
    log, out = three / "part-00000/episodes/commits.jsonl", three.parent / "out.zarr"
    log.write_bytes(log.read_bytes().replace(b"reach the red", b"reach the rex", 1))
    assert run_fix([str(three), "--out", str(out), "--retime", "5"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "not opened: part-00000: commits.jsonl: line 1 is damaged",
        f"{three}: 2 episodes, 12 steps could be opened; NOT OPENED: 1 (above); "
        "0 episodes changed or left out",
        "all 2 kept episodes re-timed to 5 Hz: 'alpha' from 10",
        "12 pictures copied as they were stored",
        f"{out}: 2 episodes, 6 steps",
    ]


@pytest.mark.parametrize(
    ("run", "flag", "values"),
    [
        (run_import, "--image-size", ("0", "-1", "1000000")),
        (run_import, "--jpeg-quality", ("0", "-1", "101")),
        (run_export, "--fps", ("0", "-3", "inf", "nan", "1e9")),
        (run_archive, "--crf", ("0", "-1", "64")),
        (run_archive, "--gop", ("0", "-1", "1000000000")),
        (run_archive, "--preset", ("-1", "14")),
    ],
)
def test_a_number_that_cannot_be_is_refused_before_anything_is_opened(run, flag, values, tmp_path: Path):
    for value in values:
        with pytest.raises(ConfigError, match=r"1\.\.|expected more than 0"):
            run([str(tmp_path / "nothing here"), "--out", str(tmp_path / "out"), f"{flag}={value}"])
    assert not list(tmp_path.iterdir())


def test_solve_opens_a_url_and_looks_for_the_description_in_its_copy(tmp_path: Path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    from tests.data.test_hdf5 import write_robomimic
    from vla.cli.data.solve import Solve, solve_path

    monkeypatch.setenv("VLA_CACHE", str(tmp_path / "cache"))
    file = write_robomimic(tmp_path / "a.hdf5")
    fsspec.filesystem("memory").pipe_file("/solved/a.hdf5", file.read_bytes())
    looked = []
    monkeypatch.setattr("vla.data.solve.solve", lambda raw, **_: looked.append(raw.path) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        solve_path(parse(Solve, "data solve", ["memory://solved/a.hdf5"]))
    assert looked[0].is_relative_to(tmp_path / "cache")


def test_check_says_what_mends_each_kind_and_that_an_example_is_cut(
    three: Path, capsys: pytest.CaptureFixture[str]
):
    with EpisodeStore.open(three) as store:
        store.append(
            make_episode(np.random.default_rng(1), make_arm(), length=6, instruction="/a/b " + "c" * 200)
        )
    assert run_check([str(three), "--frames", "none"]) == 0
    said = capsys.readouterr().out
    assert "to mend odd_instruction: put what a person would say" in said
    assert "(examples are cut at 120 characters: --html and --json write them whole)" in said


def test_a_damaged_index_for_other_libraries_says_that_nothing_is_lost_and_what_to_do(
    three: Path, capsys: pytest.CaptureFixture[str]
):
    index = three / "part-00000/episodes/c/0/0"
    raw = bytearray(index.read_bytes())
    raw[10] ^= 255
    index.write_bytes(raw)
    assert run_check([str(three), "--frames", "none", "--json", str(three.parent / "f.json")]) == 1
    (found,) = json.loads((three.parent / "f.json").read_text())["findings"]
    assert "this package reads all episodes, zarr libraries may not" in found["message"]
    assert "'vla data import' it" in found["message"]


@pytest.mark.parametrize("flags", [Info, Stats, Check, View, Archive, Export, Fix, Import])
def test_what_is_read_by_default_is_said_once_and_is_not_none(flags, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse(flags, "data x", ["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "PATH directory, file or URL" in text
    assert "(default: the one beside the data)" in text
    assert "(default: those of the embodiment file, else all)" in text
    assert not re.search(r"\(default: [^)]*\)\.? \(default", text)


def test_verify_of_another_format_says_what_reads_it(tmp_path: Path):
    with pytest.raises(StoreError, match="'vla data check' read other formats"):
        run_verify([str(write_v21(tmp_path / "d"))])


def test_an_archive_that_does_not_read_back_says_so_in_words(three: Path, tmp_path: Path, monkeypatch):
    damage = Damage(episode=1, column="state", reason="it is damaged (checksum)")
    monkeypatch.setattr(EpisodeStore, "verify", lambda self: [damage])
    with pytest.raises(StoreError, match=r"back: episode 1: state: it is damaged \(checksum\)\. Is the disk"):
        run_archive([str(three), "--out", str(tmp_path / "a.zarr")])
