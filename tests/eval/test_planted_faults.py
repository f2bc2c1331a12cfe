"""One thing wrong with a policy on disk: the audit names it, or the contract refuses; a sound one passes."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.eval.planted import ARMS, TwoViewEnv, arm_of, edit, load, save_sound_policy
from vla.contract import PolicyContract
from vla.data.plausibility import unfamiliar_entries
from vla.data.statistics import Normalizer
from vla.errors import IncompatibleError, StatisticsError
from vla.eval.ablations import DeprivedPolicy
from vla.eval.audit import Audit, audit, audit_arms, with_arm
from vla.eval.records import EpisodeKey
from vla.eval.rollout import run_episode
from vla.testing import check_policy, sample_observation

CAMERAS = SimpleNamespace(camera_roles=("front", "wrist"), perturbations=())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Normalizer]:
    where = tmp_path_factory.mktemp("sound")
    return where / "policy", save_sound_policy(where / "policy", where / "demos.zarr")


@pytest.fixture
def planted(sound: tuple[Path, Normalizer], tmp_path: Path):  # type: ignore[no-untyped-def]
    """A private copy of the policy, and how to audit it."""
    source, trained = sound
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())

    def audited(seeds: int = 8) -> Audit:
        policy, records = load(tmp_path, trained), []
        for name in ARMS:
            env = TwoViewEnv(name)
            for arm in ((None, None, "none"), *audit_arms("full", CAMERAS)):  # type: ignore[arg-type]
                for seed in range(seeds):
                    key = with_arm(EpisodeKey(task="reach", embodiment=name, seed=seed), arm)
                    records.append(run_episode(env, policy, suite="two_views", key=key))
        found = audit(records)
        assert found is not None
        return found

    return SimpleNamespace(directory=tmp_path, trained=trained, audited=audited)


def rate(found: Audit, name: str) -> float:
    return next(arm for arm in found.arms if arm.name == name).success.value


def test_a_sound_policy_is_accused_of_nothing(planted: Any) -> None:
    check_policy(load(planted.directory, planted.trained), arm_of("point"))
    found = planted.audited()
    assert found.faults == ()
    assert "FAULT" not in found.text()
    assert found.score is not None
    assert found.score > 0.8
    assert rate(found, "base no_wrist") == 1.0  # it can do without: that alone is no fault


def test_a_policy_that_ignores_language_is_named(planted: Any) -> None:
    def forget_colours(policy: dict[str, Any]) -> None:
        policy["instruction"]["vocabulary"] = ["<pad>", "<unk>", "dot", "reach", "the"]

    edit(planted.directory, forget_colours)
    found = planted.audited()
    assert found.arms[0].plain.value > 0.3  # it still succeeds where the usual thing is asked for
    assert any(fault.startswith("it ignores the instruction") for fault in found.faults)
    assert len(found.faults) == 1
    assert "FAULT: it ignores the instruction" in found.text()


def test_a_policy_that_ignores_one_camera_is_named_although_it_succeeds_without(planted: Any) -> None:
    edit(planted.directory, lambda policy: policy.update(camera_roles=["front"]))
    found = planted.audited()
    assert rate(found, "base no_wrist") == 1.0
    (fault,) = found.faults
    assert fault.startswith(
        "it ignores the wrist camera: without, the same actions to the last bit in 16 of 16"
    )


def test_statistics_of_two_arms_exchanged_are_named_with_the_entry_that_shows_it(planted: Any) -> None:
    def exchange(policy: dict[str, Any]) -> None:
        statistics = policy["normalisation"]["statistics"]
        statistics["point"], statistics["dot"] = statistics["dot"], statistics["point"]

    edit(planted.directory, exchange)
    found = planted.audited(seeds=3)
    faults = [fault for fault in found.faults if "statistics" in fault]
    assert [fault.split(":")[0] for fault in faults] == [
        f"its statistics are not those of {name!r}" for name in ARMS
    ]
    assert all("joint[0] far outside" in fault and "100 %" in fault for fault in faults)


@pytest.mark.parametrize(
    ("one", "other"), [("mean", "std"), ("min", "max"), ("q01", "q99"), ("mean", "max"), ("std", "max")]
)
@pytest.mark.parametrize("kind", ["state", "action"])
def test_columns_of_statistics_exchanged_are_refused(planted: Any, kind: str, one: str, other: str) -> None:
    def exchange(policy: dict[str, Any]) -> None:
        values = policy["normalisation"]["statistics"]["dot"][kind]
        values[one], values[other] = values[other], values[one]

    edit(planted.directory, exchange)
    with pytest.raises(StatisticsError, match=rf"'dot' contradict themselves: .* for {kind} .*restore"):
        PolicyContract.load(planted.directory)


def test_statistics_of_state_and_action_exchanged_are_refused(planted: Any) -> None:
    def exchange(policy: dict[str, Any]) -> None:
        values = policy["normalisation"]["statistics"]["point"]
        values["state"], values["action"] = values["action"], values["state"]

    edit(planted.directory, exchange)
    with pytest.raises(StatisticsError, match="'point' must be 9 finite numbers"):
        PolicyContract.load(planted.directory)


def test_a_wrong_rotation_format_is_refused_before_the_arm_moves(planted: Any) -> None:
    def relabel(policy: dict[str, Any]) -> None:
        for arm in policy["embodiments"].values():
            (yaw,) = (field for field in arm["state"] if field["name"] == "yaw")
            yaw["rotation_format"] = "rotvec"

    edit(planted.directory, relabel)
    policy, env = load(planted.directory, planted.trained), TwoViewEnv()
    with pytest.raises(IncompatibleError, match="rotation_format 'rotvec', here 'cos_sin_2yaw'"):
        run_episode(env, policy, suite="s", key=EpisodeKey(task="reach", embodiment="point"))
    assert env.dots == {}


def test_data_of_another_rotation_format_than_said_are_refused(planted: Any) -> None:
    def as_angles(policy: dict[str, Any]) -> None:  # the angle and nothing, where cos and sin are said to be
        values = policy["normalisation"]["statistics"]["point"]["state"]
        for name, (angle, nothing) in {
            "mean": (0.2, 0.0), "std": (0.3, 0.0), "min": (-0.5, 0.0), "max": (0.6, 0.0),
            "q01": (-0.4, 0.0), "q99": (0.5, 0.0),
        }.items():  # fmt: skip
            values[name][6:8] = [angle, nothing]

    edit(planted.directory, as_angles)
    with pytest.raises(StatisticsError, match=r"'yaw' of 'point'.*cos_sin_2yaw.*sum to 1;.*another rotation"):
        PolicyContract.load(planted.directory)


def test_an_arm_without_a_camera_does_not_show_that_it_is_ignored() -> None:
    arm = arm_of("point")
    blind = replace(arm, cameras=arm.cameras[:1])
    policy = SimpleNamespace(contract=None, reset=lambda: None, act=lambda observations: [])
    for name, taken in (("no_front", True), ("no_wrist", False), ("none", True), ("lighting", True)):
        deprived = DeprivedPolicy(policy, name, blind)  # type: ignore[arg-type]
        deprived.act([sample_observation(blind)])
        assert deprived.took == taken


def test_an_entry_is_unfamiliar_only_far_outside_of_what_the_statistics_saw(
    sound: tuple[Path, Normalizer],
) -> None:
    arm, statistics = arm_of("point"), sound[1].statistics["point"]
    state = np.array(statistics.state.mean, np.float32)
    width = max(statistics.state.max[8] - statistics.state.min[8], 0.05 * 6)
    inside, outside = copy.copy(state), copy.copy(state)
    inside[8], outside[8] = (statistics.state.max[8] + share * width for share in (0.45, 0.55))
    assert unfamiliar_entries(arm, statistics, inside) == ()
    assert unfamiliar_entries(arm, statistics, outside) == ("joint[0]",)
