"""What a store says of itself: which version, whose episodes, which parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vla.data.codec import Codec, codec_from_json
from vla.data.commits import LOG
from vla.data.episode_columns import check_name
from vla.data.remote import RemoteFiles, RemotePath, is_url
from vla.data.shards import read_document, write_group
from vla.embodiment import Embodiment
from vla.errors import StoreError, VlaError

FORMAT_VERSION = 3
_READABLE = (1, 2, 3)  # 1: JPEG of one stated quality; up to 2: metadata without checksums
_PARTS_AT_ONCE = 32
_PART = re.compile(r"part-\d{5}")


@dataclass(frozen=True, kw_only=True)
class Header:
    """Content of the ``zarr.json`` of a store; ``fault``: what is wrong with its bytes, empty if nothing."""

    format_version: int = FORMAT_VERSION
    embodiments: Mapping[str, Embodiment]
    provenance: Mapping[str, Any]
    codec: Codec
    fault: str = ""

    @property
    def checksummed(self) -> bool:
        """Whether all metadata of the store must have a checksum."""
        return self.format_version >= 3

    def with_embodiment(self, embodiment: Embodiment) -> Header:
        return replace(self, embodiments={**self.embodiments, embodiment.name: storable(embodiment)})

    def write(self, path: Path) -> None:
        """Create or replace it, in the store at ``path``."""
        header = {
            "format_version": self.format_version,
            "embodiments": [embodiment.to_json() for embodiment in self.embodiments.values()],
            "provenance": dict(self.provenance),
            "codec": self.codec.to_json(),
        }
        write_group(path, {"vla": header}, durable=True)


def read_header(path: Path | RemotePath) -> Header:
    """Of the store at ``path``; :class:`StoreError` where there is none that we can read."""
    file = path / "zarr.json"
    if not file.exists():
        raise StoreError(
            f"{path} is not an episode store: {file} is missing."
            + (
                " It has parts of one: put that file back from a copy."
                if _has_part(path)
                else " 'vla data info' and 'vla data check' read other formats."
            )
        )
    document, whole = read_document(file)
    try:
        data = document["attributes"]["vla"]
        version = data["format_version"]
    except (KeyError, TypeError) as error:
        if _PART.fullmatch(path.name):
            raise StoreError(f"{path} is a part of a store: give the folder that it lies in.") from None
        raise StoreError(f"{file} is damaged or not an episode store ({error!r}).") from error
    if version not in _READABLE:
        raise StoreError(
            f"{path} has format version {version}, this package reads {_READABLE[0]}..{_READABLE[-1]}."
        )
    try:
        arms = [Embodiment.from_json(embodiment) for embodiment in data["embodiments"]]
        header = Header(
            format_version=version,
            embodiments={arm.name: arm for arm in arms},
            provenance={**data["provenance"]},
            codec=codec_from_json(data["codec"]),
        )
    except (VlaError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{file} is damaged: {error!r}.") from error
    if whole is False or (whole is None and header.checksummed):
        return replace(header, fault=f"{file} is damaged (checksum)")
    return header


def is_store(path: str | Path) -> bool:
    """Whether an episode store lies at ``path``, a directory or URL; also one whose header is damaged."""
    root = RemoteFiles(str(path)).root if is_url(path) else Path(path)
    header = root / "zarr.json"
    return (header.exists() and b'"vla"' in header.read_bytes()) or _has_part(root)


def _has_part(path: Path | RemotePath) -> bool:
    return (path / "part-00000" / LOG).exists()


def storable(embodiment: Embodiment) -> Embodiment:
    """The same; :class:`StoreError` where one of its names cannot be a directory.

    What could not be read back, as :meth:`Embodiment.from_json` says, is refused here already.
    """
    Embodiment.from_json(embodiment.to_json())
    check_name("embodiment name", embodiment.name)
    for camera in embodiment.cameras:
        check_name("camera name", camera.name)
    return embodiment


def differences(a: Embodiment, b: Embodiment) -> list[str]:
    """What is not the same in two of one name, a line each."""
    left, right = a.to_json(), b.to_json()
    return [f"{key} differ: {left[key]} and {right[key]}" for key in left if left[key] != right[key]]


def part_directories(root: Path | RemotePath) -> tuple[list[Path] | list[RemotePath], list[str]]:
    """Those there, in order, and the names of those that are missing: writers number parts one by one."""
    if isinstance(root, Path):
        parts = sorted(path for path in root.iterdir() if _PART.fullmatch(path.name))
        last = int(parts[-1].name.removeprefix("part-")) if parts else -1
        names = {part.name for part in parts}
        return parts, [name for name in map(_part_name, range(last)) if name not in names]
    found: dict[int, RemotePath] = {}
    while True:
        first = max(found, default=-1) + 1
        asked = {number: root / _part_name(number) for number in range(first, first + _PARTS_AT_ONCE)}
        there = root.files.fetch([str(part / file) for part in asked.values() for file in (LOG, "zarr.json")])
        new = {n: p for n, p in asked.items() if {str(p / LOG), str(p / "zarr.json")} & there}
        if not new:
            missing = [_part_name(number) for number in range(first) if number not in found]
            return list(found.values()), missing
        found |= new


def _part_name(number: int) -> str:
    return f"part-{number:05d}"
