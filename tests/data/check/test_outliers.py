"""What is far from all others where most values are one and the same."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.check.made import MadeSource
from vla.data.check import CheckConfig, check

QUIET = CheckConfig(frames="none")


def pressed(episodes: int, *, steps: int = 1, value: float = 0.5) -> list[int | None]:
    """Episodes with an outlier where an entry rests at 0 but for some steps of so many episodes."""
    source = MadeSource()
    for i, values in enumerate(source.values):
        action = np.array(values["action"])
        action[:, 0] = 0.0
        action[20 : 20 + steps, 0] = value if i < episodes else 0.0
        values["action"] = values["executed"] = action.astype(np.float32)
    found = check(source, QUIET).findings
    return [f.episode for f in found if f.kind == "outlier" and f.where.startswith("action")]


@pytest.mark.parametrize("value", [0.5, 1e6])
def test_a_key_pressed_now_and_then_is_no_outlier(value: float) -> None:
    assert pressed(7, value=value) == []  # less than a hundredth of all values


@pytest.mark.parametrize("steps", [1, 5, 6])
def test_spikes_of_one_episode_do_not_make_themselves_usual(steps: int) -> None:
    assert pressed(1, steps=steps, value=1e6) == [0]
