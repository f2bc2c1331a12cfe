"""Export to LeRobotDataset v3.0: nothing is lost, and the files are those that lerobot writes itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.data.worlds import make_arm, make_episode
from vla.cli.data.exporting import run_export
from vla.data import lerobot_files
from vla.data.exporting import export_lerobot
from vla.data.lerobot_stats import PixelCounts, vector_stats
from vla.data.readers import open_source
from vla.data.source import read_episode, read_frames
from vla.data.store import EpisodeStore
from vla.errors import DatasetError, UnknownNameError
from vla.types import Episode

COLUMNS = ("state", "action", "executed", "time_s")


def awkward(episode: Episode) -> Episode:
    """Uneven times, a negative zero, the smallest number, an unknown quantity."""
    steps = []
    for t, step in enumerate(episode.steps):
        action = step.action.copy()
        action[:2] = (-0.0, np.finfo(np.float32).smallest_subnormal)
        seen = step.observation
        aux = {**seen.aux, "goal_position": np.full(3, np.nan, np.float32)}
        steps.append(
            replace(step, observation=replace(seen, aux=aux, time_s=t / 10 + 0.003 * t**2), action=action)
        )
    return replace(episode, steps=tuple(steps), success=False)


@pytest.fixture
def demos(tmp_path: Path, rng: np.random.Generator) -> EpisodeStore:
    arm = make_arm()
    store = EpisodeStore.create(tmp_path / "demos.zarr", embodiments=[arm])
    for i in range(3):
        episode = make_episode(
            rng, arm, length=5 + i, instruction=f"fetch the «cube» {i % 2}", perturbed=(2,),
            provenance={"task": "reach", "seed": i, "noise": {"std": 0.1}},
        )  # fmt: skip
        store.append(awkward(episode) if i == 1 else episode)
    return store


@pytest.mark.parametrize("storage", ["video", "image"])
def test_our_store_to_lerobot_and_back_keeps_every_number_bit_for_bit(
    demos: EpisodeStore, storage: str, tmp_path: Path
):
    export_lerobot(demos, tmp_path / "out", image_storage=storage)  # pyright: ignore[reportArgumentType]
    foreign = open_source(tmp_path / "out")
    assert dict(foreign.embodiments) == dict(demos.embodiments)
    with EpisodeStore.create(tmp_path / "back.zarr", embodiments=foreign.embodiments.values()) as back:
        for index in range(len(foreign)):
            back.append(read_episode(foreign, index))
        for before, after in zip(demos.episodes, back.episodes, strict=True):
            assert (before.length, before.instruction) == (after.length, after.instruction)
            assert (before.success, before.embodiment) == (after.success, after.embodiment)
            assert before.provenance.items() <= after.provenance.items()
            assert set(demos.columns(before.index)) == set(back.columns(after.index))
            for name in demos.columns(before.index):
                left, right = demos.column(before.index, name), back.column(after.index, name)
                assert (left.dtype, left.tobytes()) == (right.dtype, right.tobytes()), name


def test_images_are_exact_and_video_is_close(demos: EpisodeStore, tmp_path: Path):
    for storage, most in (("image", 0.0), ("video", 8.0)):
        out = export_lerobot(demos, tmp_path / storage, image_storage=storage)  # pyright: ignore[reportArgumentType]
        assert out.pictures == {"image": "png", "video": "av1"}[storage]
        back = open_source(tmp_path / storage)
        for info in demos.episodes:
            for camera in demos.cameras(info.index):
                ours = read_frames(demos.frame_reader(info.index, camera), range(info.length)).astype(int)
                theirs = read_frames(back.frame_reader(info.index, camera), range(info.length))
                assert np.abs(ours - theirs).mean() <= most


def test_the_files_are_those_of_a_lerobot_data_set(demos: EpisodeStore, tmp_path: Path):
    root = export_lerobot(demos, tmp_path / "out").path
    info = json.loads((root / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["robot_type"]) == ("v3.0", 10, "alpha")
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 18, 2)
    assert info["features"]["action"]["names"][:4] == [
        *(f"tcp_position_delta.{i}" for i in range(3)),
        "tcp_yaw_delta",
    ]
    assert info["features"]["observation.images.front"]["info"]["video.codec"] == "av1"
    data = pq.ParquetFile(root / "data/chunk-000/file-000.parquet")
    assert set(data.schema_arrow.names) == {k for k, f in info["features"].items() if f["dtype"] != "video"}
    assert data.num_row_groups == 3
    assert data.read(["index"])["index"].to_pylist() == list(range(18))
    assert data.read(["timestamp"])["timestamp"].to_pylist()[5:7] == [0.0, np.float32(0.1)]
    tasks = pq.read_table(root / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert tasks.to_pydict() == {"task_index": [0, 1], "task": ["fetch the «cube» 0", "fetch the «cube» 1"]}
    episodes = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pydict()
    assert episodes["tasks"] == [["fetch the «cube» 0"], ["fetch the «cube» 1"], ["fetch the «cube» 0"]]
    assert (episodes["dataset_from_index"], episodes["dataset_to_index"]) == ([0, 5, 11], [5, 11, 18])
    key = "videos/observation.images.hand"
    np.testing.assert_allclose(episodes[f"{key}/from_timestamp"], [0.0, 0.5, 1.1])
    np.testing.assert_allclose(episodes[f"{key}/to_timestamp"], [0.5, 1.1, 1.8])


def test_full_files_are_begun_anew_and_read_back_in_order(
    demos: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for limit, value in (("DATA_MB", 0), ("VIDEO_S", 1.0), ("EPISODES_PER_FILE", 2), ("FILES_PER_CHUNK", 2)):
        monkeypatch.setattr(lerobot_files, limit, value)
    root = export_lerobot(demos, tmp_path / "out").path
    tables = sorted(str(p.relative_to(root)) for p in root.rglob("*.parquet") if "tasks" not in p.name)
    assert tables == [
        "data/chunk-000/file-000.parquet",
        "data/chunk-000/file-001.parquet",
        "data/chunk-001/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-001.parquet",
    ]
    assert len(list((root / "videos/observation.images.hand").rglob("*.mp4"))) == 2
    back = open_source(root)
    for info in demos.episodes:
        np.testing.assert_array_equal(back.column(info.index, "state"), demos.column(info.index, "state"))
        last = read_frames(back.frame_reader(info.index, "hand"), [info.length - 1])
        ours = demos.frames(info.index, "hand", [info.length - 1])
        assert np.abs(ours.astype(int) - last).mean() < 8


def test_statistics_are_those_of_the_numbers_and_pictures(demos: EpisodeStore, tmp_path: Path):
    root = export_lerobot(demos, tmp_path / "out", image_storage="image").path
    stats = json.loads((root / "meta/stats.json").read_text())
    actions = np.concatenate([demos.column(i, "action") for i in range(3)]).astype(np.float64)
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(axis=0))
    np.testing.assert_allclose(stats["action"]["q99"], np.quantile(actions, 0.99, axis=0))
    pixels = np.concatenate([demos.frames(i, "front", range(5 + i)) for i in range(3)]) / 255
    front = stats["observation.images.front"]
    assert (np.shape(front["mean"]), front["count"]) == ((3, 1, 1), [18])
    for name, expected in (("mean", pixels.mean(axis=(0, 1, 2))), ("std", pixels.std(axis=(0, 1, 2)))):
        np.testing.assert_allclose(np.ravel(front[name]), expected)
    np.testing.assert_allclose(np.ravel(front["max"]), pixels.max(axis=(0, 1, 2)))
    episodes = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pydict()
    assert episodes["stats/action/min"][1] == demos.column(1, "action").min(axis=0).tolist()
    assert not [key for key in episodes if key.startswith("stats/aux.")]


def test_quantiles_of_pictures_are_those_of_their_pixels(rng: np.random.Generator):
    pictures, counts = rng.integers(0, 256, (4, 10, 12, 3), np.uint8), PixelCounts()
    for picture in pictures:
        counts.add(picture)
    expected = vector_stats(pictures.reshape(-1, 3) / 255)
    for name in ("q01", "q50", "q99", "mean", "std", "min", "max"):
        np.testing.assert_allclose(np.ravel(counts.stats()[name]), expected[name], atol=1 / 255)


def test_one_embodiment_is_exported_and_several_must_be_named(filled: Path, tmp_path: Path):
    with EpisodeStore.open(filled) as store:
        with pytest.raises(DatasetError, match=r"2 embodiments \(alpha, beta\).*--embodiment"):
            export_lerobot(store, tmp_path / "out")
        with pytest.raises(UnknownNameError, match="Did you mean 'beta'"):
            export_lerobot(store, tmp_path / "out", embodiment="betta")
        done = export_lerobot(store, tmp_path / "out", embodiment="beta")
    assert (done.num_episodes, list(open_source(done.path).embodiments)) == (4, ["beta"])


def test_what_is_there_is_never_replaced_and_what_fails_leaves_nothing(
    demos: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "mine").mkdir()
    with pytest.raises(DatasetError, match="mine exists and is not replaced"):
        export_lerobot(demos, tmp_path / "mine")
    monkeypatch.setattr("vla.data.exporting.cv2.imencode", lambda *_: 1 / 0)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError):
        export_lerobot(demos, tmp_path / "out", image_storage="image")
    assert sorted(tmp_path.iterdir()) == before


def test_an_export_without_perturbed_actions_has_no_column_for_them(tmp_path: Path, rng: np.random.Generator):
    arm = make_arm(wrist=False)
    with EpisodeStore.create(tmp_path / "demos.zarr", embodiments=[arm]) as store:
        store.append(make_episode(rng, arm, length=4))
        root = export_lerobot(store, tmp_path / "out", image_storage="image").path
        assert "executed" not in json.loads((root / "meta/info.json").read_text())["features"]
        np.testing.assert_array_equal(open_source(root).column(0, "executed"), store.column(0, "executed"))


def test_the_command_exports_and_says_what(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    argv = [str(filled), "--out", str(tmp_path / "out"), "--embodiment", "alpha", "--images", "image"]
    assert run_export(argv) == 0
    assert "LeRobotDataset v3.0 of alpha, 4 episodes, 36 steps, pictures as png" in capsys.readouterr().out
    assert len(open_source(tmp_path / "out")) == 4


def test_unknown_success_stays_unknown(tmp_path: Path, rng: np.random.Generator):
    arm = make_arm()
    with EpisodeStore.create(tmp_path / "r.zarr", embodiments=[arm]) as store:
        for _ in range(2):
            store.append(replace(make_episode(rng, arm, length=3), success=None))
        export_lerobot(store, tmp_path / "out", image_storage="image")
    table = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet")
    assert str(table.schema.field("success").type) == "bool"
    assert [info.success for info in open_source(tmp_path / "out").episodes] == [None, None]
