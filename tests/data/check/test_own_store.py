"""What is damaged in one of our own stores is found by the check, wherever it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data.worlds import make_arm, make_episode
from vla.cli.main import main
from vla.data.check import CheckConfig, check
from vla.data.readers import open_source
from vla.data.shards import HEADER_BYTES
from vla.data.store import EpisodeStore

LOG = "part-00000/episodes/commits.jsonl"


def write(path: Path, *, close: bool = True, count: int = 6) -> Path:
    """A store of two parts, the second of one episode."""
    rng, arm = np.random.default_rng(0), make_arm(image_size=16)
    store = EpisodeStore.create(path, embodiments=[arm])
    for number in range(count):
        store.append(make_episode(rng, arm, length=8, instruction=f"reach the square {number}"))
    with EpisodeStore.open(path) as other:
        other.append(make_episode(rng, arm, length=8))
    if close:
        store.close()
    return path


def lines(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    log = path / LOG
    log.write_bytes(b"".join(change(log.read_bytes().splitlines(keepends=True))))


LOST: dict[str, tuple[Callable[[Path], object], str]] = {
    "the end of the log": (lambda p: lines(p, lambda x: x[:4]), "commits.jsonl is truncated: 4 of 6"),
    "a line of it": (lambda p: lines(p, lambda x: [*x[:2], b"{}\n", *x[3:]]), "line 3 is damaged"),
    "the log": (lambda p: (p / LOG).unlink(), "commits.jsonl is truncated: 0 of 6"),
    "a part": (lambda p: (p / "part-00000").rename(p.parent / "elsewhere"), "part-00000 is missing"),
    "metadata": (lambda p: (p / "part-00000/zarr.json").write_text("{"), "zarr.json"),
    "a table": (lambda p: (p / "part-00000/episodes/c/0/0").unlink(), "part-00000: "),
}


@pytest.mark.parametrize("what", LOST)
def test_what_a_store_lost_is_missing(what: str, tmp_path: Path) -> None:
    path = write(tmp_path / "s.zarr")
    lose, said = LOST[what]
    lose(path)
    missing = check(open_source(path, tolerate_damage=True)).kinds["missing"]
    assert any(said in finding.message for finding in missing)
    assert {finding.place for finding in missing} == {"the data set"}


def test_so_is_what_was_lost_while_it_was_written(tmp_path: Path) -> None:
    path = write(tmp_path / "s.zarr", close=False)
    lines(path, lambda log: log[:3])
    (missing,) = check(open_source(path, tolerate_damage=True)).kinds["missing"]
    assert "lacks episodes" in missing.message


@pytest.mark.parametrize("column", ["state", "time_s", "aux/phase"])
def test_a_changed_byte_of_any_column_is_unreadable(column: str, tmp_path: Path) -> None:
    path = write(tmp_path / "s.zarr")
    file = next((path / "part-00000/steps/alpha" / column / "c").rglob("0"))
    file = file if file.is_file() else next(f for f in file.rglob("*") if f.is_file())
    raw = bytearray(file.read_bytes())
    raw[HEADER_BYTES] ^= 1
    file.write_bytes(raw)
    found = check(open_source(path, tolerate_damage=True), CheckConfig(frames="none")).kinds["unreadable"]
    assert [(f.episode, f.where) for f in found] == [(0, column)]


def test_the_command_says_it_and_exits_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "s.zarr")
    assert main(["data", "check", str(path), "--fail-on", "error", "--frames", "none"]) == 0
    LOST["the end of the log"][0](path)
    capsys.readouterr()
    assert main(["data", "check", str(path), "--frames", "none", "--html", str(tmp_path / "c.html")]) == 1
    said = capsys.readouterr().out
    assert "the data set: part-00000: commits.jsonl is truncated" in said
    assert ": 5 episodes, 40 steps, looked at 0 of 80 pictures: 2 errors" in said
    assert "not looked for: unreadable_frame" in said
    assert "commits.jsonl is truncated" in (tmp_path / "c.html").read_text()
