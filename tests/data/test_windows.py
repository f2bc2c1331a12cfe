"""Windows: masks end where labels end, slots are right, and sampling is reproducible and balanced."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.data.worlds import make_arm, make_episode
from vla.data.statistics import compute_statistics
from vla.data.store import EpisodeStore
from vla.data.windows import WindowConfig, WindowDataset
from vla.errors import ConfigError, IncompatibleError, StatisticsError, StoreError, UnknownNameError
from vla.spaces import ACTION_DIM, ACTION_SLOTS, STATE_DIM, STATE_SLOTS, gather, slot_mask


@pytest.fixture
def dataset(filled):
    with EpisodeStore.open(filled) as store:
        yield WindowDataset(store, WindowConfig(horizon=4), compute_statistics(store))


def chunk_mask(batch, row):
    """bool [H] of the slots that are used."""
    used = batch.action_mask[row].any(axis=0)
    assert (batch.action_mask[row][:, used] == batch.action_mask[row][:, used][:, :1]).all()
    return batch.action_mask[row][:, used][:, 0]


def test_a_window_holds_the_rows_of_its_step(dataset):
    store, batch = dataset.stores[0], dataset.batch([[2, 3], [5, 0], [0, 1]])
    for row, (episode, step) in enumerate(batch.index):
        info = store.episodes[episode]
        arm = store.embodiments[info.embodiment]
        state = dataset.normalizer.unnormalise_state(arm.name, gather(batch.state[row], arm.state_index))
        np.testing.assert_allclose(state, store.column(episode, "state")[step], atol=1e-5)
        actions = dataset.normalizer.unnormalise_action(
            arm.name, gather(batch.actions[row], arm.action_index)
        )
        np.testing.assert_allclose(actions, store.column(episode, "action")[step : step + 4], atol=1e-6)
        np.testing.assert_array_equal(batch.images[row, 0], store.frames(episode, "front", [step])[0])
        np.testing.assert_array_equal(batch.aux["phase"][row], store.column(episode, "aux/phase")[step])
        np.testing.assert_array_equal(batch.tcp_position[row], store.column(episode, "state")[step, :3])
        assert (batch.instructions[row], batch.embodiments[row]) == (info.instruction, arm.name)


def test_values_and_masks_are_scattered_to_their_slots(dataset):
    batch = dataset.batch([[0, 0], [1, 0]])
    for row, name in enumerate(("alpha", "beta")):
        arm = dataset.embodiments[name]
        np.testing.assert_array_equal(batch.state_mask[row], slot_mask(arm.state_index, STATE_DIM))
        np.testing.assert_array_equal(batch.action_mask[row, 0], slot_mask(arm.action_index, ACTION_DIM))
        assert not batch.state[row, ~batch.state_mask[row]].any()
        assert not batch.actions[row][:, ~batch.action_mask[row, 0]].any()
    joints = STATE_SLOTS["arm0.joint_position"]
    assert batch.state_mask[:, joints.offset : joints.offset + 8].sum(axis=1).tolist() == [7, 5]
    assert batch.action_mask[0, 0, ACTION_SLOTS["arm0.tcp_rotation_delta"].offset + 2]
    assert not batch.action_mask[0, 0, ACTION_SLOTS["arm0.tcp_rotation_delta"].offset]


def test_a_camera_an_arm_lacks_is_masked_and_roles_not_names_count(dataset):
    batch = dataset.batch([[0, 0], [1, 0]])
    assert batch.image_mask.tolist() == [[True, True], [True, False]]
    assert not batch.images[1, 1].any()
    np.testing.assert_array_equal(batch.images[0, 1], dataset.stores[0].frames(0, "hand", [0])[0])


def test_past_the_end_the_chunk_is_masked_and_holds_still(dataset):
    batch = dataset.batch([[0, 4], [0, 5], [0, 2]])  # six steps
    assert [chunk_mask(batch, r).tolist() for r in range(3)] == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    arm = dataset.embodiments["alpha"]
    actions = dataset.normalizer.unnormalise_action("alpha", gather(batch.actions[0], arm.action_index))
    last = dataset.stores[0].column(0, "action")[-1]
    np.testing.assert_allclose(actions[2:], [[0, 0, 0, 0, last[4]]] * 2, atol=1e-7)


def test_labels_after_a_perturbed_step_are_masked(tmp_path, rng):
    arm = make_arm()
    with EpisodeStore.create(tmp_path / "s", embodiments=[arm]) as store:
        store.append(make_episode(rng, arm, length=8, perturbed=[3]))
        store.append(make_episode(rng, arm, length=3))
        dataset = WindowDataset(store, WindowConfig(horizon=4), compute_statistics(store))
        batch = dataset.batch([[0, 0], [0, 1], [0, 3], [0, 4], [1, 0]])
    masks = [chunk_mask(batch, row).tolist() for row in range(5)]
    assert masks == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]]


def test_small_noise_does_not_end_a_chunk(tmp_path, rng):
    arm = make_arm()
    episode = make_episode(rng, arm, length=6)
    for step in episode.steps:
        step.executed[:3] += 0.2 * 0.03  # 0.2 of half the range
    with EpisodeStore.create(tmp_path / "s", embodiments=[arm]) as store:
        store.append(episode)
        statistics = compute_statistics(store)
        for limit, kept in ((0.3, 4), (0.1, 1)):
            dataset = WindowDataset(store, WindowConfig(horizon=4, perturbation=limit), statistics)
            assert chunk_mask(dataset.batch([[0, 0]]), 0).sum() == kept


def test_a_training_step_is_reproducible_and_steps_differ(dataset):
    one, two, other = (dataset.sampler.at(seed=1, step=step, batch_size=16) for step in (9, 9, 10))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    batch = dataset.step_batch(seed=1, step=9, batch_size=16)
    np.testing.assert_array_equal(batch.index, one)
    np.testing.assert_array_equal(batch.actions, dataset.batch(one).actions)


def test_ranks_are_disjoint_and_together_make_the_whole_draw(dataset):
    for step in range(20):
        ranks = [dataset.sampler.at(seed=0, step=step, batch_size=3, rank=r, world=4) for r in range(4)]
        whole = dataset.sampler.at(seed=0, step=step, batch_size=12)
        assert {tuple(row) for row in np.concatenate(ranks)} == {tuple(row) for row in whole}
        assert len({tuple(row) for row in whole}) == 12
    with pytest.raises(ConfigError, match="Rank 4 of 4"):
        dataset.sampler.at(seed=0, step=0, batch_size=8, rank=4, world=4)


def test_cells_get_equal_shares_and_approach_its_own(dataset):
    drawn = np.concatenate([dataset.sampler.at(seed=3, step=s, batch_size=8) for s in range(400)])
    store = dataset.stores[0]
    cells = Counter((store.episodes[e].provenance["task"], store.episodes[e].embodiment) for e, _ in drawn)
    assert all(count / len(drawn) == pytest.approx(1 / 3, abs=0.01) for count in cells.values())
    approach = np.mean([store.column(e, "aux/phase")[t, 0] == 0 for e, t in drawn])
    shares = {cell: [] for cell in cells}
    for info in store.episodes:
        shares[info.provenance["task"], info.embodiment].append(store.column(info.index, "aux/phase") == 0)
    uniform = np.mean([np.concatenate(flags).mean() for flags in shares.values()])
    assert approach == pytest.approx(0.6 + 0.4 * uniform, abs=0.02)


def test_without_equal_cells_steps_are_drawn_alike(filled):
    with EpisodeStore.open(filled) as store:
        config = WindowConfig(equal_cells=False, approach_share=0.0)
        dataset = WindowDataset(store, config, compute_statistics(store))
    drawn = np.concatenate([dataset.sampler.at(seed=3, step=s, batch_size=8) for s in range(1000)])
    counts = Counter(map(tuple, drawn))
    assert len(counts) == len(dataset)
    mean = len(drawn) / len(dataset)
    assert all(abs(count - mean) < 5 * mean**0.5 for count in counts.values())


def test_stores_are_numbered_one_after_the_other(filled, tmp_path, rng):
    arm = make_arm("alpha")
    with (
        EpisodeStore.create(tmp_path / "more", embodiments=[arm]) as more,
        EpisodeStore.open(filled) as store,
    ):
        more.append(make_episode(rng, arm, length=5, instruction="more"))
        dataset = WindowDataset([store, more], WindowConfig(), compute_statistics([store, more]))
        batch = dataset.batch([[8, 4], [7, 0]])
        assert batch.instructions == ["more", "do 7"]
        np.testing.assert_array_equal(batch.images[0, 0], more.frames(0, "front", [4])[0])
        np.testing.assert_array_equal(batch.tcp_position[0], more.column(0, "state")[4, :3])


def test_images_of_another_size_are_refused_or_resized(filled):
    with EpisodeStore.open(filled) as store:
        statistics = compute_statistics(store)
        with pytest.raises(ConfigError, match="64x64, image_size is 32: set resize=True"):
            WindowDataset(store, WindowConfig(image_size=32), statistics)
        batch = WindowDataset(store, WindowConfig(image_size=32, resize=True), statistics).batch([[0, 0]])
        blocks = store.frames(0, "front", [0])[0].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
        assert np.abs(batch.images[0, 0] - blocks).max() <= 1


def test_bad_input_is_named(filled, tmp_path, rng):
    with EpisodeStore.open(filled) as store, EpisodeStore.create(tmp_path / "empty") as empty:
        statistics = compute_statistics(store)
        with pytest.raises(UnknownNameError, match="Known: front, wrist"):
            WindowDataset(store, WindowConfig(camera_roles=("top",)), statistics)
        with pytest.raises(StatisticsError, match=r"'alpha'; there are those of 'beta'\."):
            WindowDataset(store, WindowConfig(), {"beta": statistics["beta"]})
        with pytest.raises(StoreError, match="nothing to train on"):
            WindowDataset(empty, WindowConfig(), statistics)
        with pytest.raises(StoreError, match="outside"):
            WindowDataset(store, WindowConfig(), statistics).batch([[0, 6]])
        empty.add_embodiment(make_arm("alpha", joints=6))
        with pytest.raises(IncompatibleError, match="state differs"):
            WindowDataset([store, empty], WindowConfig(), statistics)
    with pytest.raises(ConfigError, match="approach_share"):
        WindowConfig(approach_share=2)
