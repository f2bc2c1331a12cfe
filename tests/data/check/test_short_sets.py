"""Episodes of no, one and two steps, alone and among others, and sets that lack action, state or both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.check.made import MadeSource
from vla.data.check import CheckConfig, check
from vla.data.readers.memory import MemoryDataset, MemoryEpisode
from vla.data.undescribed import NEEDS_MEANING, UndescribedSource
from vla.report.data_page import write_check_page

ALL = CheckConfig(frames="all")


@pytest.mark.parametrize("length", [0, 1, 2])
@pytest.mark.parametrize("others", [0, 2, 23])
def test_a_very_short_episode_is_a_finding_and_no_crash(length: int, others: int, tmp_path: Path) -> None:
    source = MadeSource(count=others + 1, size=16)
    source.cut(others // 2, length)
    report = check(source, ALL)
    assert [f.episode for f in report.kinds["short_episode"]] == [others // 2]
    assert "short_episode" in write_check_page(report, source, tmp_path / "c.html").read_text()


@pytest.mark.parametrize("length", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_so_are_sets_of_nothing_else(length: int, count: int) -> None:
    source = MadeSource(count=count, size=16)
    for index in range(count):
        source.cut(index, length)
    for frames in ("all", "sampled", "none"):
        found = check(source, CheckConfig(frames=frames)).kinds["short_episode"]  # type: ignore[arg-type]
        assert len(found) == count


def undescribed(*columns: str, length: int = 20, count: int = 10) -> UndescribedSource:
    """Random columns, and in episode 3 time stamps with a gap and a step back."""
    rng, episodes = np.random.default_rng(0), []
    for index in range(count):
        time_s = np.arange(length) / 10
        if index == 3:
            time_s[10:] += 7
            time_s[15] = time_s[3]
        values = {name: rng.normal(size=(length, 3)).astype(np.float32) for name in columns}
        pictures = {} if columns else {"top": rng.integers(0, 255, (length, 8, 8, 3), dtype=np.uint8)}
        episodes.append(MemoryEpisode(columns=values, pictures=pictures, instruction="x y", time_s=time_s))
    return UndescribedSource(MemoryDataset(episodes))


@pytest.mark.parametrize("columns", [(), ("qpos",), ("action",), ("qpos", "action")])
def test_time_is_looked_at_whatever_columns_there_are(columns: tuple[str, ...]) -> None:
    kinds = check(undescribed(*columns), CheckConfig(frames="none")).kinds
    assert set(kinds) == {"time_backwards", "time_gap"}
    assert {f.episode for found in kinds.values() for f in found} == {3}


def test_repeated_states_without_actions_are_duplicates() -> None:
    source = undescribed("qpos")
    source.raw._episodes[7] = source.raw._episodes[2]  # type: ignore[attr-defined]
    assert [f.episode for f in check(source, CheckConfig(frames="none")).kinds["duplicate"]] == [7]


def test_an_empty_instruction_takes_no_knowledge_of_columns() -> None:
    episode = MemoryEpisode(columns={"action": np.random.default_rng(0).normal(size=(9, 2))})
    report = check(UndescribedSource(MemoryDataset([episode])), CheckConfig(frames="none"))
    assert "empty_instruction" in report.kinds
    assert "empty_instruction" not in {*report.left_out, *NEEDS_MEANING}


def test_stamps_in_nanoseconds_keep_every_bit() -> None:
    stamps = 1_700_000_000_000_000_000 + 100_000_000 * np.arange(20)[:, None]
    rng = np.random.default_rng(0)
    columns = {"stamp": stamps, "action": rng.normal(size=(20, 2)), "done": np.arange(20)[:, None] == 19}
    source = UndescribedSource(MemoryDataset([MemoryEpisode(columns=columns, instruction="x y")]))
    assert source.column(0, "state").dtype == np.int64
    np.testing.assert_array_equal(source.column(0, "state"), np.append(stamps, columns["done"], axis=1))
    assert "constant_state" not in check(source, CheckConfig(frames="none")).kinds
