"""Mixtures: shares are exact, ranks disjoint, and what a source lacks or has too much is said or refused."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.data.lerobot_worlds import describe_v21, write_v21
from tests.data.memory import memory_source
from tests.data.test_hdf5 import write_robomimic
from tests.data.worlds import make_arm, make_episode
from vla.data.mixture import (
    AdaptedSource,
    SourceConfig,
    check_pictures,
    normalisation_modes,
    open_sources,
    source_format,
    source_names,
)
from vla.data.mixture_notes import mixture_notes
from vla.data.resample import ResampledSource
from vla.data.sampling import MixtureSampler, WindowSampler
from vla.data.statistics import compute_statistics
from vla.data.store import EpisodeStore
from vla.data.windows import WindowConfig, WindowDataset
from vla.errors import ConfigError, DatasetError, IncompatibleError, UnknownNameError

ROLES = ("front", "wrist")


def sampler(num_steps: int, cells: int = 1, phases: bool = True) -> WindowSampler:
    lengths = np.full(cells, num_steps // cells)
    approach = np.zeros(int(lengths.sum()), bool)
    approach[::2] = phases
    names = [(str(i), "arm") for i in range(cells)]
    return WindowSampler(lengths, cells=names, approach=approach, approach_share=0.5, equal_cells=True)


def mixture(weights=(3.0, 1.0, 0.5)) -> MixtureSampler:
    parts = [sampler(4000, 4), sampler(3000, 3), sampler(2000, 2, phases=False)]
    return MixtureSampler(parts, num_episodes=[4, 3, 2], weights=weights)


def test_shares_are_exact_up_to_rounding_in_every_batch_and_in_expectation():
    drawn = [mixture().at(seed=1, step=step, batch_size=10) for step in range(300)]
    counts = np.stack([np.histogram(batch[:, 0], [0, 4, 7, 9])[0] for batch in drawn])
    expected = np.array([3.0, 1.0, 0.5]) / 4.5 * 10
    assert (np.abs(counts - expected) < 1).all()
    np.testing.assert_allclose(counts.mean(axis=0), expected, atol=0.1)


def test_one_source_draws_exactly_as_it_does_alone():
    alone = sampler(4000, 4)
    whole = MixtureSampler([alone], num_episodes=[4], weights=[7.0])
    np.testing.assert_array_equal(
        whole.at(seed=5, step=3, batch_size=16), alone.draw(np.random.default_rng([5, 3]), 16)
    )


def test_ranks_of_a_mixture_are_disjoint_and_make_the_whole_draw():
    ranks = [mixture().at(seed=0, step=4, batch_size=8, rank=r, world=4) for r in range(4)]
    whole = mixture().at(seed=0, step=4, batch_size=32)
    np.testing.assert_array_equal(np.concatenate(ranks), whole)
    assert len({tuple(row) for row in whole}) == 32


def test_a_source_without_phases_is_drawn_from_uniformly():
    drawn = np.concatenate([mixture((1, 1, 6)).at(seed=2, step=s, batch_size=64) for s in range(40)])
    steps = drawn[drawn[:, 0] >= 7][:, 1]
    assert (steps % 2 == 0).mean() == pytest.approx(0.5, abs=0.05)


def test_foreign_windows_share_a_batch_with_ours(filled):
    with EpisodeStore.open(filled) as store:
        sources = [store, memory_source()]
        config = WindowConfig(horizon=4, resize=True, modes={"gamma": ("mean_std", "quantile")})
        dataset = WindowDataset(sources, config, compute_statistics(sources), weights=[1.0, 1.0])
        batch = dataset.step_batch(seed=0, step=0, batch_size=8)
    foreign = batch.sources == 1
    assert foreign.sum() == 4
    assert [name == "gamma" for name in batch.embodiments] == foreign.tolist()
    assert batch.images.shape == (8, 2, 64, 64, 3)
    assert (batch.image_mask[:, 0]).all()
    assert not batch.image_mask[foreign, 1].any()
    assert np.isnan(batch.aux["target_position"][foreign]).all()
    assert np.isfinite(batch.aux["target_position"][~foreign]).all()


def test_quantiles_may_be_asked_for_one_arm_only(filled):
    source = memory_source()
    config = WindowConfig(image_size=20, camera_roles=("front",), modes={"gamma": ("range", "quantile")})
    dataset = WindowDataset(source, config, compute_statistics(source))
    actions = np.concatenate([source.column(i, "action") for i in range(3)])
    normalised = dataset.normalizer.normalise_action("gamma", actions)
    np.testing.assert_allclose(np.quantile(normalised, 0.99, axis=0), 1, atol=0.1)
    configs = [SourceConfig(path="a", action_mode="quantile"), SourceConfig(path="b")]
    assert normalisation_modes(configs[:1], [source], "mean_std", "range") == {
        "gamma": ("mean_std", "quantile")
    }
    with pytest.raises(ConfigError, match="'gamma' would be normalised by"):
        normalisation_modes(configs, [source, source], "mean_std", "range")


def test_ranges_that_nobody_declared_are_not_normalised_by_and_noted():
    source = memory_source()
    source.description = replace(source.description, ranges="measured", skip_first=0)
    config = SourceConfig(path="a")
    assert normalisation_modes([config], [source], "mean_std", "range") == {"gamma": ("mean_std", "quantile")}
    assert normalisation_modes([replace(config, action_mode="range")], [source], "mean_std", "range") == {}
    notes = mixture_notes([config], [source], roles=("front",), image_size=64, state_slots=())
    assert any("measured, not declared" in note for note in notes)


def test_a_source_without_any_camera_has_all_pictures_masked():
    source = memory_source(replace(make_arm("blind"), cameras=()))
    batch = WindowDataset(source, WindowConfig(), compute_statistics(source)).batch([[0, 0], [2, 5]])
    assert not batch.image_mask.any()
    assert not batch.images.any()


def test_opening_leaves_failures_out_renames_and_resamples(filled, rng):
    arm = make_arm("alpha")
    with EpisodeStore.open(filled) as store:
        failed = make_episode(rng, arm, length=6, provenance={"task": "reach", "seed": 3, "suite": "s"})
        store.append(replace(failed, success=False))
        store.append(failed)
    config = SourceConfig(path=str(filled), rename={"alpha": "other"}, hz=5.0)
    (source,) = open_sources([config])
    assert isinstance(source, ResampledSource)
    assert set(source.embodiments) == {"other", "beta"}
    assert len(source) == 9
    assert {arm.control_hz for arm in source.embodiments.values()} == {5.0}
    assert source_format(source) == "store"
    source.close()
    (whole,) = open_sources([replace(config, failures=True, hz=None)])
    assert len(whole) == 10
    (chosen,) = open_sources([replace(config, hz=None)])
    assert isinstance(chosen, AdaptedSource)
    notes = "\n".join(
        mixture_notes([config], [chosen], roles=("front",), image_size=64, state_slots=("arm0.tcp_position",))
    )
    for text in (
        "1 unsuccessful episode left out",
        "1 episode of evaluation seeds",
        "cameras the recipe does not look through: wrist",
        "does not read (state_slots): joint_position, gripper_opening",
    ):
        assert text in notes
    whole.close()
    chosen.close()


def test_bad_sources_are_named_with_what_to_do(filled, tmp_path, rng):
    path = str(filled)
    with pytest.raises(UnknownNameError, match="Did you mean 'alpha'"):
        open_sources([SourceConfig(path=path, rename={"alfa": "x"})])
    with pytest.raises(ConfigError, match=r"two arms of .* one name"):
        open_sources([SourceConfig(path=path, rename={"alpha": "beta"})])
    with pytest.raises(ConfigError, match="weight is 0"):
        SourceConfig(path=path, weight=0)
    with EpisodeStore.create(tmp_path / "f.zarr", embodiments=[make_arm()]) as store:
        store.append(replace(make_episode(rng, make_arm()), success=False))
    with pytest.raises(DatasetError, match="failures=True"):
        open_sources([SourceConfig(path=str(tmp_path / "f.zarr"))])
    configs = [SourceConfig(path=path)]
    sources = open_sources(configs)
    with pytest.raises(ConfigError, match="64x64, image_size is 32: set resize=True of this source"):
        check_pictures(configs, sources, ROLES, 32)
    check_pictures([replace(configs[0], resize=True)], sources, ROLES, 32)
    other = memory_source(make_arm("alpha", joints=6))
    with pytest.raises(IncompatibleError, match="rename="):
        WindowDataset([*sources, other], WindowConfig(), {})
    assert source_names([*configs, SourceConfig(path="x/demos.zarr")]) == ("demos.zarr#0", "demos.zarr#1")


def test_a_source_may_leave_cameras_out_whose_pictures_are_missing(tmp_path):
    folder = write_v21(tmp_path / "d")
    describe_v21().save(folder / "embodiment.json")
    shutil.rmtree(folder / "videos")
    config = SourceConfig(path=str(folder))
    with pytest.raises(DatasetError, match="are missing"):
        open_sources([config])
    (source,) = open_sources([replace(config, cameras=())])
    assert source.cameras(0) == []
    source.close()


def test_a_camera_that_no_source_has_is_refused_when_the_data_are_opened(filled):
    config = SourceConfig(path=str(filled))
    sources = open_sources([config])
    size = sources[0].embodiments["alpha"].cameras[0].height
    check_pictures([config], sources, ROLES, size)
    with pytest.raises(ConfigError, match=r"role 'left'; there are front, wrist: .*data\.camera_roles"):
        check_pictures([config], sources, ("front", "left"), size)
    sources[0].close()


def test_a_source_may_say_the_instruction_that_its_files_lack(filled, tmp_path):
    path = write_robomimic(tmp_path / "lift.hdf5")
    with pytest.raises(DatasetError, match="instruction=TEXT of a recipe's source"):
        open_sources([SourceConfig(path=str(path))])
    (source,) = open_sources([SourceConfig(path=str(path), instruction="lift the cube")])
    assert {info.instruction for info in source.episodes} == {"lift the cube"}
    source.close()
    with pytest.raises(DatasetError, match="nor an instruction"):
        open_sources([SourceConfig(path=str(filled), instruction="lift the cube")])


def test_a_source_may_leave_tasks_out_and_says_so(tmp_path, rng):
    path, arm = tmp_path / "two.zarr", make_arm()
    with EpisodeStore.create(path, embodiments=[arm]) as store:
        for task in ("reach", "lift", "reach"):
            store.append(make_episode(rng, arm, provenance={"task": task}))
    config = SourceConfig(path=str(path), without_tasks=("reach",))
    sources = open_sources([config])
    assert [info.provenance["task"] for info in sources[0].episodes] == ["lift"]
    notes = mixture_notes(
        [config], sources, state_slots=(), roles=ROLES, image_size=64, state_mode="range", action_mode="range"
    )
    assert any("without its episodes of reach" in note for note in notes)
    with pytest.raises(UnknownNameError, match="push"):
        open_sources([replace(config, without_tasks=("push",))])
    with pytest.raises(DatasetError, match="nothing to learn from"):
        open_sources([replace(config, without_tasks=("reach", "lift"))])


def test_a_store_of_ours_reads_all_its_cameras(filled):
    with pytest.raises(DatasetError, match="give neither a description nor cameras"):
        open_sources([SourceConfig(path=str(filled), cameras=("front",))])


def test_modes_that_disagree_are_told_in_words(filled):
    configs = [SourceConfig(path=str(filled)), SourceConfig(path=str(filled), action_mode="quantile")]
    sources = open_sources(configs)
    with pytest.raises(ConfigError, match=r"by mean_std \(state\) and range \(action\) and, for"):
        normalisation_modes(configs, sources, "mean_std", "range")
    for source in sources:
        source.close()


def test_episodes_of_unknown_success_are_learned_from_and_told_of(tmp_path, rng):
    episode = make_episode(rng, make_arm())
    with EpisodeStore.create(tmp_path / "r.zarr", embodiments=[make_arm()]) as store:
        for success in (None, False, True, None):
            store.append(replace(episode, success=success))
    config = SourceConfig(path=str(tmp_path / "r.zarr"))
    (source,) = open_sources([config])
    assert [info.success for info in source.episodes] == [None, True, None]
    notes = mixture_notes(
        [config], [source], roles=("front",), image_size=64, state_slots=("arm0.tcp_position",)
    )
    assert "r.zarr: 2 episodes of unknown success: learned from" in notes
    assert "r.zarr: 1 unsuccessful episode left out (failures=True takes them)" in notes
    source.close()


@pytest.mark.parametrize(
    ("own", "said"),
    [(None, "actions are normalised by quantiles"), ("range", "actions are normalised by these ranges")]
    + [("mean_std", "actions are normalised by mean and deviation")],
)
def test_a_note_of_ranges_says_how_the_numbers_are_normalised_in_fact(own, said):
    source = memory_source()
    source.description = replace(source.description, ranges="measured", skip_first=0)
    config = SourceConfig(path="a", action_mode=own)
    notes = mixture_notes([config], [source], roles=("front",), image_size=64, state_slots=())
    (note,) = [note for note in notes if "not declared" in note]
    assert note.endswith(f"states are normalised by mean and deviation and {said}")


@pytest.mark.parametrize(
    ("suite", "arm", "noted"),
    [
        ("tabletop", "iiwa14", True),
        ("tabletop@7", "iiwa14", True),
        ("tabletop", "panda", False),
        ("elsewhere", "iiwa14", False),
    ],
)
def test_demonstrations_of_an_arm_that_its_suite_keeps_out_of_training_are_noted(
    tmp_path, rng, suite, arm, noted
):
    path = tmp_path / "demos.zarr"
    described = make_arm(arm)
    with EpisodeStore.create(path) as store:
        store.add_embodiment(described)
        provenance = {"task": "pick", "seed": 1_000_001, "suite": suite}
        store.append(make_episode(rng, described, length=6, provenance=provenance))
    config = SourceConfig(path=str(path))
    (source,) = open_sources([config])
    notes = mixture_notes([config], [source], roles=("front",), image_size=64, state_slots=())
    assert (
        any(f"1 episode with {arm}, which {suite} keeps out of training" in note for note in notes) == noted
    )
