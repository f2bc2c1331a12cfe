"""Augmentation: labels move with pictures, nothing is mirrored, words are dropped at their rate."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.worlds import OTHER, make_arm, make_episode
from vla.data.batch import Batch
from vla.data.statistics import compute_statistics
from vla.data.store import EpisodeStore
from vla.data.windows import WindowConfig, WindowDataset
from vla.train.augment import ask_otherwise, drop_words, jitter_colours, shift_images


@pytest.fixture
def mixed_batch(tmp_path: Path) -> Batch:
    """Eight samples; every second one knows what else its scene could be asked for."""
    with EpisodeStore.create(tmp_path / "one.zarr", embodiments=[make_arm()]) as store:
        store.append(make_episode(np.random.default_rng(0), make_arm(), length=8))
        windows = WindowDataset(store, WindowConfig(), compute_statistics(store))
        return windows.batch([(0, t) for t in range(8)])


def picture_with_dot(x: int, y: int, size: int = 32) -> np.ndarray:
    image = np.zeros((1, 1, size, size, 3), np.uint8)
    image[0, 0, y, x] = 255
    return image


def centre_uv(x: float, y: float, size: int = 32) -> np.ndarray:
    return np.array([(x + 0.5) / size * 2 - 1, (y + 0.5) / size * 2 - 1], np.float32)


@given(x=st.integers(6, 25), y=st.integers(6, 25), seed=st.integers(0, 1000))
def test_a_label_moves_with_its_pixel(x, y, seed):
    uv = centre_uv(x, y)[None, None, None]
    moved, label = shift_images(picture_with_dot(x, y), uv, np.random.default_rng(seed), 3)
    row, column = (int(i) for i in np.argwhere(moved[0, 0, ..., 0])[0])
    np.testing.assert_allclose(label[0, 0, 0], centre_uv(column, row), atol=1e-6)
    assert abs(row - y) <= 3
    assert abs(column - x) <= 3


def test_a_label_that_leaves_the_picture_is_forgotten():
    uv = np.array([[[[0.99, 0.0], [np.nan, np.nan]]]], np.float32)
    images = np.zeros((1, 1, 32, 32, 3), np.uint8)
    labels = [shift_images(images, uv, np.random.default_rng(seed), 3)[1][0, 0] for seed in range(40)]
    assert all(np.isnan(label[1]).all() for label in labels)
    assert any(np.isnan(label[0]).all() for label in labels)
    assert all(np.nanmax(np.abs(label[0]), initial=0) <= 1 for label in labels)


def test_the_edge_is_repeated_and_nothing_is_mirrored():
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, :, None], (32, 32, 3))[None, None]
    for seed in range(10):
        moved, _ = shift_images(ramp, np.zeros((1, 1, 2, 2), np.float32), np.random.default_rng(seed), 3)
        steps = np.diff(moved[0, 0, 0, :, 0].astype(int))
        assert set(steps) <= {0, 1}


def test_pictures_of_one_batch_move_apart():
    images = np.repeat(picture_with_dot(16, 16), 8, axis=0)
    moved, _ = shift_images(images, np.zeros((8, 1, 2, 2), np.float32), np.random.default_rng(0), 3)
    assert len({tuple(np.argwhere(image[0, ..., 0])[0]) for image in moved}) > 3


def test_colours_change_within_their_limits():
    images = np.full((4, 2, 8, 8, 3), 100, np.uint8)
    changed = jitter_colours(images, np.random.default_rng(0), 0.15, 0.06)
    assert changed.min() >= 100 * 0.85 - 0.06 * 255 - 1
    assert changed.max() <= 100 * 1.15 + 0.06 * 255 + 1
    assert len(np.unique(changed)) > 10
    assert jitter_colours(images, np.random.default_rng(0), 0.0, 0.0) is images


def test_words_are_dropped_at_their_rate_and_padding_is_not():
    ids, mask = np.full((200, 20), 7), np.ones((200, 20), bool)
    mask[:, 10:] = False
    dropped = drop_words(ids, mask, np.random.default_rng(0), 0.1)
    assert 0.07 < (dropped[:, :10] == 1).mean() < 0.13
    assert (dropped[:, 10:] == 7).all()


def test_another_instruction_brings_its_own_places_and_masks_the_actions(mixed_batch):
    asked = ask_otherwise(mixed_batch, np.random.default_rng(0), 1.0)
    known = np.array([bool(text) for text in mixed_batch.other_instructions])
    assert 0 < known.sum() < len(known)
    assert [text == OTHER for text in asked.instructions] == known.tolist()
    assert not asked.action_mask[known].any()
    np.testing.assert_array_equal(asked.action_mask[~known], mixed_batch.action_mask[~known])
    for key in ("target_position", "front_goal_uv"):
        other = key.replace("target", "other_target").replace("goal", "other_goal")
        np.testing.assert_array_equal(asked.aux[key][known], mixed_batch.aux[other][known])
        np.testing.assert_array_equal(asked.aux[key][~known], mixed_batch.aux[key][~known])


def test_share_zero_asks_nothing_else(mixed_batch):
    assert ask_otherwise(mixed_batch, np.random.default_rng(0), 0.0) is mixed_batch
