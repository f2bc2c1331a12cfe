"""Damage to an episode store is found, named, and kept away from what is read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data.worlds import make_arm, make_episode
from vla.data import parts, shards
from vla.data.codec import JpegCodec
from vla.data.damage import damaged_episodes
from vla.data.readers import open_source
from vla.data.source_view import AdaptedSource
from vla.data.store import EpisodeStore
from vla.errors import StoreError


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


def test_a_half_written_commit_is_ignored_then_removed(filled, rng):
    log = filled / "part-00000/episodes/commits.jsonl"
    log.write_bytes(log.read_bytes() + b'{"crc32c":"0000')
    with EpisodeStore.open(filled) as store:
        assert len(store) == 8
        assert "half-written" in store.notices[0]
        store.append(make_episode(rng, make_arm()))
    with EpisodeStore.open(filled) as store:
        assert (len(store), store.notices, store.verify()) == (9, [], [])


@pytest.mark.parametrize("column", ["state", "aux/phase", "cameras/front/index", "cameras/front/frames"])
def test_a_flipped_byte_is_found_and_the_episode_named(filled, column):
    directory = filled / "part-00000/steps/alpha" / column
    shard = next(path for path in (directory / "c").rglob("*") if path.is_file())
    with EpisodeStore.open(filled) as store:
        if column.endswith("frames"):
            place = int(store.frame_reader(2, "front").index[3, 0]) + 5  # episode 2 is alpha's second
        else:
            place = shards.ArrayLayout.load(directory)[0].row_bytes * 6 + 1  # the first has six steps
    flip_byte(shard, shards.HEADER_BYTES + place)
    with EpisodeStore.open(filled) as store:
        assert {damage.episode for damage in store.verify()} == {2}
        with pytest.raises(StoreError, match="Episode 2"):
            _ = store.frames(2, "front", [3]) if "cameras" in column else store.column(2, column)


def test_a_damaged_shard_index_is_found(filled):
    flip_byte(filled / "part-00000/steps/beta/action/c/0/0", 3)
    with EpisodeStore.open(filled) as store:
        assert {damage.episode for damage in store.verify()} == {1, 3, 5, 7}
        with pytest.raises(StoreError, match=r"Episode 1.*index of shard"):
            store.column(1, "action")


@pytest.mark.parametrize("name", ["steps/alpha/state/c/0/0", "steps/beta/cameras/front/frames/c/0"])
def test_a_truncated_file_is_refused_and_verify_names_the_episodes(filled, name):
    os.truncate(filled / "part-00000" / name, shards.HEADER_BYTES + 20)
    with pytest.raises(StoreError, match=r"expected at least .*verify"):
        EpisodeStore.open(filled)
    with EpisodeStore.open(filled, tolerate_damage=True) as store:
        found = {damage.episode for damage in store.verify()}
        assert found == {None, *range("beta" in name, 8, 2)}
        with pytest.raises(StoreError, match="only be read"):
            store.append(make_episode(np.random.default_rng(0), make_arm()))


def test_a_missing_array_or_shard_is_refused(filled):
    (filled / "part-00000/steps/alpha/action/c/0/0").unlink()
    with pytest.raises(StoreError, match="c/0/0 is missing"):
        EpisodeStore.open(filled)
    (filled / "part-00000/steps/alpha/action/zarr.json").unlink()
    with pytest.raises(StoreError, match="is missing"):
        EpisodeStore.open(filled)


@pytest.mark.parametrize("shard", [0, 1])
def test_a_missing_shard_before_the_last_is_noticed_on_opening(tmp_path, rng, monkeypatch, shard):
    monkeypatch.setattr(parts, "CHUNK_ROWS", 2)  # shards of 510 rows
    with EpisodeStore.create(tmp_path / "s", embodiments=[make_arm(image_size=8)]) as store:
        for _ in range(3):
            store.append(make_episode(rng, make_arm(image_size=8), length=400))
    (tmp_path / f"s/part-00000/steps/alpha/action/c/{shard}/0").unlink()
    with pytest.raises(StoreError, match=f"action/c/{shard}/0 is missing"):
        EpisodeStore.open(tmp_path / "s")


def test_a_column_that_begins_late_misses_no_shard(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(parts, "CHUNK_ROWS", 2)
    arm = make_arm(image_size=8)
    with EpisodeStore.create(tmp_path / "s", embodiments=[arm]) as store:
        first, second = (make_episode(rng, arm, length=n) for n in (600, 5))
        for step in second.steps:
            step.observation.aux["late"] = np.ones(1, np.float32)
        store.append(first)
        store.append(second)
    assert not (tmp_path / "s/part-00000/steps/alpha/aux/late/c/0").exists()
    with EpisodeStore.open(tmp_path / "s") as store:
        assert store.verify() == []


def test_a_commit_log_cut_at_a_line_is_noticed(filled):
    log = filled / "part-00000/episodes/commits.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:5]))
    with pytest.raises(StoreError, match="truncated: 5 of 8"):
        EpisodeStore.open(filled)


def test_a_damaged_commit_is_noticed(filled):
    flip_byte(filled / "part-00000/episodes/commits.jsonl", 200)
    with pytest.raises(StoreError, match=r"line 1 is damaged"):
        EpisodeStore.open(filled)
    with EpisodeStore.open(filled, tolerate_damage=True) as store:
        assert len(store) == 7


def test_damaged_episodes_are_left_out_on_request_and_named(filled, rng):
    with EpisodeStore.open(filled) as store:
        place = int(store.frame_reader(2, "front").index[3, 0]) + 5
    flip_byte(filled / "part-00000/steps/alpha/cameras/front/frames/c/0", shards.HEADER_BYTES + place)
    with EpisodeStore.open(filled, skip_damaged=True) as store:
        assert [info.instruction for info in store.episodes] == [f"do {i}" for i in (0, 1, 3, 4, 5, 6, 7)]
        assert [info.index for info in store.episodes] == list(range(7))
        (damage,) = store.skipped
        assert (damage.episode, damage.column) == (2, "cameras/front/index")
        assert "step 3" in damage.reason
        assert "left out episode 2" in store.notices[0]
        assert store.frames(2, "front", [3]).any()
        assert store.verify() == []
        with pytest.raises(StoreError, match="only be read"):
            store.append(make_episode(rng, make_arm()))


def test_damaged_metadata_of_a_part_is_named_and_its_episodes_stay(filled):
    (filled / "part-00000/zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"part-00000/zarr\.json is damaged"):
        EpisodeStore.open(filled)
    with EpisodeStore.open(filled, skip_damaged=True) as store:
        assert (len(store), store.skipped[0].episode) == (8, None)


def make_old(path: Path) -> None:
    """Turn a store into one of format version 1: JPEG of one quality, metadata without checksums."""
    for file in path.rglob("zarr.json"):
        document = json.loads(file.read_text())
        del document["attributes"]["vla_crc32c"]
        if file.parent == path:
            codec = {"name": "jpeg", "quality": 95, "subsampling": "4:4:4"}
            document["attributes"]["vla"] |= {"format_version": 1, "codec": codec}
        file.write_text(json.dumps(document))


def test_a_store_of_the_first_version_is_read_and_continued(filled, rng):
    make_old(filled)
    with EpisodeStore.open(filled) as store:
        assert (store.codec, store.checksummed) == (JpegCodec(quality=95), False)
        store.append(make_episode(rng, make_arm()))
        assert store.verify() == []
    (filled / "part-00000/steps/alpha/state/zarr.json").write_text("{}")
    with pytest.raises(StoreError, match=r"state/zarr\.json is damaged"):
        EpisodeStore.open(filled)


@pytest.mark.parametrize("value", ['"float3r"', "[]", '"float64"', "7"])
def test_metadata_without_checksums_that_contradict_the_episodes_are_no_crash(filled, value):
    make_old(filled)
    path = filled / "part-00000/steps/alpha/action/zarr.json"
    path.write_text(path.read_text().replace('"float32"', value))
    with EpisodeStore.open(filled, tolerate_damage=True) as store:
        assert {damage.episode for damage in store.verify()} >= {0, 2, 4, 6}
        with pytest.raises(StoreError, match="action"):
            store.column(0, "action")


@pytest.mark.parametrize(
    "name", ["zarr.json", "part-00000/zarr.json", "part-00000/steps/beta/state/zarr.json"]
)
def test_one_changed_letter_of_metadata_is_refused_and_the_episodes_can_be_read_in_spite(filled, name):
    text = (filled / name).read_text()
    (filled / name).write_text(text.replace(f'"{"episodes" if "part" in name else "alpha"}"', '"other"', 1))
    if "beta" in name:
        (filled / name).write_text(text.replace("[\n  ", "[\n\t ", 1))
    with pytest.raises(StoreError, match=r"zarr\.json is damaged"):
        EpisodeStore.open(filled)
    with EpisodeStore.open(filled, tolerate_damage=True) as store:
        assert any(damage.episode is None and name in damage.reason for damage in store.verify())
        assert store.column(1, "state").any()


@pytest.mark.parametrize("how", ["gone", "changed", "short"])
@pytest.mark.parametrize(
    "name", ["episodes/c/0/0", "episodes/zarr.json", "steps/zarr.json", "steps/alpha/cameras/zarr.json"]
)
def test_what_only_other_libraries_need_is_verified_too_and_told_of_on_opening(filled, name, how):
    path = filled / "part-00000" / name
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "short":
        path.write_bytes(data[: len(data) // 2 if name.endswith("json") else shards.HEADER_BYTES + 40])
    else:
        flip_byte(path, 20 if name.endswith("json") else shards.HEADER_BYTES + 8 * 5)
    with EpisodeStore.open(filled) as store:
        assert any(name in notice for notice in store.notices)
        assert damaged_episodes(store) == []  # nothing is left out
    with EpisodeStore.open(filled, tolerate_damage=True) as store:
        [(episode, why)] = damaged_episodes(store)
        assert episode is None
        assert name in why
        assert [(d.episode, name in d.reason) for d in store.verify()] == [(None, True)]
        assert len(store) == 8


def test_a_part_that_is_gone_is_named(tmp_path, rng):
    arm = make_arm()
    with EpisodeStore.create(tmp_path / "s", embodiments=[arm]) as one, EpisodeStore.open(one.path) as two:
        one.append(make_episode(rng, arm))
        two.append(make_episode(rng, arm))
    shutil.rmtree(tmp_path / "s/part-00000")
    with pytest.raises(StoreError, match="part-00000 is missing"):
        EpisodeStore.open(tmp_path / "s")
    with EpisodeStore.open(tmp_path / "s", skip_damaged=True) as store:
        assert (len(store), store.skipped[0].reason) == (1, "part-00000 is missing, with all its episodes")


def test_commits_lost_from_a_log_that_was_never_closed_are_found(tmp_path, rng):
    arm, path = make_arm(), tmp_path / "s"
    writer = EpisodeStore.create(path, embodiments=[arm])
    for _ in range(4):
        writer.append(make_episode(rng, arm))
    log = path / "part-00000/episodes/commits.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    for kept, found in ((4, 0), (3, 0), (2, 1)):  # 3: as a writer killed before it committed leaves it
        log.write_bytes(b"".join(lines[:kept]))
        with EpisodeStore.open(path) as store:
            assert (len(store), len(store.verify())) == (kept, found)
    log.write_bytes(b"".join(lines))
    writer.close()


def test_damaged_and_lost_commits_are_told_of_without_reading_everything(filled):
    flip_byte(filled / "part-00000/episodes/commits.jsonl", 200)
    with EpisodeStore.open(filled, tolerate_damage=True) as store:
        assert damaged_episodes(store) == [(None, "part-00000: commits.jsonl: line 1 is damaged")]
        view = AdaptedSource(store, episodes=[0, 1], damaged=[(5, "torn")])
        assert damaged_episodes(view)[1:] == [(5, "torn")]
    log = filled / "part-00000/episodes/commits.jsonl"
    log.unlink()
    with EpisodeStore.open(filled, tolerate_damage=True) as store:
        assert (len(store), "truncated: 0 of 8" in damaged_episodes(store)[0][1]) == (0, True)


def test_a_header_that_is_gone_is_asked_for(filled):
    (filled / "zarr.json").unlink()
    with pytest.raises(StoreError, match=r"zarr\.json is missing. It has parts of one: put that file back"):
        open_source(filled)


def test_an_episode_of_many_damaged_frames_is_noticed_in_one_line(filled):
    frames = filled / "part-00000/steps/alpha/cameras/front/frames/c/0"
    with EpisodeStore.open(filled) as store:
        index = store.frame_reader(2, "front").index
    for place, size, *_ in index.tolist():
        flip_byte(frames, shards.HEADER_BYTES + place + size // 2)
    with EpisodeStore.open(filled, skip_damaged=True) as store:
        assert len(store.skipped) == len(index)
        (notice,) = store.notices
        assert "left out episode 2: cameras/front/index: " in notice
        assert f"(and {len(index) - 1} more faults)" in notice
