"""Stores read over the network: the same episodes, few requests, clear refusals."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tests.data.worlds import make_arm, make_episode
from vla.data import remote
from vla.data.archive import VideoCodec, write_archive
from vla.data.readers import open_source
from vla.data.shards import HEADER_BYTES
from vla.data.statistics import compute_statistics
from vla.data.store import EpisodeStore
from vla.data.windows import WindowConfig, WindowDataset
from vla.errors import MissingExtraError, StoreError

URL = "memory://bucket/demos.zarr"


def upload(directory: Path, url: str = URL) -> None:
    system, root = fsspec.core.url_to_fs(url)
    for path in directory.rglob("*"):
        if path.is_file():
            system.pipe_file(f"{root}/{path.relative_to(directory)}", path.read_bytes())


@pytest.fixture
def bucket(filled):
    """The store of eight episodes in an object store; gives its local original."""
    upload(filled)
    yield filled
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_a_remote_store_is_the_local_one(bucket):
    with EpisodeStore.open(bucket) as here, EpisodeStore.open(URL) as there:
        assert (there.path, there.episodes) == (URL, here.episodes)
        assert there.index_checksum() == here.index_checksum()
        for index in (0, 7):
            for name in here.columns(index):
                np.testing.assert_array_equal(there.column(index, name), here.column(index, name))
            np.testing.assert_array_equal(
                there.frames(index, "front", [3, 0]), here.frames(index, "front", [3, 0])
            )
        assert there.verify() == []


def test_a_file_url_and_any_source_door_work(bucket):
    with EpisodeStore.open(f"file://{bucket}") as store:
        assert len(store) == 8
    source = open_source(URL)
    assert len(source) == 8
    source.close()


@pytest.mark.parametrize("video", [False, True])
def test_a_batch_of_windows_is_one_request(bucket, tmp_path, monkeypatch, video):
    if video:
        with EpisodeStore.open(bucket) as store:
            write_archive(store, tmp_path / "a.zarr", VideoCodec())
        upload(tmp_path / "a.zarr", "memory://bucket/a.zarr")
    with EpisodeStore.open("memory://bucket/a.zarr" if video else URL) as store:
        dataset = WindowDataset(store, WindowConfig(), compute_statistics(store))
        wanted = dataset.batch([[0, 1], [3, 2]])
        calls, system = [], store._files._connect()[0]
        monkeypatch.setattr(
            type(system),
            "cat_ranges",
            lambda self, paths, *args, **options: (
                calls.append(len(paths))
                or fsspec.AbstractFileSystem.cat_ranges(self, paths, *args, **options)
            ),
        )
        batch = dataset.batch([[0, 1], [3, 2]])
        assert calls == [3]  # two cameras of alpha, one of beta
        np.testing.assert_array_equal(batch.images, wanted.images)


def test_several_parts_are_found(tmp_path, rng):
    arm = make_arm()
    with EpisodeStore.create(tmp_path / "s", embodiments=[arm]) as one, EpisodeStore.open(one.path) as two:
        for store, text in ((one, "a"), (two, "b")):
            store.append(make_episode(rng, arm, instruction=text))
    upload(tmp_path / "s", "memory://many/s")
    with EpisodeStore.open("memory://many/s") as store:
        assert [info.instruction for info in store.episodes] == ["a", "b"]


def test_what_is_kept_is_bounded_and_fetched_again(bucket, monkeypatch):
    monkeypatch.setattr(remote, "_KEPT_BYTES", 30_000)
    with EpisodeStore.open(bucket) as here, EpisodeStore.open(URL) as there:
        for index in range(8):
            for name in here.columns(index):
                np.testing.assert_array_equal(there.column(index, name), here.column(index, name))
        assert sum(len(data) for data in there._files._kept.values()) == there._files._size


def test_damage_and_truncation_are_found(bucket):
    system = fsspec.filesystem("memory")
    path = "/bucket/demos.zarr/part-00000/steps/alpha/cameras/front/frames/c/0"
    data = bytearray(system.cat_file(path))
    data[HEADER_BYTES + 100] ^= 0xFF
    system.pipe_file(path, bytes(data))
    with EpisodeStore.open(URL) as store:
        assert {damage.episode for damage in store.verify()} == {0}
    with EpisodeStore.open(URL, skip_damaged=True) as store:
        assert len(store) == 7
    system.pipe_file(path, bytes(data[: HEADER_BYTES + 50]))
    with EpisodeStore.open(URL) as store, pytest.raises(StoreError, match="truncated"):
        store.frames(0, "front", [0])
    system.rm(path)
    with EpisodeStore.open(URL) as store, pytest.raises(StoreError, match="missing"):
        store.frames(0, "front", [0])


def test_a_remote_store_travels_to_other_processes(bucket):
    with EpisodeStore.open(URL) as store:
        wanted = store.frames(0, "front", [1])
        other = copy.deepcopy(store)
        np.testing.assert_array_equal(other.frames(0, "front", [1]), wanted)
        pid = os.fork()
        if pid == 0:
            os._exit(0 if np.array_equal(store.frames(0, "front", [1]), wanted) else 1)
        assert os.waitpid(pid, 0)[1] == 0


def test_writing_to_an_object_store_is_refused_with_advice(bucket, rng):
    with pytest.raises(StoreError, match="local directory and upload"):
        EpisodeStore.create("s3://bucket/new.zarr")
    with EpisodeStore.open(URL) as store:
        with pytest.raises(StoreError, match="local directory and upload"):
            store.append(make_episode(rng, make_arm()))
        with pytest.raises(StoreError, match="local directory and upload"):
            store.add_embodiment(make_arm("gamma"))


def test_what_is_missing_is_said(monkeypatch):
    with pytest.raises(StoreError, match="not an episode store"):
        EpisodeStore.open("memory://nothing/here")
    with pytest.raises(StoreError, match=r"'warp' is not known. Known: .*memory"):
        EpisodeStore.open("warp://a/b")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match="needs fsspec"):
        EpisodeStore.open(URL)


def test_a_server_that_ignores_ranges_is_named(bucket, monkeypatch):
    with EpisodeStore.open(URL) as store:
        system = type(store._files._connect()[0])
        monkeypatch.setattr(
            system, "cat_ranges", lambda self, paths, *_, **__: [self.cat_file(p) for p in paths]
        )
        with pytest.raises(StoreError, match="does not serve ranges"):
            store.frames(0, "front", [0])


def test_what_a_driver_raises_is_an_error_that_names_the_url(bucket, monkeypatch):
    class NoCredentialsError(Exception):
        """As botocore's: no OSError."""

    def refuse(*_, **__):
        raise NoCredentialsError("Unable to locate credentials")

    with EpisodeStore.open(URL) as store:
        system = type(store._files._connect()[0])
        monkeypatch.setattr(system, "cat_ranges", refuse)
        with pytest.raises(StoreError, match=r"demos\.zarr cannot be read: NoCredentialsError: Unable"):
            store.frames(0, "front", [0])
    monkeypatch.setattr(system, "cat", refuse)
    with pytest.raises(StoreError, match="Unable to locate credentials"):
        EpisodeStore.open(URL)
