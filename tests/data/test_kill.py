"""A writer stopped by SIGKILL at any moment loses nothing committed and leaves a store that opens."""

from __future__ import annotations

import os

import numpy as np
import pytest
import zarr

from tests.data.killed_writer import write_until_killed
from tests.data.worlds import make_arm, make_episode
from vla.data import parts, shards
from vla.data.recorder import ensure_store
from vla.data.store import EpisodeStore


def test_killed_writers_lose_nothing(tmp_path, rng):
    path = tmp_path / "s.zarr"
    EpisodeStore.create(path, embodiments=[make_arm()]).close()
    promised = {
        str(n): write_until_killed(path, n, delay_s, from_first_commit=True)
        for n, delay_s in enumerate((0.0, 0.11, 0.23))
    }
    with EpisodeStore.open(path) as store:
        for writer, count in promised.items():
            kept = [i.provenance["i"] for i in store.episodes if i.provenance["writer"] == writer]
            assert kept == list(range(len(kept)))
            assert count <= len(kept) <= count + 1
        assert store.verify() == []
        store.append(make_episode(rng, make_arm()))
    with EpisodeStore.open(path) as store:
        assert store.verify() == []
    assert zarr.open_group(path, mode="r")["part-00000/steps/alpha/state"][:].any(axis=1).all()


def test_a_writer_killed_while_it_makes_the_store_leaves_room_for_the_next(tmp_path):
    path = tmp_path / "s.zarr"
    write_until_killed(path, 0, 0.0)
    assert write_until_killed(path, 1, 0.0, from_first_commit=True) >= 1
    with EpisodeStore.open(path) as store:
        assert len(store) >= 1
        assert store.verify() == []


@pytest.mark.parametrize("dies_in", ["mkdir", "open", "replace"])
def test_a_store_half_made_is_made_by_the_next_one(tmp_path, rng, monkeypatch, dies_in):
    path, arm = tmp_path / "s.zarr", make_arm()

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if dies_in != "mkdir":
            patch.setattr(type(path), dies_in, die)
        else:
            patch.setattr(shards, "write_text", die)
        with pytest.raises(KeyboardInterrupt):
            EpisodeStore.create(path, embodiments=[arm])
    ensure_store(path, "test")
    with EpisodeStore.open(path) as store:
        store.add_embodiment(arm)
        store.append(make_episode(rng, arm))
        assert store.verify() == []


@pytest.mark.parametrize("last_call", range(0, 60, 4))
def test_a_writer_stopped_between_any_two_writes_loses_nothing(tmp_path, rng, monkeypatch, last_call):
    monkeypatch.setattr(parts, "CHUNK_ROWS", 4)  # many new chunks and shards: all kinds of writes
    path, arm = tmp_path / "s.zarr", make_arm()
    store = EpisodeStore.create(path, embodiments=[arm])
    episodes = [make_episode(rng, arm, length=5) for _ in range(3)]
    store.append(episodes[0])
    calls = 0

    def dying(function):
        def call(*args, **options):
            nonlocal calls
            calls += 1
            if calls > last_call:
                raise KeyboardInterrupt
            return function(*args, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(shards.os, "pwrite", dying(os.pwrite))
        patch.setattr(shards.os, "write", dying(os.write))
        patch.setattr(shards, "write_text", dying(shards.write_text))
        try:
            store.append(episodes[1])
            committed = 2
        except KeyboardInterrupt:
            committed = 1
    store._writer.release()  # the lock ends with the process
    with EpisodeStore.open(path) as again:
        assert (len(again), again.verify()) == (committed, [])
        again.append(episodes[2])
    with EpisodeStore.open(path) as again:
        assert (len(again), again.verify()) == (committed + 1, [])
        np.testing.assert_array_equal(
            again.column(committed, "action"), [s.action for s in episodes[2].steps]
        )
