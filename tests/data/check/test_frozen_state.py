"""A state that nobody reports any more is found, and an arm that rests or is blocked is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.check.made import LENGTH, MadeSource
from vla.data.check import CheckConfig, Finding, check
from vla.data.fix import FixConfig, fix

NUMBERS = CheckConfig(frames="none")


def stop_reporting(source: MadeSource, index: int = 5, first: int = 12, last: int = 30) -> None:
    source.values[index]["state"][first : last + 1] = source.values[index]["state"][first]


def found(source: MadeSource) -> list[Finding]:
    return check(source, NUMBERS).kinds.get("frozen_state", [])


@pytest.mark.parametrize("count", [1, 3, 24])
def test_it_is_found_in_few_and_in_many_episodes(count: int) -> None:
    source = MadeSource(count=count)
    stop_reporting(source, index=count - 1)
    (finding,) = found(source)
    assert (finding.episode, finding.first, finding.last) == (count - 1, 13, 30)
    assert finding.where == "state/tcp_position"
    assert "18 commands (1.8 s) change no bit of it" in finding.message


def test_a_short_stop_and_another_threshold() -> None:
    source = MadeSource()
    stop_reporting(source, first=12, last=20)
    assert not found(source)
    shorter = CheckConfig(frames="none", frozen_state_s=0.8)
    assert [f.episode for f in check(source, shorter).kinds["frozen_state"]] == [5]


def test_an_arm_that_is_blocked_shows_its_noise(rng: np.random.Generator) -> None:
    source = MadeSource()
    stop_reporting(source)
    state = source.values[5]["state"]
    state += rng.normal(0, 1e-6, state.shape).astype(np.float32)
    assert not found(source)


def test_an_arm_that_rests_is_asked_for_nothing(rng: np.random.Generator) -> None:
    source = MadeSource()
    stop_reporting(source)
    source.values[5]["action"][12:31, :4] = rng.normal(0, 1e-4, (19, 4))
    assert not found(source)


def test_a_world_in_which_arms_are_often_held_without_noise_is_not_accused() -> None:
    source = MadeSource()
    for index in range(0, 24, 3):
        stop_reporting(source, index)
    assert not found(source)


def test_coarse_encoders_are_not_accused() -> None:
    source = MadeSource()
    for values in source.values:
        values["state"][:, :10] = np.round(values["state"][:, :10])
    assert not found(source)


def test_of_two_arms_the_one_that_rests_is_not_accused() -> None:
    from dataclasses import replace

    source = MadeSource()
    other = [
        replace(f, name=f"other_{f.name}", slot=f.slot.replace("arm0", "arm1")) for f in source.arm.state
    ]
    source.arm = replace(source.arm, state=(*source.arm.state, *other))
    for values in source.values:
        rest = np.repeat(values["state"][:1], LENGTH, axis=0)
        values["state"] = np.concatenate([values["state"], rest], axis=1)
    assert not found(source)
    stop_reporting(source)
    assert [f.where for f in found(source)] == ["state/tcp_position"]


@pytest.mark.parametrize("frozen_too", [False, True])
def test_a_cut_keeps_the_stretch_with_most_sound_steps_and_says_why(tmp_path: Path, frozen_too: bool) -> None:
    source = MadeSource()
    stop_reporting(source, first=18, last=LENGTH - 1)
    source.values[5]["state"][18:, :10] += 0.4
    cut = ("jump", "frozen_state") if frozen_too else ("jump",)
    (change,) = fix(source, tmp_path / "out", FixConfig(cut=cut, check=NUMBERS)).changes
    assert change.kept == (0, 17)
    said = "kept for its sound steps: 21 of the longer steps 18-39 have frozen_state"
    assert (said in str(change)) is not frozen_too


def test_a_cut_says_what_it_leaves(tmp_path: Path) -> None:
    source = MadeSource()
    stop_reporting(source, first=25, last=LENGTH - 1)
    source.values[5]["state"][5:, :10] += 0.4
    (change,) = fix(source, tmp_path / "out", FixConfig(cut=("jump",), check=NUMBERS)).changes
    assert change.kept == (5, LENGTH - 1)
    assert "still with frozen_state in 14 steps: --cut that too" in str(change)
