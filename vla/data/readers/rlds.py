"""RLDS episodes in TFRecord files (as tensorflow-datasets writes them), read without TensorFlow.

``features.json`` says what is in a record. A record is an episode; a feature of its steps is stored for all
steps together under ``steps/<name>``. Numeric features become columns (``observation/state``), image features
cameras. Opening reads every record once (checksums, length, instruction); afterwards an episode is one read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.damage import lengths_text, no_whole_episode
from vla.data.guard import reading
from vla.data.readers.stills import StillFrames, decode_still
from vla.data.readers.tfrecord import Record, Values, parse_example, read_record, scan_records
from vla.data.shards import crc32c
from vla.data.source import Frames, RawCamera, RawColumn, RawEpisode, check_episode, chosen
from vla.errors import DatasetError, UnknownNameError
from vla.files import read_json
from vla.text import quoted

_SHARD = re.compile(r"(?P<stem>.+)-(?P<split>[^-]+)\.tfrecord-(?P<number>\d+)-of-(?P<total>\d+)")
_INSTRUCTIONS = (
    "language_instruction",
    "observation/natural_language_instruction",
    "natural_language_instruction",
)
_FLAGS = ("is_first", "is_last", "is_terminal")
_KEPT = 4  # parsed records


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A leaf of ``features.json``; ``name`` begins with ``steps/`` where there is one value a step."""

    name: str
    kind: str  # image, text, number, or none of these: what it is
    dtype: str
    shape: tuple[int, ...]


def recognise(path: Path) -> bool:
    """Whether ``path`` is a TFRecord file or a folder with some."""
    return ".tfrecord" in path.name if path.is_file() else any(path.glob("*.tfrecord*"))


def open_raw(
    path: Path,
    *,
    skip_damaged: bool = False,
    cameras: Collection[str] | None = None,
    to_look: bool = False,  # what is damaged is left out all the same
) -> RldsDataset:
    return RldsDataset(path, skip_damaged=skip_damaged, cameras=cameras)


class RldsDataset:
    """A :class:`~vla.data.source.RawDataset`.

    Args:
        path: the folder with ``features.json`` and all shards, or one of its shards.
        skip_damaged: leave damaged records out and list them in ``damaged``.
        cameras: that are read; None: all.

    Raises:
        DatasetError: missing files, damaged records, records that lack what ``features.json`` names.
    """

    format = "rlds"
    control_hz = None

    def __init__(
        self, path: Path, *, skip_damaged: bool = False, cameras: Collection[str] | None = None
    ) -> None:
        self.path = path
        damaged: list[str] | None = [] if skip_damaged else None
        self._files = _shards(path, damaged)
        self._description = (path.parent if path.is_file() else path) / "features.json"
        self._features = read_features(self._description)
        self._steps = {
            f.name.removeprefix("steps/"): f for f in self._features.values() if f.name.startswith("steps/")
        }
        self.robot = None
        self.columns: Mapping[str, RawColumn] = {
            name: RawColumn(name=name, size=int(np.prod(f.shape)), dtype=f.dtype)
            for name, f in self._steps.items()
            if f.kind == "number" and name not in _FLAGS
        }
        self._instruction = next((n for n in _INSTRUCTIONS if n in self._steps), "")
        self.unread: dict[str, str] = {
            name: f.kind for name, f in self._steps.items() if f.kind not in ("image", "text", "number")
        }
        self._kept: dict[int, dict[str, Values]] = {}
        self._records: list[Record] = []
        self.episodes: list[RawEpisode] = []
        for file in self._files:
            self._index(file, damaged)
        self.damaged: tuple[str, ...] = tuple(damaged or ())
        if not self.episodes:
            raise DatasetError(no_whole_episode(path, damaged or ()))
        images = {name: f for name, f in self._steps.items() if f.kind == "image"}
        self.cameras: Mapping[str, RawCamera] = {
            name: self._camera(name, f) for name, f in chosen(images, cameras, path).items()
        }

    def __getstate__(self) -> dict[str, Any]:
        """For another process, without the records kept here."""
        return {**self.__dict__, "_kept": {}}

    def column(self, index: int, name: str) -> np.ndarray:
        if name not in self.columns:
            raise UnknownNameError(f"column of {self.path}", name, self.columns)
        values = self._example(index)[f"steps/{name}"]
        column, length = self.columns[name], self.episodes[index].length
        dtype = np.float32 if column.dtype.startswith(("float", "bfloat")) else np.dtype(column.dtype)
        return np.asarray(values).reshape(length, column.size).astype(dtype)

    def time_s(self, index: int) -> None:
        """RLDS has no time stamps."""
        return

    def frame_reader(self, index: int, camera: str) -> Frames:
        if camera not in self.cameras:
            raise UnknownNameError(f"camera of {self.path}", camera, self.cameras)
        stills, stored = self._example(index)[f"steps/{camera}"], self.cameras[camera]
        return StillFrames(
            origin=f"{self._records[index]}, camera {camera!r}",
            shape=(stored.height, stored.width),
            length=self.episodes[index].length,
            read_still=lambda step: stills[step],
        )

    def checksum(self) -> int:
        """Of ``features.json`` and of where the records lie and what they sum to."""
        facts: list[Any] = [crc32c(self._description.read_bytes())]
        for record in self._records:
            with record.path.open("rb") as file:
                file.seek(record.offset + record.size + 12)
                facts.append([record.path.name, record.offset, record.size, file.read(4).hex()])
        return crc32c(json.dumps(facts).encode())

    def close(self) -> None:
        self._kept.clear()

    def _index(self, path: Path, damaged: list[str] | None) -> None:
        """Note every episode of a file; errors go to ``damaged`` where that is given."""
        records = scan_records(path)
        with path.open("rb") as file:
            while True:
                try:
                    record = next(records, None)
                    if record is None:
                        return
                    with reading(record):
                        episode = self._episode(record, self._parse(read_record(file, record), record))
                except DatasetError as error:
                    if damaged is None:
                        raise
                    damaged.append(str(error))
                    continue  # after a damaged header the scan has ended
                self._records.append(record)
                self.episodes.append(episode)

    def _episode(self, record: Record, example: dict[str, Values]) -> RawEpisode:
        counts, known = {}, {feature.name for feature in self._steps.values()}
        for name in sorted(example):
            if name.startswith("steps/") and name not in known:
                self.unread[name.removeprefix("steps/")] = "not listed in features.json"
        for name, feature in self._steps.items():
            if name in self.unread:
                continue
            if feature.name not in example:
                raise DatasetError(
                    f"{record} has no {feature.name!r}, listed in features.json; it has "
                    f"{quoted(sorted(example))}."
                )
            size = int(np.prod(feature.shape)) if feature.kind == "number" else 1
            counts[name] = len(example[feature.name]) / max(size, 1)
        if len(set(counts.values())) != 1 or not next(iter(counts.values())).is_integer():
            raise DatasetError(
                f"{record} is ragged: steps by feature: {lengths_text(counts)}; expected the same for all."
            )
        if not next(iter(counts.values())):
            raise DatasetError(f"{record} has no steps.")
        provenance: dict[str, Any] = {"file": record.path.name, "record": record.number}
        if match := _SHARD.fullmatch(record.path.name):
            provenance["split"] = match["split"]
        for name in sorted(set(example) - known):
            if len(example[name]) == 1:
                provenance[name] = _plain(example[name][0])
        return RawEpisode(
            index=len(self.episodes),
            length=int(next(iter(counts.values()))),
            instruction=self._said(example, provenance),
            provenance=provenance,
        )

    def _said(self, example: dict[str, Values], provenance: dict[str, Any]) -> str:
        """The instruction of the first step; all of them go to the provenance where they change."""
        texts = (
            [_plain(v) for v in example.get(f"steps/{self._instruction}", ())] if self._instruction else []
        )
        if len(set(texts)) > 1:
            provenance["instructions"] = list(dict.fromkeys(texts))
        return texts[0] if texts else ""

    def _example(self, index: int) -> dict[str, Values]:
        check_episode(index, len(self._records), self.path)
        if index not in self._kept:
            record = self._records[index]
            with record.path.open("rb") as file:
                example = self._parse(read_record(file, record), record)
            while len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[index] = example
        return self._kept[index]

    def _parse(self, data: bytes, record: Record) -> dict[str, Values]:
        with reading(record, "tf.train.Example"):
            return parse_example(data)

    def _camera(self, name: str, feature: Feature) -> RawCamera:
        height, width = feature.shape[:2] if len(feature.shape) == 3 else (0, 0)
        if not (height and width):  # stated as unknown
            first = self._example(0)[feature.name][0]
            height, width = decode_still(first, f"{self._records[0]}, {name!r}").shape[:2]
        return RawCamera(name=name, height=height, width=width)


def read_features(path: Path) -> dict[str, Feature]:
    """The leaves of a ``features.json`` by name."""
    tree = read_json(path, DatasetError, "It lies beside the shards: fetch it with them.")
    with reading(path, "list of features as tensorflow-datasets writes it"):
        features = {f.name: f for f in _leaves(tree, "")}
    if not any(name.startswith("steps/") for name in features):
        raise DatasetError(
            f"{path} has no 'steps': expected RLDS episodes, found {quoted(sorted(features))}."
        )
    return features


def _leaves(node: Mapping[str, Any], name: str) -> Iterator[Feature]:
    if "featuresDict" in node:
        for key, child in node["featuresDict"]["features"].items():
            yield from _leaves(child, f"{name}/{key}" if name else key)
    elif "sequence" in node:
        yield from _leaves(node["sequence"]["feature"], name)
    elif "image" in node:
        image, shape = node["image"], _shape(node["image"])
        dtype, channels = image.get("dtype") or "uint8", shape[-1] if len(shape) == 3 else 3
        colour = dtype == "uint8" and channels in (0, 3)
        kind = "image" if colour else f"a picture of {channels} x {dtype}, not of colours"
        yield Feature(name=name, kind=kind, dtype=dtype, shape=shape)
    elif "text" in node:
        yield Feature(name=name, kind="text", dtype="string", shape=())
    elif "tensor" in node:
        tensor = node["tensor"]
        kind = "text" if tensor["dtype"] in ("string", "object") else "number"
        if tensor.get("encoding", "none") not in ("none", ""):
            kind = f"a tensor encoded as {tensor['encoding']!r}"
        yield Feature(name=name, kind=kind, dtype=tensor["dtype"], shape=_shape(tensor))
    elif "classLabel" in node:
        yield Feature(name=name, kind="number", dtype="int64", shape=())
    else:
        kind = f"a {node.get('pythonClassName', 'feature of no known kind')}"
        yield Feature(name=name, kind=kind, dtype="", shape=())


def _shape(node: Mapping[str, Any]) -> tuple[int, ...]:
    sizes = [int(size) for size in node.get("shape", {}).get("dimensions", ())]
    return tuple(max(size, 0) for size in sizes)  # -1: unknown


def _shards(path: Path, damaged: list[str] | None) -> list[Path]:
    """Shards in order; raises where one of a set is missing, or notes it in ``damaged``."""
    files = [path] if path.is_file() else sorted(p for p in path.glob("*.tfrecord*") if p.is_file())
    sets: dict[tuple[str, str, int], set[int]] = {}
    for file in files:
        if match := _SHARD.fullmatch(file.name):
            key = (match["stem"], match["split"], int(match["total"]))
            sets.setdefault(key, set()).add(int(match["number"]))
    for (stem, split, total), numbers in sets.items():
        missing = sorted(set(range(total)) - numbers)
        if missing and path.is_dir():
            what = (
                f"{path} lacks {len(missing)} of the {total} shards of {stem}-{split}, the first is number "
                f"{missing[0]:05d}. Fetch them, or give one shard in place of the folder."
            )
            if damaged is None:
                raise DatasetError(what)
            damaged.append(what)
    return files


def _plain(value: Any) -> Any:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, memoryview) else value.item()
