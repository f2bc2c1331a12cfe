"""What a store says of itself: which version, whose episodes, which parts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from vla.data.parts import LOG, check_name
from vla.data.remote import RemotePath
from vla.embodiment import Embodiment
from vla.errors import StoreError

FORMAT_VERSION = 2
_READABLE = (1, 2)  # 1: JPEG of one stated quality
_PARTS_AT_ONCE = 32
_PART = re.compile(r"part-\d{5}")


def storable(embodiment: Embodiment) -> Embodiment:
    """The same; :class:`StoreError` where one of its names cannot be a directory."""
    check_name("embodiment name", embodiment.name)
    for camera in embodiment.cameras:
        check_name("camera name", camera.name)
    return embodiment


def differences(a: Embodiment, b: Embodiment) -> list[str]:
    """What is not the same in two of one name, a line each."""
    left, right = a.to_json(), b.to_json()
    return [f"{key} differ: {left[key]} and {right[key]}" for key in left if left[key] != right[key]]


def part_directories(root: Path | RemotePath) -> list[Path] | list[RemotePath]:
    """In order; writers number parts one after the other, so that none need be listed."""
    if isinstance(root, Path):
        return sorted(path for path in root.iterdir() if _PART.fullmatch(path.name))
    found: list[RemotePath] = []
    while True:
        asked = [root / f"part-{len(found) + i:05d}" for i in range(_PARTS_AT_ONCE)]
        there = root.files.fetch([str(part / LOG) for part in asked])
        for part in asked:
            if str(part / LOG) not in there:
                return found
            found.append(part)


def read_header(path: Path | RemotePath) -> dict[str, Any]:
    """Version, embodiments, provenance and codec; :class:`StoreError` where this is no store we can read."""
    try:
        header = json.loads((path / "zarr.json").read_text())["attributes"]["vla"]
        version = header["format_version"]
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{path} is not an episode store: {path / 'zarr.json'} is missing.") from None
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path / 'zarr.json'} is damaged or not an episode store ({error!r}).") from error
    if version not in _READABLE:
        raise StoreError(
            f"{path} has format version {version}, this package reads {_READABLE[0]}..{_READABLE[-1]}."
        )
    return header
