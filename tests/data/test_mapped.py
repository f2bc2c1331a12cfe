"""Descriptions and what they do to columns: rotations, units, frames, lag, flips; every bad rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vla.data.conversion import flip_image, read_rotation, unit_factor, write_rotation
from vla.data.description import CameraRule, ColumnRule, DatasetDescription, Flip
from vla.data.mapped import MappedSource
from vla.data.readers.memory import MemoryDataset, MemoryEpisode
from vla.data.source import read_frames
from vla.embodiment import Camera, Embodiment, Field
from vla.errors import DatasetError, EmbodimentError, UnknownNameError

RNG = np.random.default_rng(0)
ANGLES = RNG.uniform(-1, 1, (6, 3))
PICTURES = RNG.integers(0, 255, (6, 4, 5, 3), np.uint8)


def make_raw(**columns: np.ndarray) -> MemoryDataset:
    given = {"state": ANGLES * 100, "action": RNG.normal(size=(6, 4)), **columns}
    episode = MemoryEpisode(columns=given, pictures={"top": PICTURES}, instruction="push it")
    return MemoryDataset([episode])


def part(name: str, size: int, unit: str, **more: Any) -> Field:
    common = {"frame": "world", "mode": "absolute", "slot": f"arm0.{name}"}
    return Field(
        name=name, size=size, unit=unit, low=(-1.0,) * size, high=(1.0,) * size, **{**common, **more}
    )


ARM = Embodiment(
    name="arm",
    cameras=(Camera(name="front", role="front", height=4, width=5),),
    state=(part("tcp_rotation", 6, "1", rotation_format="matrix_6d"),),
    action=(part("tcp_position_delta", 3, "m/step", mode="delta"), part("gripper", 1, "1")),
    control_hz=10.0,
)
PLAIN = DatasetDescription(
    embodiment=ARM,
    state=(ColumnRule(field="tcp_rotation", column="state", rotation="euler_xyz", unit="1"),),
    action=(
        ColumnRule(field="tcp_position_delta", column="action"),
        ColumnRule(field="gripper", column="action", start=3, scale=-2.0, offset=1.0),
    ),
    cameras=(CameraRule(camera="front", column="top"),),
)


def changed(**rule: Any) -> DatasetDescription:
    return replace(PLAIN, action=(replace(PLAIN.action[0], **rule), PLAIN.action[1]))


@pytest.mark.parametrize("written", ["rotvec", "matrix_6d", "quat_wxyz", "euler_xyz"])
@settings(max_examples=25, deadline=None)
@given(vector=st.tuples(*[st.floats(-1.4, 1.4)] * 3))
def test_rotation_formats_are_inverse(written: str, vector: tuple[float, ...]) -> None:
    rotation = Rotation.from_rotvec([vector])
    again = read_rotation(write_rotation(rotation, written), written)
    assert (rotation.inv() * again).magnitude()[0] < 1e-6


@pytest.mark.parametrize("order", ["xyz", "zyx", "XYZ", "ZYX"])
def test_euler_orders_are_those_of_scipy(order: str) -> None:
    expected = Rotation.from_euler(order, ANGLES)
    assert (expected.inv() * read_rotation(ANGLES, f"euler_{order}")).magnitude().max() < 1e-9


def test_units_convert_and_speeds_become_steps() -> None:
    shift = ARM.action[0]
    assert unit_factor("mm/step", shift, 10.0) == 1e-3
    assert unit_factor("m/s", shift, 10.0) == pytest.approx(0.1)
    with pytest.raises(EmbodimentError, match="does not convert"):
        unit_factor("rad", shift, 10.0)
    with pytest.raises(EmbodimentError, match="unknown"):
        unit_factor("furlong", shift, 10.0)


def test_lag_pairs_a_state_with_the_action_of_a_later_row() -> None:
    raw = make_raw()
    source = MappedSource(raw, replace(PLAIN, action_lag=2))
    expected = raw.column(0, "action")[2:]
    np.testing.assert_allclose(source.column(0, "action")[:, :3], expected[:, :3], rtol=1e-6)
    np.testing.assert_allclose(source.column(0, "action")[:, 3], 1 - 2 * expected[:, 3], rtol=1e-5)
    assert len(source.column(0, "state")) == len(source.frame_reader(0, "front")) == 4


def test_skipped_rows_are_gone_from_every_column() -> None:
    raw = make_raw(clock=np.arange(6.0)[:, None] / 5)
    known = replace(
        PLAIN, skip_first=1, skip_last=2, action_lag=1, time_column="clock", aux={"depth": "clock"}
    )
    source = MappedSource(raw, known)
    assert source.episodes[0].length == 2
    np.testing.assert_allclose(source.column(0, "action")[:, :3], raw.column(0, "action")[2:4, :3], rtol=1e-6)
    np.testing.assert_allclose(source.column(0, "time_s"), [0.2, 0.4])
    np.testing.assert_allclose(source.column(0, "aux/depth")[:, 0], [0.2, 0.4])
    unskipped = MappedSource(raw, PLAIN).column(0, "state")
    np.testing.assert_array_equal(source.column(0, "state"), unskipped[1:3])
    frames = source.frame_reader(0, "front")
    np.testing.assert_array_equal(read_frames(frames, range(len(frames))), PICTURES[1:3])


def test_nothing_left_after_skipping_is_said() -> None:
    with pytest.raises(DatasetError, match="4 skipped at the start and 2 at the end"):
        MappedSource(make_raw(), replace(PLAIN, skip_first=4, skip_last=2))


def test_clipping_holds_the_range_and_is_counted() -> None:
    action = np.zeros((6, 4))
    action[:3, 1] = 2.0, -3.0, 0.5
    held = replace(PLAIN, executed=changed(clip=True).action)
    source = MappedSource(make_raw(action=action), held)
    np.testing.assert_array_equal(source.column(0, "action")[:3, 1], [2.0, -3.0, 0.5])
    np.testing.assert_array_equal(source.column(0, "executed")[:3, 1], [1.0, -1.0, 0.5])
    assert source.clipped() == {"executed/tcp_position_delta": (2, 18)}


def test_changes_in_the_tool_frame_are_turned_into_the_world() -> None:
    raw = make_raw(state=ANGLES)
    source = MappedSource(raw, changed(frame="tool"))
    expected = Rotation.from_euler("xyz", ANGLES).apply(raw.column(0, "action")[:, :3])
    np.testing.assert_allclose(source.column(0, "action")[:, :3], expected, atol=1e-6)


@pytest.mark.parametrize("flip", get_args(Flip))
@pytest.mark.parametrize("bgr", [False, True])
def test_pictures_are_put_upright(flip: Flip, bgr: bool) -> None:
    rule = replace(PLAIN.cameras[0], flip=flip, bgr=bgr)
    source = MappedSource(make_raw(), replace(PLAIN, cameras=(rule,)))
    seen = read_frames(source.frame_reader(0, "front"), [3])[0]
    turned = flip_image(seen, flip)  # every flip is its own inverse
    np.testing.assert_array_equal(turned[:, :, ::-1] if bgr else turned, PICTURES[3])


def test_description_survives_its_file(tmp_path: Path) -> None:
    given = replace(
        changed(unit="mm/step", clip=True),
        action_lag=1,
        skip_first=1,
        ranges="measured",
        evidence={"rate": 10},
    )
    given.save(tmp_path / "embodiment.json")
    assert DatasetDescription.load(tmp_path / "embodiment.json") == given


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({"column": "actoin"}, "Did you mean 'action'"),
        ({"start": 2}, "reads entries 2..4"),
        ({"start": -1}, "reads entries"),
        ({"rotation": "euler_xyz"}, "field is none"),
        ({"rotation": "euler_yzx"}, "Unknown rotation"),
        ({"frame": "wrist"}, "Unknown frame"),
        ({"field": "tcp_delta"}, "Unknown action field"),
        ({"field": "gripper"}, "exactly one rule"),
    ],
)
def test_bad_rules_are_refused(rule: dict[str, Any], error: str) -> None:
    with pytest.raises((DatasetError, EmbodimentError, UnknownNameError), match=error):
        MappedSource(make_raw(), changed(**rule))


def test_numbers_that_are_not_finite_are_named() -> None:
    action = np.zeros((6, 4))
    action[4, 1] = np.nan
    with pytest.raises(DatasetError, match="'action' is not finite at step 4"):
        MappedSource(make_raw(action=action), PLAIN).column(0, "action")


def test_camera_of_another_size_is_refused() -> None:
    arm = replace(ARM, cameras=(replace(ARM.cameras[0], height=8),))
    with pytest.raises(DatasetError, match="is 8x5 in the description"):
        MappedSource(make_raw(), replace(PLAIN, embodiment=arm))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda said: said.pop("embodiment"), r"lacks 'embodiment'. It is like \{"),
        (lambda said: said["embodiment"].pop("control_hz"), "control_hz"),
        (
            lambda said: said["state"][0].update(start="one"),
            "'start' of a ColumnRule is 'one', expected a int",
        ),
        (lambda said: said["state"][0].pop("column"), "A ColumnRule lacks 'column'"),
        (lambda said: said.update(state={"a": 1}), "Unknown ColumnRule key"),
        (lambda said: said.update(action=3), "wrong kind"),
        (lambda said: [said.clear(), said.update(control_hz=5)], r"format version None.*--answers"),
    ],
)
def test_a_file_that_is_no_description_is_named_with_what_it_lacks(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    said = PLAIN.to_json()
    change(said)
    (tmp_path / "d.json").write_text(json.dumps(said, default=list))
    with pytest.raises(EmbodimentError, match=rf"d\.json: .*{message}"):
        DatasetDescription.load(tmp_path / "d.json")


def test_a_reason_that_came_with_a_full_stop_ends_with_one():
    with pytest.raises(DatasetError, match="are no rotation") as caught:
        read_rotation(np.zeros((1, 9)), "matrix")
    assert str(caught.value).endswith(".")
    assert not str(caught.value).endswith("..")
