"""Archives: the same episodes with their frames as video, read through the same interface."""

from __future__ import annotations

import copy
import os
import shutil

import numpy as np
import pytest
import zarr

from tests.data.worlds import make_arm, make_episode
from vla.cli.data.archive import run_archive
from vla.data.archive import VideoCodec, write_archive
from vla.data.shards import HEADER_BYTES
from vla.data.statistics import compute_statistics
from vla.data.store import EpisodeStore
from vla.data.windows import WindowConfig, WindowDataset
from vla.errors import ConfigError, StoreError


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A store of two episodes and its archive, both closed."""
    root, arm = tmp_path_factory.mktemp("archive"), make_arm()
    rng = np.random.default_rng(3)
    with EpisodeStore.create(root / "s.zarr", embodiments=[arm], provenance={"by": "test"}) as store:
        for length in (7, 4):
            store.append(make_episode(rng, arm, length=length))
        write_archive(store, root / "a.zarr", VideoCodec(gop=3))
    return root / "s.zarr", root / "a.zarr"


def test_an_archive_keeps_numbers_exactly_and_pictures_closely(pair):
    with EpisodeStore.open(pair[0]) as store, EpisodeStore.open(pair[1]) as archive:
        assert [i.provenance for i in archive.episodes] == [i.provenance for i in store.episodes]
        assert (archive.provenance, archive.embodiments) == (store.provenance, store.embodiments)
        for name in store.columns(0):
            np.testing.assert_array_equal(archive.column(0, name), store.column(0, name))
        for camera in store.cameras(0):
            there, here = (s.frames(0, camera, range(7)).astype(int) for s in (store, archive))
            assert np.abs(there - here).mean() < 4
        assert archive.verify() == []


def test_any_order_of_reading_gives_the_same_pictures(pair):
    with EpisodeStore.open(pair[1]) as archive:
        in_order = {camera: archive.frames(0, camera, range(7)) for camera in archive.cameras(0)}
        for t in (6, 0, 5, 5, 3, 4, 2, 1):
            for camera, wanted in in_order.items():
                np.testing.assert_array_equal(archive.frames(0, camera, [t])[0], wanted[t])


def test_the_index_says_where_decoding_begins(pair):
    with EpisodeStore.open(pair[1]) as archive:
        reader = archive.frame_reader(0, "front")
        assert [reader.first(t) for t in range(7)] == [0, 0, 0, 3, 3, 3, 6]
        ((_, _, size),) = reader.spans(5)
        assert size == reader.index[3:6, 1].sum()


def test_windows_read_an_archive(pair):
    with EpisodeStore.open(pair[1]) as archive:
        batch = WindowDataset(archive, WindowConfig(), compute_statistics(archive)).batch([[1, 2], [0, 5]])
        np.testing.assert_array_equal(batch.images[1, 0], archive.frames(0, "front", [5])[0])
        np.testing.assert_array_equal(batch.images[0, 1], archive.frames(1, "hand", [2])[0])


def test_any_zarr_library_reads_an_archive(pair):
    camera = zarr.open_group(pair[1], mode="r")["part-00000/steps/alpha/cameras/front"]
    with EpisodeStore.open(pair[1]) as archive:
        reader = archive.frame_reader(1, "front")
        start, length, _, first = camera["index"][7 + 1]
        assert (first, bytes(camera["frames"][start : start + length])) == (0, reader.stored(1))


def test_a_forked_reader_has_its_own_decoder(pair):
    with EpisodeStore.open(pair[1]) as archive:
        wanted = archive.frames(0, "front", [4])
        pid = os.fork()
        if pid == 0:
            os._exit(0 if np.array_equal(archive.frames(0, "front", [4]), wanted) else 1)
        assert os.waitpid(pid, 0)[1] == 0


def test_a_reader_travels_to_another_process(pair):
    with EpisodeStore.open(pair[1]) as archive:
        other = copy.deepcopy(archive)
        np.testing.assert_array_equal(other.frames(1, "hand", [3]), archive.frames(1, "hand", [3]))
        other.close()


@pytest.mark.parametrize("size", [48, 65])  # smaller than the encoder takes, and odd
def test_awkward_sizes_come_back_as_they_were(tmp_path, rng, size):
    arm = make_arm(image_size=size)
    episode = make_episode(rng, arm, length=3)
    with EpisodeStore.create(tmp_path / "a", embodiments=[arm], codec=VideoCodec()) as store:
        store.append(episode)
        got = store.frames(0, "front", [2])[0].astype(int)
    assert np.abs(got - episode.steps[2].observation.images["front"]).mean() < 6


def test_a_damaged_unit_is_named_and_so_is_every_frame_that_needs_it(pair, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(pair[1], copy)
    with EpisodeStore.open(copy) as archive:
        start = int(archive.frame_reader(0, "front").index[0, 0])
    with (copy / "part-00000/steps/alpha/cameras/front/frames/c/0").open("r+b") as shard:
        shard.seek(HEADER_BYTES + start + 3)
        shard.write(b"\xff\x00\xff")
    with EpisodeStore.open(copy) as archive:
        assert {d.episode for d in archive.verify()} == {0}
        with pytest.raises(StoreError, match=r"Episode 0 .*'front': the frame of step 2: .*checksum"):
            archive.frames(0, "front", [2])
        archive.frames(0, "front", [4])  # decoded from step 3 on


def test_the_command_writes_an_archive_once(pair, tmp_path, capsys):
    out = tmp_path / "a.zarr"
    assert run_archive([str(pair[0]), "--out", str(out), "--crf", "40"]) == 0
    assert "2 episodes" in capsys.readouterr().out
    with EpisodeStore.open(out) as archive:
        assert archive.codec == VideoCodec(crf=40)
    with pytest.raises(StoreError, match="not empty"):
        run_archive([str(pair[0]), "--out", str(out)])


def test_impossible_settings_are_refused():
    for bad in ({"crf": 0}, {"gop": 0}, {"preset": 14}):
        with pytest.raises(ConfigError, match="VideoCodec needs"):
            VideoCodec(**bad)
