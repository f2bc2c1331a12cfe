"""RLDS in TFRecord files: framing, checksums, protobuf, features."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vla.data.readers import open_raw, open_source
from vla.data.readers.tfrecord import masked_crc32c, parse_example
from vla.data.source import read_frames
from vla.errors import DatasetError

NAME = "arm-train.tfrecord-{:05d}-of-{:05d}"


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def message(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def example(features: dict[str, Any]) -> bytes:
    entries = b""
    for name, values in features.items():
        if isinstance(values, list):
            kind, body = 1, b"".join(message(1, v) for v in values)
        elif values.dtype.kind == "f":
            kind, body = 2, message(1, values.astype("<f4").tobytes())
        else:
            kind, body = 3, message(1, b"".join(varint(int(v)) for v in values))
        entries += message(1, message(1, name.encode()) + message(2, message(kind, body)))
    return message(1, entries)


def record(data: bytes) -> bytes:
    size = struct.pack("<Q", len(data))
    return size + struct.pack("<I", masked_crc32c(size)) + data + struct.pack("<I", masked_crc32c(data))


def tensor(shape: list[int], dtype: str = "float32") -> dict[str, Any]:
    return {"tensor": {"shape": {"dimensions": [str(n) for n in shape]}, "dtype": dtype, "encoding": "none"}}


def episode(number: int, length: int = 4) -> dict[str, Any]:
    picture = np.full((16, 16, 3), 10 * number + 50, np.uint8)
    code = cv2.imencode(".png", picture)[1].tobytes()
    return {
        "steps/action": np.arange(length * 7, dtype=np.float32) + number,
        "steps/observation/state": np.full(length * 7, number / 10, np.float32),
        "steps/is_first": np.eye(1, length, dtype=np.int64)[0],
        "steps/language_instruction": [b"lift it"] * length,
        **{f"steps/observation/image_{i}": [code] * length for i in range(4)},
        "episode_metadata/has_language": np.array([-1]),
        **{f"episode_metadata/has_image_{i}": np.array([1]) for i in range(4)},
    }


def write(folder: Path, episodes: list[dict[str, Any]], *, total: int = 1) -> Path:
    image = {"image": {"shape": {"dimensions": ["16", "16", "3"]}, "dtype": "uint8", "encodingFormat": "png"}}
    observation = {"state": tensor([7]), **{f"image_{i}": image for i in range(4)}}
    steps = {
        "action": tensor([7]),
        "is_first": tensor([], "bool"),
        "language_instruction": {"text": {}},
        "observation": {"featuresDict": {"features": observation}},
    }
    tree = {"steps": {"sequence": {"feature": {"featuresDict": {"features": steps}}}}}
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": tree}}))
    path = folder / NAME.format(0, total)
    path.write_bytes(b"".join(record(example(e)) for e in episodes))
    return path


def test_episodes_are_read_as_written(tmp_path: Path) -> None:
    write(tmp_path, [episode(0), episode(1, 6)])
    raw = open_raw(tmp_path)
    assert [(e.length, e.instruction) for e in raw.episodes] == [(4, "lift it"), (6, "lift it")]
    np.testing.assert_array_equal(raw.column(1, "action").ravel(), np.arange(42) + 1)
    assert (read_frames(raw.frame_reader(1, "observation/image_0"), [5]) == 60).all()
    assert raw.episodes[0].provenance["episode_metadata/has_language"] == -1


def test_bridge_is_known_by_its_layout(tmp_path: Path) -> None:
    write(tmp_path, [episode(0)])
    source = open_source(tmp_path)
    assert source.embodiments["widowx"].control_hz == 5.0
    assert source.column(0, "action")[0, 6] == -2 * 13 + 1  # of the second row


def test_the_placeholder_before_the_first_action_of_bridge_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, [episode(0, 6)])
    source, raw = open_source(tmp_path), open_raw(tmp_path)
    assert source.episodes[0].length == len(source.column(0, "state")) == 5
    np.testing.assert_allclose(source.column(0, "action")[:, :3], raw.column(0, "action")[1:, :3])


def test_crc_is_the_one_tensorflow_writes() -> None:
    rotated = (masked_crc32c(b"123456789") - 0xA282EAD8) % 2**32
    assert (rotated << 15 | rotated >> 17) % 2**32 == 0xE3069283  # check value of CRC-32C, RFC 3720


@pytest.mark.parametrize("place", ["data", "length"])
def test_damage_is_named_and_skipped_on_request(tmp_path: Path, place: str) -> None:
    path = write(tmp_path, [episode(0), episode(1), episode(2)])
    content, first = bytearray(path.read_bytes()), len(record(example(episode(0))))
    content[first + (200 if place == "data" else 3)] ^= 255
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=rf"{path.name}, record 1 \(byte {first}\)"):
        open_raw(tmp_path)
    raw = open_raw(tmp_path, skip_damaged=True)
    assert len(raw.episodes) == (2 if place == "data" else 1)


def test_truncated_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [episode(0)])
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DatasetError, match="truncated"):
        open_raw(tmp_path)
    path.rename(tmp_path / NAME.format(0, 2))
    with pytest.raises(DatasetError, match="lacks 1 of the 2 shards"):
        open_raw(tmp_path)
    (tmp_path / "features.json").unlink()
    with pytest.raises(DatasetError):
        open_raw(tmp_path / NAME.format(0, 2))


def test_ragged_record_is_refused(tmp_path: Path) -> None:
    broken = episode(0)
    broken["steps/action"] = broken["steps/action"][:-7]
    write(tmp_path, [broken])
    with pytest.raises(DatasetError, match="ragged"):
        open_raw(tmp_path)


def test_what_is_no_column_and_no_colour_picture_is_said(tmp_path: Path) -> None:
    extra = {
        "steps/label": np.arange(4),
        "steps/observation/depth": [b"png"] * 4,
        "steps/observation/audio": np.zeros(12),
        "steps/secret": np.zeros(4),
    }
    write(tmp_path, [{**episode(0), **extra}])
    tree = json.loads((tmp_path / "features.json").read_text())
    steps = tree["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    depth = {"shape": {"dimensions": ["16", "16", "1"]}, "dtype": "uint16", "encodingFormat": "png"}
    steps["label"] = {"pythonClassName": "ClassLabel", "classLabel": {"numClasses": "4"}}
    steps["observation"]["featuresDict"]["features"]["depth"] = {"image": depth}
    steps["observation"]["featuresDict"]["features"]["audio"] = {"pythonClassName": "Audio", "audio": {}}
    (tmp_path / "features.json").write_text(json.dumps(tree))
    raw = open_raw(tmp_path)
    assert raw.unread == {
        "observation/depth": "a picture of 1 x uint16, not of colours",
        "observation/audio": "a Audio",
        "secret": "not listed in features.json",
    }
    assert set(raw.cameras) == {f"observation/image_{i}" for i in range(4)}
    assert raw.column(0, "label").ravel().tolist() == [0, 1, 2, 3]


def test_no_example_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="past its message"):
        parse_example(b"\x0a\x7f\x01")
