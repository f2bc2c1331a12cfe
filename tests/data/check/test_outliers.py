"""What is far from all others where most values are one and the same."""

from __future__ import annotations

import numpy as np

from tests.data.check.made import MadeSource
from vla.data.check import CheckConfig, check

QUIET = CheckConfig(frames="none")


def pressed(source: MadeSource, value: float, episodes: int) -> list[int]:
    """Episodes with an outlier where an entry of the action rests at 0 but for one step of some episodes."""
    for i, values in enumerate(source.values):
        action = np.array(values["action"])
        action[:, 0] = 0.0
        action[20, 0] = value if i < episodes else 0.0
        values["action"] = values["executed"] = action.astype(np.float32)
    found = check(source, QUIET).findings
    return [f.episode for f in found if f.kind == "outlier" and f.where.startswith("action")]


def test_a_key_pressed_now_and_then_is_no_outlier() -> None:
    assert pressed(MadeSource(), 0.5, 12) == []


def test_a_single_spike_in_a_resting_entry_is_one() -> None:
    assert pressed(MadeSource(), 0.5, 1) == [0]
