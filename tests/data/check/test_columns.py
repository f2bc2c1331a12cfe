"""What is found in columns of which nobody says what they mean, and what is not."""

from __future__ import annotations

import numpy as np
import pytest

from vla.data.check import KINDS, CheckConfig, Report, check
from vla.data.readers.memory import MemoryDataset, MemoryEpisode
from vla.data.undescribed import UndescribedSource

NUMBERS = CheckConfig(frames="none")


def made(count: int = 12, length: int = 60) -> list[dict[str, np.ndarray]]:
    """Smooth joints, a target ahead of them, and what else files hold: flags, row numbers, turns."""
    rng, episodes = np.random.default_rng(0), []
    for _ in range(count):
        t = np.linspace(0, 3, length + 1)[:, None]
        way = np.sin(3 * t + rng.uniform(0, 6) + [0, 2, 4]) + rng.normal(0, 1e-3, (length + 1, 3))
        closed = np.where(np.arange(length) < rng.integers(20, 40), 0.0, 1.0)
        turn = (rng.uniform(-3, 3) + 0.1 * np.arange(length) + np.pi) % (2 * np.pi) - np.pi
        sign = np.where(np.arange(length) < 30, 1, -1)[:, None]
        episodes.append(
            {
                "qpos": way[:-1].copy(),
                "gripper": closed[:, None],
                "done": (np.arange(length) == length - 1)[:, None].astype(np.float32),
                "row": np.arange(length)[:, None],
                "yaw": turn[:, None],
                "quat": sign * np.array([[0.9, 0.1, 0.2, 0.37]]) + rng.normal(0, 1e-3, (length, 4)),
                "action": way[1:].copy(),
            }
        )
    return episodes


def looked_at(episodes: list[dict[str, np.ndarray]], hz: float = 10.0) -> Report:
    stored = [MemoryEpisode(columns=columns, instruction="x y") for columns in episodes]
    return check(UndescribedSource(MemoryDataset(stored, control_hz=hz)), NUMBERS)


@pytest.mark.parametrize("count", [1, 2, 12, 40])
def test_nothing_is_found_in_clean_columns(count: int) -> None:
    assert looked_at(made(count)).findings == ()


@pytest.mark.parametrize(("column", "where"), [("qpos", "state/qpos[1]"), ("action", "action/action[1]")])
@pytest.mark.parametrize("spike", [False, True])
def test_a_change_unlike_all_others_is_a_warning(column: str, where: str, spike: bool) -> None:
    episodes = made()
    episodes[3][column][25 : 26 if spike else None, 1] += 2.5
    (finding,) = looked_at(episodes).kinds["jump"]
    assert (finding.episode, finding.where, finding.severity) == (3, where, "warning")
    assert finding.first in ((24, 25) if spike else (24,))
    assert "standard deviations" in finding.message


def test_rows_that_repeat_while_the_action_goes_on_are_a_warning() -> None:
    episodes = made()
    for name, values in episodes[3].items():
        if name not in ("action", "row"):
            values[20:45] = values[20]
    (finding,) = looked_at(episodes).kinds["frozen_state"]
    assert (finding.episode, finding.first, finding.last) == (3, 21, 44)
    assert KINDS["frozen_state"].severity == "warning"


def test_a_copied_episode_is_a_warning() -> None:
    episodes = made()
    episodes[7] = episodes[2]
    assert [f.episode for f in looked_at(episodes).kinds["duplicate"]] == [7]
