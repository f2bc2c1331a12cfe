"""Bytes and files of a store changed, cut off and removed at random places: all is found, none crashes."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data.worlds import make_arm, make_episode
from vla.data.archive import VideoCodec
from vla.data.check import CheckConfig, check
from vla.data.codec import Codec
from vla.data.commits import LOG, read_log
from vla.data.readers import open_source
from vla.data.shards import HEADER_BYTES, INDEX_BYTES
from vla.data.source import EpisodeSource, read_through
from vla.data.store import EpisodeStore
from vla.errors import VlaError

PLACES = 60


@pytest.fixture(scope="module", params=[None, VideoCodec()], ids=["jpeg", "video"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store of two parts and two arms."""
    path = tmp_path_factory.mktemp("sound") / "s.zarr"
    rng = np.random.default_rng(0)
    arms = [make_arm("alpha", image_size=16), make_arm("beta", image_size=16, wrist=False)]
    codec: Codec | None = request.param
    with (
        EpisodeStore.create(path, embodiments=arms, codec=codec, provenance={"by": "test"}) as one,
        EpisodeStore.open(path) as two,
    ):
        for number in range(6):
            store, arm = (one, two)[number // 3], arms[number % 2]
            store.append(make_episode(rng, arm, length=3 + number // 2, instruction=f"do {number}"))
    return path


def owned(path: Path, store: Path) -> list[tuple[int, int]]:
    """Bytes of a file that belong to episodes or metadata; rows past the last one belong to nobody."""
    if "c" not in path.relative_to(store).parts:
        return [(0, path.stat().st_size)]
    names = path.relative_to(store).parts
    array = "/".join(names[1 : names.index("c")])
    with EpisodeStore.open(store) as opened:
        part = next(part for part in opened._parts.values() if part.directory.name == names[0])
        if array == "episodes":
            used = 32 * len(part.log.commits)
        else:
            _, arm, *rest = array.split("/")
            mine = [commit for commit in part.log.commits if commit.embodiment == arm]
            reader = part.array(arm, "/".join(rest))
            rows = mine[-1].frame_bytes[rest[1]] if rest[-1] == "frames" else mine[-1].start + mine[-1].length
            used = rows * reader.layout.row_bytes
    return [(0, INDEX_BYTES), (HEADER_BYTES, HEADER_BYTES + used)]


def damage(path: Path, spans: list[tuple[int, int]], rng: random.Random) -> str:
    how, data = (
        rng.choice(["flip", "flip", "flip", "zero", "text", "cut", "delete"]),
        bytearray(path.read_bytes()),
    )
    first, last = rng.choice(spans)
    at, before = rng.randrange(first, last), bytes(data)
    if how == "delete":
        path.unlink()
        return how
    if how == "cut":
        data = data[:at]
    elif how == "flip":
        data[at] ^= 1 << rng.randrange(8)
    else:
        end = min(at + 4, last)
        data[at:end] = (b"\0" * 4 if how == "zero" else b'9]"{')[: end - at]
    if bytes(data) == before:
        data[at] ^= 1
    path.write_bytes(data)
    return f"{how} at {at}"


def refused(act: object) -> bool:
    try:
        act()  # type: ignore[operator]
    except VlaError:
        return True
    return False


def numbers(source: EpisodeSource) -> dict[str, bytes]:
    """By instruction, which each episode has its own of."""
    return {info.instruction: source.column(info.index, "state").tobytes() for info in source.episodes}


def read_all(path: Path) -> None:
    with EpisodeStore.open(path) as store:
        for info in store.episodes:
            read_through(store, info.index)
        if store.notices:  # told of on opening
            raise VlaError(store.notices[0])


@pytest.mark.parametrize("seed", range(PLACES // 2))
def test_damage_anywhere_is_found_named_and_left_out(sound: Path, tmp_path: Path, seed: int) -> None:
    path, rng = tmp_path / "s.zarr", random.Random(seed)
    shutil.copytree(sound, path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    file = rng.choice(
        files if seed % 3 else [f for f in files if f.name == "zarr.json" or "episodes" in f.parts]
    )
    what = f"{file.relative_to(path)}: {damage(file, owned(sound / file.relative_to(path), sound), rng)}"
    with EpisodeStore.open(sound) as store:
        wanted = numbers(store)

    def verified() -> None:
        with EpisodeStore.open(path, tolerate_damage=True) as store:
            assert store.verify(), what

    def checked() -> None:
        source = open_source(path, tolerate_damage=True)
        check(source, CheckConfig(frames="all"))
        source.close()

    def skipped() -> None:
        with EpisodeStore.open(path, skip_damaged=True) as store:
            assert store.faults(), what
            for info in store.episodes:
                read_through(store, info.index)
            assert numbers(store).items() <= wanted.items(), what

    assert refused(lambda: read_all(path)), what
    header_lost = refused(verified)
    assert header_lost <= (file == path / "zarr.json"), what
    assert refused(checked) == refused(skipped) == header_lost, what


def test_a_committed_line_that_lost_its_newline_is_damage_and_not_a_killed_writer(tmp_path: Path) -> None:
    arm, rng = make_arm(), np.random.default_rng(0)
    store = EpisodeStore.create(tmp_path / "s.zarr", embodiments=[arm])
    for _ in range(3):
        store.append(make_episode(rng, arm, length=3))
    log = tmp_path / "s.zarr" / "part-00000" / LOG
    raw = log.read_bytes()
    log.write_bytes(raw[:-1] + b"\x0b")
    assert read_log(log).damaged_lines == (3,)
    assert read_log(log).torn_bytes == 0
    log.write_bytes(raw[:-20])
    assert read_log(log).torn_bytes > 0
