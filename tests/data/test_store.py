"""The episode store: what goes in comes out, damage is found and named, any zarr library can read it."""

from __future__ import annotations

import copy
import gc
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import zarr

from tests.data.worlds import OTHER, make_arm, make_episode
from vla.data import parts
from vla.data.codec import BACKENDS, JpegCodec
from vla.data.source import read_episode
from vla.data.store import EpisodeStore
from vla.data.summary import describe
from vla.errors import ConfigError, IncompatibleError, StoreError, UnknownNameError
from vla.types import Episode


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


def test_a_part_is_no_store(tmp_path, rng):
    arm = make_arm()
    with EpisodeStore.create(tmp_path / "s.zarr", embodiments=[arm]) as store:
        store.append(make_episode(rng, arm))
    with pytest.raises(StoreError, match="part-00000 is a part of a store: give the folder"):
        EpisodeStore.open(tmp_path / "s.zarr" / "part-00000")


def test_a_store_that_nobody_closed_lets_go_of_its_files(tmp_path, rng):
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    before = opened()
    store = EpisodeStore.create(tmp_path / "s.zarr", embodiments=[make_arm()])
    for _ in range(2):
        store.append(make_episode(rng, make_arm()))
    reader = EpisodeStore.open(tmp_path / "s.zarr")
    reader.column(0, "state")
    assert opened() > before + 5
    del store, reader
    gc.collect()
    assert opened() <= before
    with EpisodeStore.open(tmp_path / "s.zarr") as again:
        assert (len(again), again.verify()) == (2, [])
