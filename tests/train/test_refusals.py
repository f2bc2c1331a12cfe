"""What is refused before and during a run: one message that says where, and nothing left in the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.reader_kinds import KINDS
from tests.data.worlds import make_arm, make_episode
from tests.train.runs import SIZE, fill_store, tiny_config
from vla.data.loader import BatchLoader
from vla.data.mixture import SourceConfig, open_sources
from vla.data.statistics import compute_statistics
from vla.data.store import EpisodeStore
from vla.data.windows import WindowConfig, WindowDataset
from vla.errors import CheckpointError, ConfigError, DatasetError, IncompatibleError, LoaderError, VlaError
from vla.train.config import TrainConfig
from vla.train.loop import train
from vla.train.record import load_run_config


def two_arms_of_one_name(tmp_path: Path) -> TrainConfig:
    arm = make_arm("alpha", image_size=SIZE, joints=5)
    with EpisodeStore.create(tmp_path / "other.zarr", embodiments=[arm]) as other:
        other.append(make_episode(np.random.default_rng(0), arm))
    config = tiny_config(fill_store(tmp_path / "demos.zarr"), steps=1)
    sources = (*config.data.sources, SourceConfig(path=str(tmp_path / "other.zarr")))
    return replace(config, data=replace(config.data, sources=sources))


def test_two_arms_of_one_name_and_other_sizes_are_told_to_be_renamed(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match=r"state differs[\s\S]*rename={'alpha'"):
        train(two_arms_of_one_name(tmp_path), tmp_path / "run")


def test_refused_data_leave_nothing_behind_and_the_corrected_recipe_runs(tmp_path: Path) -> None:
    refused = two_arms_of_one_name(tmp_path)
    with pytest.raises(IncompatibleError):
        train(refused, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(CheckpointError, match=r"Nothing to resume.*Leave --resume out"):
        train(refused, tmp_path / "run", resume=True)
    first, second = refused.data.sources
    sources = (first, replace(second, rename={"alpha": "gamma"}))
    train(replace(refused, data=replace(refused.data, sources=sources)), tmp_path / "run")


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_took_no_step_starts_anew_with_other_settings(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    def refuse(*_):
        raise ConfigError("not so")

    config = tiny_config(store, steps=1)
    with monkeypatch.context() as patch:
        patch.setattr("vla.train.loop.check_questions", refuse)
        with pytest.raises(ConfigError, match="not so"):
            train(config, tmp_path / "run")
    assert (tmp_path / "run/run.json").exists()
    train(replace(config, seed=5), tmp_path / "run", resume=resume)
    assert load_run_config(tmp_path / "run").seed == 5
    with pytest.raises(ConfigError, match="already holds a run"):
        train(config, tmp_path / "run")


def damaged_store(tmp_path: Path) -> SourceConfig:
    store = fill_store(tmp_path / "demos.zarr")
    shard = max((p for p in store.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(shard.read_bytes())
    used = len(content.rstrip(b"\0"))
    content[used // 2 : used // 2 + 300] = bytes(300)
    shard.write_bytes(bytes(content))
    return SourceConfig(path=str(store))


def damaged_aloha(tmp_path: Path) -> SourceConfig:
    import h5py

    made = KINDS["aloha jpeg"](tmp_path)
    file = sorted(made.path.glob("*.hdf5"))[0]
    with h5py.File(file, "r+") as opened:
        pictures = next(iter(opened["observations/images"].values()))
        pictures[2] = np.zeros_like(pictures[2])
    assert made.description is not None
    replace(made.description, instruction="fold it").save(tmp_path / "d.json")
    return SourceConfig(path=str(made.path), description=str(tmp_path / "d.json"))


@pytest.mark.parametrize("damaged", [damaged_store, damaged_aloha])
def test_a_picture_that_cannot_be_read_is_one_error_with_source_episode_step_and_file(
    tmp_path: Path, damaged
) -> None:
    (source,) = open_sources([damaged(tmp_path)])
    config = WindowConfig(horizon=2, image_size=SIZE, resize=True, camera_roles=("front",))
    roles = {camera.role for arm in source.embodiments.values() for camera in arm.cameras}
    windows = WindowDataset(
        source, replace(config, camera_roles=tuple(sorted(roles))), compute_statistics(source)
    )
    every = [(e, t) for e, info in enumerate(source.episodes) for t in range(info.length)]
    with pytest.raises(
        DatasetError, match=rf"Episode \d+ of {source.path}.*: the pictures of step \d+"
    ) as told:
        windows.batch(every)
    assert "skip_damaged" in str(told.value)
    loader = BatchLoader(windows, batch_size=12, seed=0, num_workers=1)
    with pytest.raises(VlaError) as caught:
        next(batch for batch in loader if batch is None)  # goes on until one cannot be made
    assert "Traceback" not in str(caught.value)
    assert "the pictures of step" in str(caught.value)
    loader.close()
    source.close()


class Missing:
    """Batches of a disk that goes away."""

    def step_batch(self, *, seed, step, batch_size, rank=0, world=1):
        if step == 2:
            raise OSError(5, "disk gone")
        if step == 4:
            raise DatasetError("one line")
        return {"value": np.zeros(batch_size)}


@pytest.mark.parametrize(("start", "message"), [(1, "disk gone"), (3, r"step 4 cannot be made\. one line$")])
def test_a_worker_tells_why_it_could_not_read(start: int, message: str) -> None:
    loader = BatchLoader(Missing(), batch_size=1, seed=0, start=start, num_workers=1)
    next(loader)
    with pytest.raises(LoaderError, match=message):
        next(loader)


def scrambled(tmp_path: Path) -> Path:
    rng, arm = np.random.default_rng(0), make_arm("alpha", image_size=SIZE)
    with EpisodeStore.create(tmp_path / "s.zarr", embodiments=[arm]) as store:
        for backwards in (False, True, False):
            episode = make_episode(rng, arm)
            times = np.arange(len(episode.steps)) / 10
            if backwards:
                times = times[::-1]
            steps = tuple(
                replace(step, observation=replace(step.observation, time_s=float(time)))
                for step, time in zip(episode.steps, times, strict=True)
            )
            store.append(replace(episode, steps=steps))
    return tmp_path / "s.zarr"


def test_scrambled_time_stamps_stop_training_and_skip_damaged_leaves_them_out(tmp_path: Path) -> None:
    config = tiny_config(scrambled(tmp_path), steps=1)
    with pytest.raises(DatasetError, match=r"Episode 1 of .*time goes from"):
        train(config, tmp_path / "run")
    (plain,) = config.data.sources
    (source,) = open_sources([replace(plain, skip_damaged=True)])
    assert len(source) == 2
    assert [number for number, _ in source.faults()] == [1]  # type: ignore[attr-defined]
    source.close()


def test_the_first_and_the_last_loss_are_printed_however_short_the_run(
    store: Path, tmp_path: Path, capsys
) -> None:
    train(tiny_config(store, steps=3, log_every=50), tmp_path / "run")
    printed = capsys.readouterr().out
    assert "step 1: loss " in printed
    assert "step 3: loss " in printed
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 2
