"""Whatever is done to a file of a foreign data set gives an error of ours, or what can be read of it."""

from __future__ import annotations

import random
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.reader_kinds import KINDS, Made
from vla.data.check import CheckConfig, check
from vla.data.mixture import SourceConfig, open_sources
from vla.data.readers import open_source
from vla.data.source import EpisodeSource, read_frames
from vla.errors import VlaError

FOREIGN = [kind for kind in KINDS if kind not in ("store", "archive")]
#: Every byte has a checksum, or its change shows.
CHECKSUMMED = ("rlds",)
HURTS = ("flip", "flip", "flip", "cut", "zero", "text", "empty", "delete")
ROUNDS = 16


def content(source: EpisodeSource) -> dict[str, list[object]]:
    """All that is in each episode, by its place in the data set as it was written."""
    found: dict[str, list[object]] = {}
    for index, info in enumerate(source.episodes):
        name = str([info.provenance.get(k) for k in ("file", "demo", "record", "episode_index", "episode")])
        numbers = [source.column(index, column).tobytes() for column in source.columns(index)]
        pictures = [
            read_frames(source.frame_reader(index, camera), range(info.length)).tobytes()
            for camera in source.cameras(index)
        ]
        found[name] = [info.instruction, info.length, *numbers, *pictures]
    return found


def hurt(file: Path, how: str, rng: random.Random) -> None:
    """Change a file so that it is not what was written."""
    data = bytearray(file.read_bytes())
    at = rng.choice([i for i, byte in enumerate(data) if byte] or [0]) if data else 0
    if how == "delete":
        file.unlink()
        return
    if how == "flip" and data:
        data[at] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del data[at:]
    elif how == "empty":
        data.clear()
    else:
        piece = data[at : at + 64] if how == "zero" else data[at : at + 4]
        data[at : at + len(piece)] = bytes(len(piece)) if how == "zero" else b'9]"{'[: len(piece)]
    file.write_bytes(data)


def spoilt(made: Made, folder: Path, rounds: int, seed: int) -> Iterator[tuple[Path, str]]:
    """Copies of a data set with a file hurt in each: every kind of harm, files by turns."""
    rng = random.Random(seed)
    for number in range(rounds):
        copy = folder / f"{number}" / made.path.name
        copy.parent.mkdir(parents=True)
        shutil.copytree(made.path, copy) if made.path.is_dir() else shutil.copy(made.path, copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file()) if copy.is_dir() else [copy]
        file, how = files[rng.randrange(len(files))], HURTS[number % len(HURTS)]
        hurt(file, how, rng)
        yield copy, f"{how} {file.relative_to(copy.parent)}"
        shutil.rmtree(copy.parent)


@pytest.mark.filterwarnings("ignore")  # numbers that no longer mean anything overflow
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_spoilt_file_is_an_error_that_says_which_or_what_is_whole_is_read(
    kind: str, tmp_path: Path
) -> None:
    made = KINDS[kind](tmp_path)
    source = made.open()
    wanted, refused = content(source), dict[str, str]()
    source.close()
    for path, what in spoilt(made, tmp_path / "spoilt", ROUNDS, seed=zlib.crc32(kind.encode())):
        try:
            source = made.open(path)
            found = content(source)
            source.close()
            assert kind not in CHECKSUMMED or found == wanted, what
        except VlaError as error:
            refused[what] = str(error).replace(str(path), "PATH")
        skipping(made, path, wanted if kind in CHECKSUMMED else {}, what)
        try:
            tolerant = open_source(path, made.description, instruction=made.instruction, tolerate_damage=True)
            check(tolerant, CheckConfig(frames="all"))
            tolerant.close()
        except VlaError:
            pass
    assert refused
    assert {what: text for what, text in refused.items() if "PATH" not in text} == {}


def skipping(made: Made, path: Path, wanted: dict[str, list[object]], what: str) -> None:
    """With skip_damaged only whole episodes are left: none of ``wanted`` comes back changed."""
    description = None
    if made.description is not None:
        description = path.parent / "description.json"
        made.description.save(description)
    try:
        source = open_source(path, made.description, instruction=made.instruction, skip_damaged=True)
        source.close()
        if not made.instruction:
            [source] = open_sources(
                [
                    SourceConfig(
                        path=str(path), description=description and str(description), skip_damaged=True
                    )
                ]
            )
            for name, episode in content(source).items():
                assert name not in wanted or episode == wanted[name], what
            source.close()
    except VlaError:
        return
