"""The actions of ``vla data`` through their real parsers."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.worlds import make_arm, make_episode
from vla.cli.data.archive import Archive
from vla.cli.data.check import Check
from vla.cli.data.exporting import Export
from vla.cli.data.fix import Fix
from vla.cli.data.flags import Demonstrations
from vla.cli.data.importing import Import
from vla.cli.data.look import Info, Stats, run_verify
from vla.cli.data.view import View
from vla.cli.flags import parse
from vla.data.shards import HEADER_BYTES
from vla.data.store import EpisodeStore


def test_verify_says_one_line_an_episode_with_the_number_of_its_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rng, path = np.random.default_rng(0), tmp_path / "s.zarr"
    with EpisodeStore.create(path, embodiments=[make_arm()]) as store:
        for _ in range(3):
            store.append(make_episode(rng, make_arm(), length=6))
        begins = store.frame_reader(1, "front").index[:, 0]
    frames = path / "part-00000/steps/alpha/cameras/front/frames/c/0"
    raw = bytearray(frames.read_bytes())
    for begin in begins.tolist():
        raw[HEADER_BYTES + begin + 200 : HEADER_BYTES + begin + 204] = b"\0\1\2\3"
    frames.write_bytes(raw)
    assert run_verify([str(path)]) == 1
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("episode 1: cameras/front/index: ")
    assert first.endswith("(and 5 more faults)")
    assert rest == [f"{path}: 3 episodes, 6 faults, 1 episodes damaged"]


@pytest.mark.parametrize("flags", [Info, Stats, Check, View, Archive, Export, Fix, Import])
def test_every_action_is_told_of_its_demonstrations_in_the_same_words(
    flags: type[Demonstrations], capsys: pytest.CaptureFixture[str]
):
    out = ["--out", "o"] if flags in (Archive, Export, Fix, Import) else []
    given = parse(flags, "data x", ["s3://bucket/demos", "--description", "d.json", *out])
    assert (given.path, given.description) == ("s3://bucket/demos", "d.json")
    with pytest.raises(SystemExit):
        parse(flags, "data x", ["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "embodiment file that says what the columns mean" in text
    assert "our own store" in text
