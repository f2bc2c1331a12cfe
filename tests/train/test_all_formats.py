"""One mixture of every format: shares, masks, statistics; workers, ranks and crashes change no batch."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.reader_kinds import KINDS, Made
from tests.train.runs import tiny_config
from vla.contract import PolicyContract
from vla.data.batch import Batch
from vla.data.description import DatasetDescription
from vla.data.loader import BatchLoader
from vla.data.mapped import MappedSource
from vla.data.mixture import SourceConfig
from vla.data.source import EpisodeSource
from vla.data.windows import WindowDataset
from vla.errors import LoaderError
from vla.train.config import TrainConfig
from vla.train.setup import close_data, draft_contract, open_data, open_windows

WEIGHTS = {
    "store": 4.0,
    "lerobot v3": 3.0,
    "lerobot v2": 2.0,
    "robomimic": 2.0,
    "libero": 1.0,
    "aloha": 2.0,
    "rlds": 1.0,
    "diffusion policy": 1.0,
}
BY_URL = ("store", "rlds")
BATCH, WORLD = 16, 2


def source_config(kind: str, made: Made, folder: Path) -> SourceConfig:
    """The kind as its own arm; what it lacks is said in a file beside it."""
    with_arm = made.open()
    description: DatasetDescription | None = None
    if isinstance(with_arm, MappedSource):
        description = with_arm.description
        description.save(folder / f"{kind}.json")
    [arm] = with_arm.embodiments
    with_arm.close()
    return SourceConfig(
        path=made.path.as_uri() if kind in BY_URL else str(made.path),
        weight=WEIGHTS[kind],
        description=None if description is None else str(folder / f"{kind}.json"),
        rename={arm: kind},
        resize=True,
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainConfig]:
    folder = tmp_path_factory.mktemp("formats")
    sources = []
    for kind in WEIGHTS:
        (folder / kind).mkdir()
        sources.append(source_config(kind, KINDS[kind](folder / kind), folder))
    plain = tiny_config(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLA_CACHE", str(folder / "cache"))
        yield replace(plain, data=replace(plain.data, sources=tuple(sources), camera_roles=("front", "top")))


@pytest.fixture(scope="module")
def opened(config: TrainConfig) -> Iterator[tuple[PolicyContract, tuple[EpisodeSource, ...], WindowDataset]]:
    sources = open_data(config.data)
    contract = draft_contract(config, sources, {})
    yield contract, sources, open_windows(config, sources, contract)
    close_data(sources)


@pytest.fixture(scope="module")
def windows(opened: tuple[PolicyContract, tuple[EpisodeSource, ...], WindowDataset]) -> WindowDataset:
    return opened[2]


def same(one: Batch, other: Batch) -> bool:
    arrays = ("index", "images", "image_mask", "state", "state_mask", "actions", "action_mask", "sources")
    return one.instructions == other.instructions and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


def take_until_it_fails(loader: BatchLoader[Batch], got: list[Batch]) -> None:
    while len(got) < 8:
        got.append(next(loader))


def test_every_format_has_its_share_of_each_batch(windows: WindowDataset) -> None:
    drawn = [windows.sampler.at(seed=1, step=step, batch_size=BATCH * WORLD) for step in range(200)]
    counts = np.stack([np.bincount(windows._source[d[:, 0]], minlength=len(WEIGHTS)) for d in drawn])
    expected = np.array(list(WEIGHTS.values())) / sum(WEIGHTS.values()) * BATCH * WORLD
    assert (np.abs(counts - expected) < 1).all()
    np.testing.assert_allclose(counts.mean(axis=0), expected, atol=0.15)


def test_arms_cameras_rates_and_actions_of_all_formats_share_a_batch(opened) -> None:
    contract, sources, windows = opened
    batch = windows.step_batch(seed=0, step=0, batch_size=BATCH * WORLD)
    assert set(batch.embodiments) == set(WEIGHTS)
    for row, arm in enumerate(batch.embodiments):
        embodiment = contract.embodiments[arm]
        assert np.array_equal(np.flatnonzero(batch.state_mask[row]), np.sort(embodiment.state_index))
        assert np.array_equal(np.flatnonzero(batch.action_mask[row, 0]), np.sort(embodiment.action_index))
        roles = {camera.role for camera in embodiment.cameras}
        assert batch.image_mask[row].tolist() == [role in roles for role in windows.config.camera_roles]
    assert len({arm.control_hz for arm in contract.embodiments.values()}) > 2
    assert np.isfinite(batch.state).all()
    assert np.isfinite(batch.actions).all()
    assert not batch.state[~batch.state_mask].any()
    assert sorted({e for source in sources for e in source.embodiments}) == sorted(WEIGHTS)


def test_every_arm_is_normalised_by_its_own_numbers_and_constant_ones_are_not_blown_up(opened) -> None:
    contract, sources, _ = opened
    normalizer = contract.normalizer()
    for kind, source in zip(WEIGHTS, sources, strict=True):
        states = np.concatenate([source.column(info.index, "state") for info in source.episodes])
        mean = np.asarray(normalizer.statistics[kind].state.mean)
        np.testing.assert_allclose(mean, states.astype(np.float64).mean(axis=0), rtol=1e-5, atol=1e-6)
        normal = normalizer.normalise_state(kind, states)
        spread = normal.std(axis=0)
        assert (spread < 1.01).all()
        assert np.abs(normal.mean(axis=0)).max(initial=0) < 1e-2


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_ranks_and_workers_see_the_one_order_and_no_window_of_a_batch_twice(
    windows: WindowDataset, workers: int
) -> None:
    draw = {"batch_size": BATCH, "seed": 3, "world": WORLD}
    seen = []
    for rank in range(WORLD):
        with BatchLoader(windows, rank=rank, num_workers=workers, **draw) as loader:
            seen.append([next(loader) for _ in range(4)])
    for step, batches in enumerate(zip(*seen, strict=True)):
        whole = windows.step_batch(seed=3, step=step, batch_size=BATCH * WORLD)
        assert np.array_equal(np.concatenate([batch.index for batch in batches]), whole.index)
        assert all(
            same(batch, windows.step_batch(step=step, rank=r, **draw)) for r, batch in enumerate(batches)
        )
        approach = whole.aux["phase"][:, 0] == 0
        assert len(np.unique(whole.index[~approach], axis=0)) >= (~approach).sum() - 4  # of tiny sources


def test_a_run_whose_worker_was_killed_resumes_with_the_batches_it_would_have_seen(
    windows: WindowDataset,
) -> None:
    draw = {"batch_size": BATCH, "seed": 3, "rank": 1, "world": WORLD}
    wanted = [windows.step_batch(step=step, **draw) for step in range(8)]
    loader = BatchLoader(windows, num_workers=2, **draw)
    got = [next(loader) for _ in range(3)]
    for worker in loader._workers:
        os.kill(worker.process.pid or 0, signal.SIGKILL)
        worker.process.join()
    with pytest.raises(LoaderError, match="died"):
        take_until_it_fails(loader, got)
    assert len(got) < 8
    with BatchLoader(windows, start=len(got), num_workers=1, **draw) as resumed:
        got += [next(resumed) for _ in range(8 - len(got))]
    assert all(same(one, other) for one, other in zip(got, wanted, strict=True))


def test_all_formats_are_brought_to_one_rate(config: TrainConfig) -> None:
    slow = replace(config.data, control_hz=5.0)
    sources = open_data(slow)
    assert {arm.control_hz for source in sources for arm in source.embodiments.values()} == {5.0}
    for source in sources:
        for info in source.episodes:
            np.testing.assert_allclose(np.diff(source.column(info.index, "time_s")), 0.2, atol=1e-6)
    close_data(sources)
