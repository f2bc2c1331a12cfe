"""What every reader must do: travel to workers, share batches among ranks, and know its content again."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest

from tests.data import test_rlds
from tests.data.reader_kinds import KINDS, LoggedSource, logged, open_kind
from vla.data.batch import Batch
from vla.data.loader import BatchLoader
from vla.data.mapped import MappedSource
from vla.data.readers import open_raw
from vla.data.source import EpisodeSource
from vla.data.statistics import compute_statistics
from vla.data.windows import WindowConfig, WindowDataset
from vla.errors import DatasetError, StoreError, VlaError

ALL = [*KINDS, "memory"]
FOREIGN = [kind for kind in KINDS if kind not in ("store", "archive")]


def windows_of(sources: list[EpisodeSource]) -> WindowDataset:
    arms = [arm for source in sources for arm in source.embodiments.values()]
    roles = tuple(sorted({camera.role for arm in arms for camera in arm.cameras}))
    config = WindowConfig(horizon=3, image_size=16, resize=True, camera_roles=roles)
    return WindowDataset(sources, config, compute_statistics(sources))


def assert_same(one: Batch, other: Batch) -> None:
    for name in ("images", "image_mask", "state", "actions", "action_mask", "index", "tcp_position"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.instructions, one.embodiments) == (other.instructions, other.embodiments)


@pytest.mark.parametrize("kind", ALL)
def test_a_source_that_was_sent_to_another_process_gives_the_same_windows(kind: str, tmp_path: Path) -> None:
    source = open_kind(kind, tmp_path)
    dataset = windows_of([source])
    every = [(e, t) for e, info in enumerate(source.episodes) for t in range(info.length)]
    wanted = dataset.batch(every)  # files are open now
    other = ForkingPickler.loads(ForkingPickler.dumps(dataset))
    assert_same(other.batch(every), wanted)
    [there] = other.stores
    for info in source.episodes:
        for name in source.columns(info.index):
            np.testing.assert_array_equal(there.column(info.index, name), source.column(info.index, name))
    there.close()
    source.close()


@pytest.mark.parametrize("kind", ALL)
def test_ranks_read_their_own_part_of_each_batch_and_no_window_twice(kind: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    source = LoggedSource(open_kind(kind, tmp_path), notes)
    dataset, log = windows_of([source]), notes / f"{os.getpid()}.log"
    for step in range(3):
        reads = []
        for rank in (0, 1):
            log.unlink(missing_ok=True)
            batch = dataset.step_batch(seed=3, step=step, batch_size=3, rank=rank, world=2)
            assert logged(log) == [tuple(row) for row in batch.index.tolist()]
            reads += logged(log)
        assert len(set(reads)) == 6
        whole = dataset.sampler.at(seed=3, step=step, batch_size=6)
        assert reads == [tuple(row) for row in whole.tolist()]
    source.close()


def test_workers_share_the_batches_of_a_mixture_of_all_formats(tmp_path: Path) -> None:
    notes, sources, first = tmp_path / "notes", [], 0
    notes.mkdir()
    for kind in ALL:
        (tmp_path / kind).mkdir()
        sources.append(LoggedSource(open_kind(kind, tmp_path / kind), notes, first=first, arm=kind))
        first += len(sources[-1])
    dataset, draw = windows_of(sources), {"batch_size": 2 * len(ALL), "seed": 1, "world": 2}
    wanted = {(r, s): dataset.step_batch(step=s, rank=r, **draw) for r in (0, 1) for s in range(5)}
    (notes / f"{os.getpid()}.log").unlink()
    with BatchLoader(dataset, rank=1, num_workers=2, **draw) as loader:
        for step in range(5):
            assert_same(next(loader), wanted[1, step])
    assert set(wanted[1, 0].embodiments) | set(wanted[0, 0].embodiments) == set(ALL)
    reads = [[tuple(row) for row in wanted[1, step].index.tolist()] for step in range(5)]
    assert logged(notes / f"{os.getpid()}.log") == reads[0]
    logs = [logged(file) for file in notes.iterdir() if file.stem != str(os.getpid())]
    mine = [reads[1] + reads[3], reads[2] + reads[4]]  # a worker may be ahead of what was asked of it
    assert sorted(log[: len(reads[1]) * 2] for log in logs) == sorted(mine)
    for step in range(5):
        other = {tuple(row) for row in wanted[0, step].index.tolist()}
        assert not other & set(reads[step])
    for source in sources:
        source.close()


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_fingerprint_is_of_the_content_and_not_of_the_copy(kind: str, tmp_path: Path) -> None:
    made = KINDS[kind](tmp_path)
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / made.path.name
    shutil.copytree(made.path, copy) if made.path.is_dir() else shutil.copy(made.path, copy)
    files = [copy] if copy.is_file() else sorted(path for path in copy.rglob("*") if path.is_file())
    for file in files:
        os.utime(file, (1, 1))
    before = checksum(made.open())
    assert checksum(made.open(copy)) == before
    for file in files:
        if file.name in ("embodiment.json", ".zgroup"):  # counted by MappedSource; holds nothing
            continue
        good = file.read_bytes()
        spoilt = bytearray(good)
        spoilt[len(good) // 2] ^= 1
        file.write_bytes(spoilt)
        with suppress(VlaError):  # is not even opened any more
            assert checksum(made.open(copy)) != before
        file.write_bytes(good)


def checksum(source: EpisodeSource) -> int:
    assert isinstance(source, MappedSource)
    value = source.raw.checksum()
    source.close()
    return value


def test_a_set_without_a_whole_episode_lists_its_faults_in_lines(tmp_path: Path) -> None:
    file = test_rlds.write(tmp_path, [test_rlds.episode(0)])
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DatasetError, match=r"has no whole episode:\n  - .*truncated") as caught:
        open_raw(tmp_path, skip_damaged=True)
    assert "[" not in str(caught.value)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_episode_that_is_not_there_is_told_with_those_that_are(kind: str, tmp_path: Path) -> None:
    source = KINDS[kind](tmp_path).open()
    has = f"{len(source)} episode{'s' if len(source) > 1 else ''}, numbered from 0"
    with pytest.raises(StoreError, match=f"There is no episode {len(source)} in .*, which has {has}"):
        source.column(len(source), "action")
    source.close()
