"""Loader workers: the same batches in the same order for any number of them, and no surprises."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import numpy as np
import psutil
import pytest

from vla.data.loader import BatchLoader
from vla.data.statistics import compute_statistics
from vla.data.store import EpisodeStore
from vla.data.windows import WindowConfig, WindowDataset
from vla.errors import ConfigError, LoaderError


@pytest.fixture
def dataset(filled):
    with EpisodeStore.open(filled) as store:
        yield WindowDataset(store, WindowConfig(), compute_statistics(store))


@dataclass(frozen=True)
class Numbered:
    """A batch that says whose it is."""

    value: np.ndarray
    pid: int


class Numbers:
    """Batches of one number; misbehaves at a step when told to."""

    def __init__(self, fault_at: int = -1, fault: str = "") -> None:
        self.fault_at, self.fault = fault_at, fault

    def step_batch(self, *, seed, step, batch_size, rank=0, world=1):
        if step == self.fault_at:
            if self.fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "larger":
                return Numbered(value=np.zeros(10_000), pid=os.getpid())
            raise ValueError("bad frame")
        return Numbered(value=np.full(batch_size, 100 * seed + step), pid=os.getpid())


def take(loader, count):
    return [next(loader) for _ in range(count)]


def test_workers_make_what_the_main_process_would(dataset):
    with BatchLoader(dataset, batch_size=4, seed=5) as inline:
        wanted = take(inline, 5)
    with BatchLoader(dataset, batch_size=4, seed=5, num_workers=2) as loader:
        got = take(loader, 5)
    for one, other in zip(wanted, got, strict=True):
        for name in ("images", "image_mask", "state", "actions", "action_mask", "index"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert (one.instructions, one.embodiments) == (other.instructions, other.embodiments)
        np.testing.assert_array_equal(one.aux["phase"], other.aux["phase"])


def test_a_resumed_loader_goes_on_where_it_was():
    with BatchLoader(Numbers(), batch_size=2, seed=1) as loader:
        whole = [batch.value[0] for batch in take(loader, 9)]
        assert loader.step == 9
    with BatchLoader(Numbers(), batch_size=2, seed=1, start=4, num_workers=3) as loader:
        assert [batch.value[0] for batch in take(loader, 5)] == whole[4:]


def test_ranks_get_their_own_windows(dataset):
    drawn = [next(BatchLoader(dataset, batch_size=3, seed=0, rank=r, world=2)).index for r in (0, 1)]
    np.testing.assert_array_equal(
        np.concatenate(drawn), dataset.sampler.at(seed=0, step=0, batch_size=6, rank=0, world=1)
    )


def test_a_batch_outlives_the_next_ones():
    with BatchLoader(Numbers(), batch_size=2, seed=0, num_workers=1) as loader:
        batches = take(loader, 6)
        assert [batch.value.tolist() for batch in batches] == [[k, k] for k in range(6)]
        assert len({batch.pid for batch in batches}) == 2  # the first came from here


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("killed", r"died \(exit code -9\).*step 3"),
        ("raises", "bad frame"),
        ("larger", "larger than the first"),
    ],
)
def test_a_worker_that_fails_is_an_error_and_ends_the_others(fault, message):
    loader = BatchLoader(Numbers(3, fault), batch_size=2, seed=0, num_workers=2)
    assert [int(batch.value[0]) for batch in take(loader, 3)] == [0, 1, 2]
    with pytest.raises(LoaderError, match=message):
        next(loader)
    assert not [child for child in psutil.Process().children() if "vla-loader" in child.name()]
    with pytest.raises(LoaderError, match="closed"):
        next(loader)


def test_closing_ends_workers_at_once():
    before = {child.pid for child in psutil.Process().children()}
    loader = BatchLoader(Numbers(), batch_size=2, seed=0, num_workers=2)
    take(loader, 3)
    workers = [worker.process for worker in loader._workers]
    begin = time.monotonic()
    loader.close()
    assert time.monotonic() - begin < 4
    assert [process.exitcode for process in workers] == [0, 0]
    assert not {worker.pid for worker in workers} & {c.pid for c in psutil.Process().children()} - before


def test_a_worker_ignores_the_interrupt_meant_for_the_main_process():
    with BatchLoader(Numbers(), batch_size=2, seed=0, num_workers=1) as loader:
        take(loader, 2)
        os.kill(loader._workers[0].process.pid, signal.SIGINT)
        assert [int(batch.value[0]) for batch in take(loader, 4)] == [2, 3, 4, 5]


def test_what_cannot_travel_is_refused_with_advice():
    numbers = Numbers()
    numbers.file = open(os.devnull)  # noqa: SIM115
    with pytest.raises(LoaderError, match="use num_workers=0"):
        take(BatchLoader(numbers, batch_size=1, seed=0, num_workers=1), 1)
    numbers.file.close()
    with pytest.raises(ConfigError, match="batches of 0"):
        BatchLoader(numbers, batch_size=0, seed=0)
