"""The episode store: what goes in comes out, damage is found and named, any zarr library can read it."""

from __future__ import annotations

import copy
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.data.worlds import OTHER, make_arm, make_episode
from vla.data import parts, shards
from vla.data.codec import BACKENDS, JpegCodec
from vla.data.damage import damaged_episodes
from vla.data.readers import open_source
from vla.data.source import read_episode
from vla.data.source_view import AdaptedSource
from vla.data.store import EpisodeStore
from vla.data.summary import describe
from vla.errors import ConfigError, IncompatibleError, StoreError, UnknownNameError
from vla.types import Episode


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("chunk_rows", [256, 2])  # 2: episodes cross chunks and shards
def test_every_column_comes_back_exactly(tmp_path, rng, monkeypatch, chunk_rows):
    monkeypatch.setattr(parts, "CHUNK_ROWS", chunk_rows)
    monkeypatch.setattr(parts, "CHUNK_BYTES", chunk_rows * 256)
    arm = make_arm()
    episodes = [make_episode(rng, arm, length=n, perturbed=[1]) for n in (3, 300, 1, 250)]
    with EpisodeStore.create(tmp_path / "s.zarr", embodiments=[arm]) as store:
        assert [store.append(episode) for episode in episodes] == [0, 1, 2, 3]
    with EpisodeStore.open(tmp_path / "s.zarr") as store:
        for i, episode in enumerate(episodes):
            seen = [step.observation for step in episode.steps]
            np.testing.assert_array_equal(store.column(i, "state"), [arm.pack_state(o.state) for o in seen])
            np.testing.assert_array_equal(store.column(i, "action"), [s.action for s in episode.steps])
            np.testing.assert_array_equal(store.column(i, "executed"), [s.executed for s in episode.steps])
            np.testing.assert_array_equal(store.column(i, "time_s"), [o.time_s for o in seen])
            for key in seen[0].aux:
                np.testing.assert_array_equal(store.column(i, f"aux/{key}"), [o.aux[key] for o in seen])
        assert store.verify() == []


def test_frames_come_back_within_jpeg_tolerance(tmp_path, rng):
    arm = make_arm()
    episode = make_episode(rng, arm, length=9)
    with EpisodeStore.create(tmp_path / "s.zarr", embodiments=[arm]) as store:
        store.append(episode)
        for camera in ("front", "hand"):
            wanted = np.stack([episode.steps[t].observation.images[camera] for t in (8, 0, 3)])
            got = store.frames(0, camera, [8, 0, 3])
            assert np.abs(got.astype(int) - wanted).mean() < 1.5


@pytest.mark.parametrize("backend", ["simplejpeg", "opencv"])
def test_either_codec_reads_what_the_other_wrote(rng, backend):
    pytest.importorskip("simplejpeg")
    image = make_episode(rng, make_arm(), length=1).steps[0].observation.images["front"]
    jpeg, out = JpegCodec(backend=backend).encode(image), np.empty((2, *image.shape), np.uint8)
    for other, slot in zip(("simplejpeg", "opencv"), out, strict=True):
        JpegCodec(backend=other).decoder()(jpeg, slot)
    assert np.abs(out[0].astype(int) - out[1]).max() <= 3
    assert np.abs(out[0].astype(int) - image).mean() < 1.5


def test_codec_refuses_wrong_sizes_and_garbage(rng):
    image = make_episode(rng, make_arm(), length=1).steps[0].observation.images["front"]
    for backend in ("simplejpeg", "opencv"):
        decode = JpegCodec(backend=backend).decoder()
        for jpeg, shape in ((JpegCodec().encode(image), (32, 32, 3)), (b"no image", (64, 64, 3))):
            with pytest.raises(StoreError, match="frame"):
                decode(jpeg, np.empty(shape, np.uint8))
    with pytest.raises(ConfigError, match=r"1\.\.100"):
        JpegCodec(quality=0)


def test_facts_of_an_episode_survive(filled):
    with EpisodeStore.open(filled) as store:
        info = store.episodes[3]
        assert (info.instruction, info.embodiment, info.length) == ("do 3", "beta", 9)
        assert info.provenance == {"other_instructions": [OTHER], "task": "push", "seed": 3}
        assert info.success
        assert store.embodiments["alpha"] == make_arm("alpha")
        assert store.cameras(0) == ["front", "hand"]
        assert store.cameras(1) == ["front"]


def test_zarr_python_reads_equal_data(filled):
    root = zarr.open_group(filled, mode="r")
    with EpisodeStore.open(filled) as store:
        for number, start, length, _ in root["part-00000/episodes"][:]:
            index = [i.index for i in store.episodes if list(store.embodiments)[number] == i.embodiment]
            info = next(store.episodes[i] for i in index if store._commits[i][1].start == start)
            steps = root[f"part-00000/steps/{info.embodiment}"]
            assert length == info.length
            for name in store.columns(info.index):
                np.testing.assert_array_equal(
                    steps[name][start : start + length], store.column(info.index, name)
                )
            camera = steps["cameras/front"]
            first, size, _ = camera["index"][start]
            image = np.empty((64, 64, 3), np.uint8)
            JpegCodec().decoder()(bytes(camera["frames"][first : first + size]), image)
            np.testing.assert_array_equal(image, store.frames(info.index, "front", [0])[0])


def test_zarr_python_walks_a_closed_store_of_exact_lengths(filled):
    members = dict(zarr.open_group(filled, mode="r").members(max_depth=None))
    assert members["part-00000/steps/alpha/state"].shape == (6 + 8 + 10 + 12, 11)
    assert members["part-00000/episodes"].shape == (8, 4)


def test_a_store_being_written_shows_what_is_committed(tmp_path, rng):
    arm = make_arm()
    writer = EpisodeStore.create(tmp_path / "s.zarr", embodiments=[arm])
    writer.append(make_episode(rng, arm))
    with EpisodeStore.open(tmp_path / "s.zarr") as reader:
        writer.append(make_episode(rng, arm))
        assert len(reader) == 1
        assert reader.verify() == []
    assert zarr.open_array(tmp_path / "s.zarr/part-00000/steps/alpha/state", mode="r")[:24].any(axis=1).all()
    writer.close()


def test_a_second_writer_gets_its_own_part_and_a_free_part_is_continued(tmp_path, rng):
    arm = make_arm()
    with (
        EpisodeStore.create(tmp_path / "s.zarr", embodiments=[arm]) as one,
        EpisodeStore.open(one.path) as two,
    ):
        one.append(make_episode(rng, arm, instruction="a"))
        two.append(make_episode(rng, arm, instruction="b"))
    with EpisodeStore.open(one.path) as three:
        three.append(make_episode(rng, arm, instruction="c"))
    with EpisodeStore.open(one.path) as store:
        assert [info.instruction for info in store.episodes] == ["a", "c", "b"]
        assert sorted(p.name for p in store.path.glob("part-*")) == ["part-00000", "part-00001"]
        assert store.verify() == []


def test_a_forked_reader_reopens_its_files(filled):
    with EpisodeStore.open(filled) as store:
        wanted = store.frames(0, "front", [1])
        pid = os.fork()
        if pid == 0:
            os._exit(0 if np.array_equal(store.frames(0, "front", [1]), wanted) else 1)
        assert os.waitpid(pid, 0)[1] == 0
        np.testing.assert_array_equal(store.frames(0, "front", [1]), wanted)


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


def test_missing_foreign_and_wrong_version_stores_are_refused(filled, tmp_path):
    with pytest.raises(StoreError, match="not an episode store"):
        EpisodeStore.open(tmp_path / "nowhere")
    header = json.loads((filled / "zarr.json").read_text())
    header["attributes"]["vla"]["format_version"] = 99
    (filled / "zarr.json").write_text(json.dumps(header))
    with pytest.raises(StoreError, match="version 99, this package reads 1"):
        EpisodeStore.open(filled)
    (filled / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(StoreError, match="not an episode store"):
        EpisodeStore.open(filled)
    with pytest.raises(StoreError, match="not empty"):
        EpisodeStore.create(filled)


def test_a_store_rewritten_by_another_tool_is_refused(filled):
    path = filled / "part-00000/steps/alpha/state/zarr.json"
    metadata = json.loads(path.read_text())
    metadata["codecs"][0]["configuration"]["codecs"].append({"name": "gzip", "configuration": {"level": 1}})
    path.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="another zarr layout"):
        EpisodeStore.open(filled)


def test_unknown_names_list_the_known_ones(filled, rng):
    with EpisodeStore.open(filled) as store:
        with pytest.raises(UnknownNameError, match="Did you mean 'state'"):
            store.column(0, "stat")
        with pytest.raises(UnknownNameError, match="Known: front"):
            store.frames(1, "hand", [0])
        with pytest.raises(UnknownNameError, match="Known: alpha, beta"):
            store.append(make_episode(rng, make_arm("gamma")))
        with pytest.raises(StoreError, match="has 8 episodes"):
            store.column(8, "state")
        with pytest.raises(StoreError, match=r"has 0\.\.5"):
            store.frames(0, "front", [6])


def test_a_bad_episode_is_refused_and_nothing_is_stored(filled, rng):
    arm = make_arm()
    good = make_episode(rng, arm)
    wrong_size = make_episode(rng, make_arm(image_size=32))
    empty = Episode(steps=(), instruction="", embodiment="alpha", success=True, provenance={})
    strange = Episode(
        steps=good.steps,
        instruction=good.instruction,
        embodiment="alpha",
        success=True,
        provenance={"a": {1}},
    )
    with EpisodeStore.open(filled) as store:
        for bad, why in ((wrong_size, "expected uint8"), (empty, "without steps"), (strange, "JSON")):
            with pytest.raises(StoreError, match=why):
                store.append(bad)
        assert store.append(good) == 8
    with EpisodeStore.open(filled) as store:
        assert (len(store), store.verify()) == (9, [])


def test_an_embodiment_keeps_its_meaning(filled):
    with EpisodeStore.open(filled) as store:
        store.add_embodiment(make_arm("alpha"))
        store.add_embodiment(make_arm("gamma"))
        with pytest.raises(IncompatibleError, match="cameras differ"):
            store.add_embodiment(make_arm("alpha", image_size=32))
        with pytest.raises(StoreError, match="cannot be stored"):
            store.add_embodiment(make_arm("../up"))
    with EpisodeStore.open(filled) as store:
        assert list(store.embodiments) == ["alpha", "beta", "gamma"]


def test_an_embodiment_added_between_episodes_is_numbered_right(tmp_path, rng):
    with EpisodeStore.create(tmp_path / "s", embodiments=[make_arm("alpha")]) as store:
        store.append(make_episode(rng, make_arm("alpha")))
        store.add_embodiment(make_arm("beta"))
        store.append(make_episode(rng, make_arm("beta")))
    assert zarr.open_array(tmp_path / "s/part-00000/episodes", mode="r")[:, 0].tolist() == [0, 1]


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


def test_pictures_are_taken_over_as_they_are_stored(filled, tmp_path):
    with (
        EpisodeStore.open(filled) as store,
        EpisodeStore.create(tmp_path / "t", embodiments=store.embodiments.values()) as other,
    ):
        stored = {"front": store.frame_reader(0, "front").encoded(range(6))}
        other.append(read_episode(store, 0, ["hand"]), stored)
        for step in range(6):
            ours, theirs = (s.frame_reader(0, "front").fetch(step) for s in (store, other))
            assert ours == theirs
        assert other.verify() == []
        with pytest.raises(StoreError, match="6 pictures, the episode 8"):
            other.append(read_episode(store, 2, ["hand"]), stored)


def test_larger_pictures_are_stored_at_a_lower_quality(rng):
    small, large = (make_episode(rng, make_arm(image_size=n), length=1) for n in (64, 128))
    for episode, quality in ((small, 95), (large, 85)):
        image = episode.steps[0].observation.images["front"]
        assert JpegCodec().encode(image) == JpegCodec(quality=quality).encode(image)


@pytest.mark.parametrize("backend", BACKENDS)
def test_from_192_px_on_colour_has_half_the_resolution_and_a_smooth_picture_keeps_its_levels(backend):
    rows, columns = np.mgrid[:256, :256]
    image = np.stack([rows, columns, (rows + columns) // 2], -1).astype(np.uint8)
    by_size, given, small = (
        JpegCodec(backend=backend).encode(image),
        JpegCodec(quality=95, backend=backend).encode(image),
        JpegCodec(quality=95, backend=backend).encode(image[:64, :64].copy()),
    )
    halved = [data[data.index(b"\xff\xc0") + 11] == 0x22 for data in (by_size, given, small)]
    assert halved == [True, True, False]  # by the header, whatever the quality
    for reader in BACKENDS:
        seen = np.empty_like(image)
        JpegCodec(backend=reader).decoder()(by_size, seen)
        assert np.abs(seen.astype(int) - image).mean() < 2


def test_a_store_travels_to_another_process_without_what_it_writes(tmp_path, rng):
    with EpisodeStore.create(tmp_path / "s", embodiments=[make_arm()]) as store:
        store.append(make_episode(rng, make_arm()))
        other = copy.deepcopy(store)
        assert other._writer is None
        np.testing.assert_array_equal(other.frames(0, "front", [2]), store.frames(0, "front", [2]))
        other.close()


def test_unknown_success_is_no_failure_for_us_and_minus_one_for_other_libraries(tmp_path, rng):
    episode = make_episode(rng, make_arm())
    with EpisodeStore.create(tmp_path / "s", embodiments=[make_arm()]) as store:
        for success in (None, True, False):
            store.append(replace(episode, success=success))
    with EpisodeStore.open(tmp_path / "s") as store:
        assert [info.success for info in store.episodes] == [None, True, False]
        assert ("episodes", "3 (1 successful, 1 failed, 1 of unknown success)") in describe(store)
    assert zarr.open_array(tmp_path / "s/part-00000/episodes", mode="r")[:, 3].tolist() == [-1, 1, 0]


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


def test_a_part_is_no_store(tmp_path, rng):
    arm = make_arm()
    with EpisodeStore.create(tmp_path / "s.zarr", embodiments=[arm]) as store:
        store.append(make_episode(rng, arm))
    with pytest.raises(StoreError, match="part-00000 is a part of a store: give the folder"):
        EpisodeStore.open(tmp_path / "s.zarr" / "part-00000")
