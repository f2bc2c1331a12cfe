"""Recording when the disk fails: named at once, nothing committed is lost, the store stays usable."""

from __future__ import annotations

import errno
import os
import time

import numpy as np
import pytest

from tests.data.test_record import Changing, Obeying
from tests.data.worlds import make_arm, make_episode
from vla.control.loop import Command, run_loop
from vla.control.safety import SafetyEnvelope
from vla.data import parts
from vla.data.recorder import StoreRecorder, check_recordable
from vla.data.store import EpisodeStore
from vla.errors import ConfigError, StoreError
from vla.robots.sim import SimRobot

RED, BLUE = "reach the red square", "reach the blue square"


class Disk:
    """Every write to an array fails while it is full, as the system says it."""

    def __init__(self, monkeypatch):
        self.full, write = False, os.pwrite

        def pwrite(fd, data, offset):
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(fd, data, offset)

        monkeypatch.setattr(os, "pwrite", pwrite)


class Filling:
    """Operator: a second sentence at turn 3; once the first is stored the disk fills; a third."""

    def __init__(self, store, disk):
        self.store, self.disk, self.turns = store, disk, 0

    def poll(self):
        self.turns += 1
        if self.turns > 6:
            time.sleep(0.001)  # the failure is another thread's
        while self.turns == 5 and not len(self.store):
            time.sleep(0.001)
        self.disk.full |= self.turns == 5
        said = {3: BLUE, 6: RED}.get(self.turns)
        return said and Command(kind="instruct", text=said)

    def tell(self, _message):
        pass


def record_onto(path, disk, *, room_at_the_end):
    env = Obeying("fails", "alpha", 64)
    with EpisodeStore.create(path) as store:
        try:
            with StoreRecorder(store, env.embodiment, {}) as recorder:
                robot, envelope = SimRobot(env, seed=1), SafetyEnvelope(env.embodiment)
                try:
                    run_loop(
                        robot, Changing(), envelope, max_steps=9_000, hooks=[recorder],
                        operator=Filling(store, disk),
                    )  # fmt: skip
                finally:
                    disk.full = not room_at_the_end
        finally:
            disk.full = False


def test_a_full_disk_ends_the_run_at_once_and_says_which_episode(tmp_path, monkeypatch):
    with pytest.raises(StoreError, match=f'"{BLUE}", 3 steps: failure could not .*No space left') as caught:
        record_onto(tmp_path / "s", Disk(monkeypatch), room_at_the_end=True)
    assert isinstance(caught.value.__cause__, OSError)
    with EpisodeStore.open(tmp_path / "s") as store:  # there was room when the run ended: nothing is lost
        assert sorted(info.instruction for info in store.episodes) == [BLUE, RED, RED]
        assert store.verify() == []


def test_what_could_not_be_written_to_the_end_is_listed_and_the_rest_is_whole(tmp_path, monkeypatch, rng):
    with pytest.raises(StoreError, match="lacks 2 recorded episodes") as caught:
        record_onto(tmp_path / "s", Disk(monkeypatch), room_at_the_end=False)
    assert f'"{BLUE}", 3 steps' in str(caught.value)
    assert f'"{RED}"' in str(caught.value)
    with EpisodeStore.open(tmp_path / "s") as store:
        assert [info.instruction for info in store.episodes] == [RED]
        store.append(make_episode(rng, store.embodiments["alpha"]))
        assert store.verify() == []


def test_an_index_that_could_not_be_written_is_written_with_the_next_episode(tmp_path, monkeypatch, rng):
    write, failing = os.pwrite, [True]

    def pwrite(fd, data, offset):
        if offset == 0 and failing:
            failing.clear()
            raise OSError(errno.ENOSPC, "full")
        return write(fd, data, offset)

    arm = make_arm()
    with EpisodeStore.create(tmp_path / "s", embodiments=[arm]) as store:
        monkeypatch.setattr(os, "pwrite", pwrite)
        with pytest.raises(OSError, match="full"):
            store.append(make_episode(rng, arm))
        kept = make_episode(rng, arm)
        store.append(kept)
    with EpisodeStore.open(tmp_path / "s") as store:
        assert store.verify() == []
        np.testing.assert_array_equal(store.column(0, "action"), [step.action for step in kept.steps])


def test_a_commit_that_did_not_reach_the_disk_is_no_commit(tmp_path, monkeypatch, rng):
    sync, failing = os.fdatasync, [True]

    def fdatasync(fd):
        if failing and os.readlink(f"/proc/self/fd/{fd}").endswith("commits.jsonl"):
            failing.clear()
            raise OSError(errno.ENOSPC, "full")
        sync(fd)

    arm = make_arm()
    monkeypatch.setattr(parts, "SYNC_SECONDS", -1.0)
    with EpisodeStore.create(tmp_path / "s", embodiments=[arm]) as store:
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        with pytest.raises(OSError, match="full"):
            store.append(make_episode(rng, arm, instruction="lost"))
        store.append(make_episode(rng, arm, instruction="kept"))
    with EpisodeStore.open(tmp_path / "s") as store:
        assert [info.instruction for info in store.episodes] == ["kept"]
        assert store.verify() == []


def test_an_error_of_any_kind_is_named_and_the_episodes_after_it_are_written(tmp_path, rng, monkeypatch):
    arm = make_arm()
    with EpisodeStore.create(tmp_path / "s", embodiments=[arm]) as store:
        recorder, append = StoreRecorder(store, arm, {}), store.append
        bad, good = make_episode(rng, arm, length=3), make_episode(rng, arm, length=4)

        def failing(episode):
            if episode is bad:
                raise KeyError("a bug")
            return append(episode)

        monkeypatch.setattr(store, "append", failing)
        recorder._failed = [(bad, KeyError("a bug")), (good, OSError("full"))]
        with pytest.raises(StoreError, match=r"lacks 1 recorded episodes.*\n.*3 steps.*KeyError: 'a bug'"):
            recorder.close()
        assert [info.length for info in store.episodes] == [4]


def test_a_place_that_cannot_hold_a_recording_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "folder"):
        with pytest.raises(ConfigError, match="Give an episode store"):
            check_recordable(path)
    EpisodeStore.create(tmp_path / "store").close()
    check_recordable(tmp_path / "store")
    check_recordable(tmp_path / "new" / "store")
