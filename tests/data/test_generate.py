"""Generation: the same episodes from any number of workers, resumed after a stop, loud where experts fail."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from vla.data.generate import generate
from vla.data.store import EpisodeStore
from vla.data.summary import describe
from vla.errors import ConfigError, EnvError, UnknownNameError
from vla.interfaces import Cell

SUITE = "tests.data.worlds:ReachSuite"
CELLS = (Cell(task="reach", embodiment="alpha"), Cell(task="slips", embodiment="beta"))
ROOT = Path(__file__).parents[2]


def make(path, count=6, cells=CELLS, workers=2, image_size=64):
    return generate(SUITE, cells, count, path, num_workers=workers, image_size=image_size, progress=False)


def content(path) -> dict:
    """Digest of every column by what the episode is."""
    found = {}
    with EpisodeStore.open(path) as store:
        for info in store.episodes:
            digest = hashlib.sha256(info.instruction.encode())
            for name in store.columns(info.index):
                digest.update(store.column(info.index, name).tobytes())
            for camera in store.cameras(info.index):
                digest.update(store.frames(info.index, camera, range(info.length)).tobytes())
            origin = info.provenance
            key = (origin["task"], info.embodiment, origin["seed"], origin["variant"])
            assert key not in found
            found[key] = digest.hexdigest()
        assert store.verify() == []
    return found


def test_two_workers_make_what_one_makes_and_only_successes(tmp_path):
    report = make(tmp_path / "two")
    make(tmp_path / "one", workers=1)
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert [(c.added, c.rejected > 0) for c in report.cells] == [(6, False), (6, True)]
    variants = Counter((task, variant) for task, _, _, variant in content(tmp_path / "two"))
    assert set(variants.values()) == {3}
    with EpisodeStore.open(tmp_path / "two") as store:
        assert all(info.success for info in store.episodes)
        assert min(info.provenance["seed"] for info in store.episodes) == 1_000_000
        assert store.episodes[0].provenance["wording"] == "train"
        assert store.episodes[0].provenance["noise"]["burst_probability"] == 0.12
        assert ("slips / beta", 6) in [
            (what, int(text.split()[0])) for what, text in describe(store) if what.startswith("slips")
        ]


def test_a_second_run_adds_only_what_is_missing(tmp_path):
    make(tmp_path / "s", count=3, workers=1)
    assert make(tmp_path / "s", count=3).added == 0
    report = make(tmp_path / "s", count=6)
    assert [(c.existing, c.added) for c in report.cells] == [(3, 3), (3, 3)]
    make(tmp_path / "whole", count=6, workers=1)
    assert content(tmp_path / "s") == content(tmp_path / "whole")


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_leaves_a_valid_store_and_continues(tmp_path, stop):
    path = tmp_path / "s"
    cell = "Cell(task='reach', embodiment='alpha')"
    command = (
        "from vla.data.generate import generate; from vla.interfaces import Cell\n"
        f"if __name__ == '__main__': generate({SUITE!r}, [{cell}], 400, {str(path)!r})"
    )
    script = tmp_path / "run.py"
    script.write_text(command)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(script)], env=env, stderr=subprocess.DEVNULL) as process:
        log, limit = path / "part-00000/episodes/commits.jsonl", time.monotonic() + 60
        while not (log.exists() and log.stat().st_size) and time.monotonic() < limit:
            time.sleep(0.02)
        process.send_signal(stop)
    time.sleep(0.5)  # orphaned workers end by themselves
    before = content(path)
    assert 0 < len(before) < 400
    report = make(path, count=len(before) + 2, cells=CELLS[:1], workers=1)
    assert report.cells[0].existing == len(before)
    assert before.items() <= content(path).items()


def test_an_expert_that_mostly_fails_is_reported(tmp_path):
    with pytest.raises(EnvError, match=r"failed in 10 of 10 episodes of 'fails' with 'alpha'"):
        make(tmp_path / "s", cells=[Cell(task="fails", embodiment="alpha")], workers=1)


def test_a_workers_error_arrives_with_its_cause(tmp_path):
    with pytest.raises(
        EnvError, match=r"'breaks' with 'alpha', seed 1000000[\s\S]*this task cannot be built"
    ):
        make(tmp_path / "s", cells=[Cell(task="breaks", embodiment="alpha")], workers=1)


def test_unknown_cells_are_named_before_anything_starts(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'reach'"):
        make(tmp_path / "s", cells=[Cell(task="reech", embodiment="alpha")])
    with pytest.raises(UnknownNameError, match="Known: alpha, beta"):
        make(tmp_path / "s", cells=[Cell(task="reach", embodiment="gamma")])
    with pytest.raises(ConfigError, match="Nothing to generate"):
        make(tmp_path / "s", count=0)
    for wrong in ({"image_size": 0}, {"image_size": 10**6}, {"workers": 10**6}):
        with pytest.raises(ConfigError, match=r"expected 1\.\.1024 workers and 1\.\.2048 px"):
            make(tmp_path / "s", **wrong)
    assert not (tmp_path / "s").exists()
