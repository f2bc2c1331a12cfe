"""Every kind of fault is found where it was planted, and none is where none is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest

from tests.data.check.made import LENGTH, MadeSource
from tests.data.check.planted import (
    PLANTED,
    back_in_time,
    black,
    dummy_first,
    frozen,
    gap,
    held,
    jump,
    missing,
    nan,
    other_unit,
    outlier,
    waits_between,
    waits_first,
)
from vla.data.check import KINDS, OF_PICTURES, CheckConfig, Finding, Report, check, expand_kinds
from vla.data.check.motion import interval
from vla.data.check.signals import said
from vla.data.damage import LEAVE_OUT
from vla.errors import ConfigError, DatasetError, UnknownNameError

ALL = CheckConfig(frames="all")


NUMBERS = CheckConfig(frames="none")


def found(source: MadeSource, kind: str, config: CheckConfig | None = None) -> list[Finding]:
    seen = ALL if "frame" in kind or kind == "ragged" else NUMBERS
    return check(source, config or seen).kinds.get(kind, [])


@pytest.mark.parametrize("frames", ["sampled", "all", "none"])
def test_clean_demonstrations_give_no_finding(frames: Literal["sampled", "all", "none"]) -> None:
    report = check(MadeSource(), CheckConfig(frames=frames))
    assert report.findings == ()
    assert report.num_episodes == 24
    assert report.num_frames_read == {"sampled": 24 * 2 * 8, "all": 24 * 2 * LENGTH, "none": 0}[frames]
    assert set(report.left_out) == {"sampled": {"odd_frame"}, "all": set(), "none": {*OF_PICTURES}}[frames]


def test_every_kind_is_planted() -> None:
    assert set(PLANTED) == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "number"), [(k, i) for k, faults in PLANTED.items() for i in range(len(faults))]
)
def test_a_planted_fault_is_found_where_it_is(kind: str, number: int) -> None:
    plant, episode = PLANTED[kind][number]
    source = MadeSource()
    plant(source)
    findings = found(source, kind)
    assert {f.episode for f in findings} == {episode}
    assert all(f.message for f in findings)


def test_arms_that_begin_at_rest_have_no_placeholder() -> None:
    source = MadeSource()
    for values in source.values:
        values["action"][:3, :4] = 0
    assert found(source, "placeholder_first") == []


def test_a_placeholder_says_what_mends_it() -> None:
    source = MadeSource()
    dummy_first(source)
    assert "skip_first" in found(source, "placeholder_first")[0].message
    assert "skip_first" in KINDS["placeholder_first"].remedy


@pytest.mark.parametrize(
    ("plant", "kind", "first", "last"),
    [
        (nan, "not_finite", 7, 8),
        (black, "blank_frame", 20, 20),
        (frozen, "frozen_frames", 10, 24),
        (jump, "jump", 19, 20),
        (gap, "time_gap", 19, 20),
        (outlier, "outlier", 20, 20),
        (waits_first, "idle_start", 0, 13),
    ],
)
def test_the_steps_are_those_concerned(
    plant: Callable[[MadeSource], None], kind: str, first: int, last: int
) -> None:
    source = MadeSource()
    plant(source)
    (finding,) = found(source, kind)
    assert (finding.first, finding.last) == (first, last)


def test_a_film_that_stands_still_is_found_among_few_pictures() -> None:
    source = MadeSource()
    frozen(source)
    (finding,) = found(source, "frozen_frames", CheckConfig())
    assert (finding.first, finding.last, finding.where) == (10, 24, "front")


def test_a_film_that_stands_still_with_the_arm_is_no_fault() -> None:
    source = MadeSource()
    waits_between(source)
    assert not found(source, "frozen_frames")


def test_a_gripper_that_closes_at_once_is_no_jump() -> None:
    source = MadeSource()
    for values in source.values:
        values["state"][:, -1] = 1.0
    source.values[5]["state"][20:, -1] = 0.0
    assert not found(source, "jump")


def test_an_angle_that_wraps_is_no_jump(rng: np.random.Generator) -> None:
    from dataclasses import replace

    source = MadeSource()
    yaw = replace(source.arm.state[1], name="yaw", rotation_format="yaw", size=1, low=(-4.0,), high=(4.0,))
    source.arm = replace(source.arm, state=(yaw,))
    for values in source.values:
        turn = rng.uniform(-3, 3) + 0.1 * np.arange(LENGTH)
        values["state"] = ((turn + np.pi) % (2 * np.pi) - np.pi)[:, None].astype(np.float32)
    assert not found(source, "jump")


def test_noise_in_what_is_executed_is_no_fault(rng: np.random.Generator) -> None:
    """Injected noise moves the arm: the label beside it need not explain the motion."""
    source = MadeSource()
    for values in source.values:
        burst = rng.random((LENGTH, 1)) < 0.2
        values["action"][:, :3] = np.where(burst, -values["action"][:, :3], values["action"][:, :3])
    assert check(source, NUMBERS).findings == ()


def test_a_report_counts_and_orders_by_severity() -> None:
    source = MadeSource()
    nan(source)
    source.rename(7, "reach the red sqaure")
    source.repeat(9, of=6)
    report = check(source, NUMBERS)
    assert [KINDS[kind].severity for kind in report.kinds] == ["error", "warning", "note"]
    assert [len(report.at_least(s)) for s in ("error", "warning", "note")] == [1, 2, 3]
    assert report.to_json()["counts"] == {"error": 1, "warning": 1, "note": 1}
    assert isinstance(report, Report)


def test_unknown_kinds_and_settings_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="duplicate"):
        expand_kinds(["duplicat"])
    with pytest.raises(ConfigError, match="sampled, all or none"):
        CheckConfig(frames="some")  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [20, 100, 300])
def test_many_jumps_of_one_episode_are_found_whatever_the_number_of_others(count: int) -> None:
    source = MadeSource(count=count, size=8)
    source.values[4]["state"][::2, 0] += 0.4
    (finding,) = found(source, "jump")
    assert finding.episode == 4
    assert len(finding.evidence["steps"]) == LENGTH - 1


def test_fast_motion_of_a_few_episodes_is_no_jump() -> None:
    source = MadeSource()
    for values in source.values[1:]:
        values["state"][:, :10] *= 0.02
        values["action"][:, :3] *= 0.02
    assert not found(source, "jump")


def test_idle_ends_are_found_where_arms_wait_most_of_the_time(rng: np.random.Generator) -> None:
    source = MadeSource()
    for index, values in enumerate(source.values):
        source.stand_still(index, 7, LENGTH - 1)
        values["state"] += rng.normal(0, 2e-5, values["state"].shape).astype(np.float32)  # of the encoders
    assert {f.episode for f in found(source, "idle_end")} == set(range(len(source)))


@pytest.mark.parametrize("count", [8, 10])
def test_an_odd_episode_is_found_among_few(count: int) -> None:
    source = MadeSource(count=count)
    other_unit(source)
    assert [f.episode for f in found(source, "episode_outlier")] == [5]


def test_what_is_far_beyond_its_range_is_one_finding_held_or_not() -> None:
    source = MadeSource()
    source.values[5]["action"][7, 0] = 2 * source.arm.action_high[0]
    source.values[5]["executed"][7, 0] = source.arm.action_high[0]
    kinds = check(source, NUMBERS).kinds
    assert "action_out_of_range" in kinds
    assert "held_action" not in kinds


def test_the_example_of_a_finding_of_all_episodes_shows_it() -> None:
    source = MadeSource()
    held(source)
    (finding,) = found(source, "held_action")
    assert finding.evidence["example"] == 5
    assert finding.place == "all of alpha, action/tcp_position_delta[0]"


def test_rows_say_of_how_many_episodes() -> None:
    source = MadeSource()
    for plant in (missing, held, jump):
        plant(source)
    rows = {row[0]: row[3] for row in check(source, NUMBERS).rows()}
    assert (rows["missing"], rows["held_action"], rows["jump"]) == ("-", "all", "1")


def test_time_is_looked_at_where_other_numbers_are_damaged() -> None:
    source = MadeSource()
    nan(source)
    back_in_time(source)
    assert {"not_finite", "time_backwards"} <= set(check(source, NUMBERS).kinds)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.0, 0.0, "are 0"), (0.1, 0.25, "lie in 0.1 to 0.25"), (1.23456, 1.23457, "lie in 1.23456 to 1.23457")],
)
def test_an_interval_is_told_with_as_many_digits_as_it_needs(low: float, high: float, said: str) -> None:
    assert interval(low, high) == said


def test_what_cannot_be_read_is_told_once_with_its_place() -> None:
    error = DatasetError("Episode 2: column 'state' of episode 2 of made (made/a.parquet) is damaged.")
    assert said(error, MadeSource(count=3), 2) == "column 'state' (a.parquet) is damaged."
    advised = DatasetError(f"{MadeSource.path}/a.mp4 is cut. Fetch it again, or {LEAVE_OUT}")
    assert said(advised, MadeSource(count=3), 2) == "a.mp4 is cut. Fetch it again."
