"""HDF5 of robomimic, LIBERO and ALOHA: what is read, how layouts are known, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from vla.data.check import CheckConfig, check
from vla.data.exporting import export_lerobot
from vla.data.fix import FixConfig, fix
from vla.data.importing import import_dataset
from vla.data.mixture import SourceConfig, held_fields
from vla.data.mixture_notes import mixture_notes
from vla.data.readers import hdf5_files, open_raw, open_source, open_to_look
from vla.data.readers.hdf5 import Hdf5Dataset
from vla.data.readers.hdf5_layouts import flat_state_names
from vla.data.source import read_frames
from vla.data.store import EpisodeStore
from vla.data.summary import describe, left_out
from vla.errors import DatasetError

CONTROLLER = {
    "type": "OSC_POSE", "control_delta": True, "input_max": 1, "input_min": -1,
    "output_max": [0.05] * 3 + [0.5] * 3, "output_min": [-0.05] * 3 + [-0.5] * 3,
}  # fmt: skip
KWARGS = {"robots": ["Panda"], "control_freq": 20, "controller_configs": CONTROLLER}


def write_robomimic(path: Path, lengths: tuple[int, ...] = (5, 4), *, libero: bool = False) -> Path:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": KWARGS})
        if libero:
            data.attrs["problem_info"] = json.dumps({"language_instruction": "put the bowl away"})
        for number, length in zip((2, 10), lengths, strict=False):
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = rng.uniform(-1, 1, (length, 7))
            demo["obs/agentview_rgb"] = rng.integers(0, 255, (length, 8, 8, 3), np.uint8)
            demo["obs/ee_pos" if libero else "obs/robot0_eef_pos"] = rng.normal(size=(length, 3))
            demo["rewards"] = np.zeros(length)
    return path


def write_aloha(folder: Path, *, compress: bool = False) -> np.ndarray:
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:, :, 0] = 200
    folder.mkdir()
    for number in (1, 0, 10):
        with h5py.File(folder / f"episode_{number}.hdf5", "w") as file:
            file.attrs["sim"], file.attrs["compress"] = False, compress
            file["action"], file["observations/qpos"] = np.full((3, 14), number / 10), np.ones((3, 14))
            pictures = np.stack([picture] * 3)
            if compress:
                code = cv2.imencode(".jpg", picture[:, :, ::-1])[1].ravel()
                pictures = np.stack([np.pad(code, (0, 50))] * 3)
            file["observations/images/cam_high"] = pictures
    return picture


def test_robomimic_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    raw = open_raw(write_robomimic(tmp_path / "low.hdf5"))
    assert (raw.format, raw.control_hz, raw.robot) == ("robomimic", 20.0, "Panda")
    assert [e.length for e in raw.episodes] == [5, 4]
    assert raw.columns["rewards"].size == 1
    assert raw.column(0, "actions").shape == (5, 7)
    assert read_frames(raw.frame_reader(1, "obs/agentview_rgb"), [3]).any()


def test_controller_range_scales_known_actions(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "low.hdf5")
    source, raw = open_source(path, instruction="lift the cube"), open_raw(path)
    expected = raw.column(0, "actions") * ([0.05] * 3 + [0.5] * 3 + [1.0])
    np.testing.assert_allclose(source.column(0, "action"), expected, rtol=1e-6)
    assert source.episodes[0].instruction == "lift the cube"


def test_actions_beyond_the_controllers_range_are_executed_at_its_end(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "low.hdf5")
    with h5py.File(path, "a") as file:
        file["data/demo_2/actions"][1, 2] = 3.75
    source = open_source(path, instruction="lift the cube")
    assert source.column(0, "action")[1, 2] == np.float32(3.75 * 0.05)
    assert source.column(0, "executed")[1, 2] == np.float32(0.05)
    assert source.clipped()["executed/tcp_position_delta"] == (1, 27)
    import_dataset(source, tmp_path / "imported.zarr")
    fix(source, tmp_path / "fixed.zarr", FixConfig(instruction="lift it", check=CheckConfig(frames="none")))
    assert held_fields(source) == {"tcp_position_delta", "tcp_rotation_delta", "gripper"}
    for store in ("imported.zarr", "fixed.zarr"):  # what the layout said goes with the numbers
        with EpisodeStore.open(tmp_path / store) as made:
            assert held_fields(made) == held_fields(source)
            assert "action_out_of_range" not in check(made, CheckConfig(frames="none")).kinds
            export_lerobot(made, tmp_path / f"{store}.lerobot", image_storage="image")
            again = open_source(tmp_path / f"{store}.lerobot")
            assert held_fields(again) == held_fields(source)
            np.testing.assert_array_equal(again.column(0, "executed"), made.column(0, "executed"))


def test_libero_takes_instruction_from_the_file_and_turns_pictures(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "other_name_demo.hdf5", libero=True)
    source, raw = open_source(path), open_raw(path)
    assert raw.format == "libero"
    assert source.episodes[0].instruction == "put the bowl away"
    stored = read_frames(raw.frame_reader(0, "obs/agentview_rgb"), [2])
    upright = read_frames(source.frame_reader(0, "agentview_rgb"), [2])
    np.testing.assert_array_equal(upright, stored[:, ::-1])


def test_libero_pictures_that_say_they_are_upright_stay(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "other_demo.hdf5", libero=True)
    with h5py.File(path, "a") as file:
        file["data"].attrs["macros_image_convention"] = "opencv"
    stored = read_frames(open_raw(path).frame_reader(0, "obs/agentview_rgb"), [2])
    np.testing.assert_array_equal(
        read_frames(open_source(path).frame_reader(0, "agentview_rgb"), [2]), stored
    )


@pytest.mark.parametrize("compress", [False, True])
def test_aloha_pictures_and_order(tmp_path: Path, compress: bool) -> None:
    picture = write_aloha(tmp_path / "aloha", compress=compress)
    raw = open_raw(tmp_path / "aloha")
    assert [float(raw.column(i, "action")[0, 0]) for i in range(3)] == [0.0, 0.1, 1.0]
    seen = read_frames(raw.frame_reader(0, "observations/images/cam_high"), [1])[0]
    assert np.abs(seen.astype(int) - picture).max() < 8


def test_aloha_arms_are_known_and_grippers_close_upwards(tmp_path: Path) -> None:
    write_aloha(tmp_path / "aloha")
    source = open_source(tmp_path / "aloha", instruction="fold it")
    action = source.column(2, "action")
    assert source.embodiments["aloha"].control_hz == 50.0
    np.testing.assert_allclose(action[0, [0, 6, 13]], [1.0, -1.0, -1.0])


def test_few_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_files, "MAX_OPEN_FILES", 1)
    write_aloha(tmp_path / "aloha")
    raw = Hdf5Dataset(tmp_path / "aloha")
    for i in (0, 2, 1, 0):
        assert float(raw.column(i, "action")[0, 0]) == [0.0, 0.1, 1.0][i]
        assert len(raw._files._files) == 1
    raw.close()


def test_missing_instruction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no instruction"):
        open_source(write_robomimic(tmp_path / "low.hdf5"))


def test_truncated_file_is_named_or_skipped(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "a.hdf5")
    whole = write_robomimic(tmp_path / "b.hdf5").read_bytes()
    (tmp_path / "b.hdf5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"b\.hdf5 is no whole HDF5 file"):
        open_raw(tmp_path)
    raw = open_raw(tmp_path, skip_damaged=True)
    assert len(raw.episodes) == 2


def test_ragged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        file["data/demo_2/dones"] = np.zeros(3)
    with pytest.raises(DatasetError, match="ragged"):
        open_raw(path)
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(DatasetError, match="weights"):
        open_raw(tmp_path / "b.hdf5")


def test_flat_state_is_named_by_the_model() -> None:
    bodies = '<body><joint name="a"/><body><freejoint name="f"/></body></body>'
    model = f"<mujoco><worldbody>{bodies}</worldbody></mujoco>"
    names = flat_state_names(model)
    assert names[:3] == ("time", "a", "f[0]")
    assert len(names) == 1 + 8 + 7
    assert flat_state_names("model_1.xml") == ()


def test_a_set_without_an_instruction_is_shown_and_the_error_says_how_to_give_one(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "low.hdf5")
    source = open_to_look(path)
    assert (source.episodes[0].instruction, source.embodiments.keys()) == ("", {"robosuite_panda"})
    assert dict(describe(source))["instructions"] == "2 episodes without one"
    with pytest.raises(DatasetError, match=r"no instruction.*'instruction' in the.*--instruction TEXT"):
        open_source(path)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((8, 8, 3), np.float32), ((3, 8, 8), np.uint8), ((8, 8, 4), np.uint8)]
)
def test_pictures_that_cannot_be_read_are_said(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    path = write_robomimic(tmp_path / "a.hdf5", libero=True)
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            del demo["obs/agentview_rgb"]
            demo["obs/agentview_rgb"] = np.zeros((len(demo["actions"]), *shape), dtype)
    source = open_source(path)
    [(what, said)] = [row for row in left_out(source).items() if row[0] == "not readable"]
    assert f"obs/agentview_rgb ({np.dtype(dtype)} [{' '.join(map(str, shape))}]" in said
    assert dict(describe(source))[what] == said
    notes = mixture_notes(
        [SourceConfig(path=str(path))], [source], roles=["front"], image_size=8, state_slots=[]
    )
    assert any("cannot be read" in note and "obs/agentview_rgb" in note for note in notes)


def test_unlike_episodes_of_one_file_are_told_in_words(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_10/obs/agentview_rgb"]
        file["data/demo_10/obs/agentview_rgb"] = np.zeros((4, 4, 8, 3), np.uint8)
    message = "has pictures of 4x8, in the first episode pictures of 8x8.*--skip-damaged"
    with pytest.raises(DatasetError, match=message):
        open_raw(path)
    assert len(open_raw(path, skip_damaged=True).episodes) == 1
