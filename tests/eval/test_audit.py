"""The audit names what a policy ignores: each planted fault is decided by the share that is made for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.eval.fake_suite import PointEnv, PointSuite, Seer, point_embodiment
from tests.eval.test_evaluate import CONFIG, run
from tests.eval.test_records import record
from vla.embodiment import Camera
from vla.errors import UnknownNameError
from vla.eval.ablations import DEPRIVATIONS, PERTURBATIONS, DeprivedPolicy, perturbations_of, shuffled
from vla.eval.audit import audit, audit_arms, audit_seeds
from vla.eval.grid import plan
from vla.eval.records import EpisodeKey, EpisodeRecord
from vla.eval.rollout import run_episode
from vla.report.page import write_report
from vla.testing import sample_observation
from vla.types import Observation

KEY = EpisodeKey(task="reach", embodiment="point", seed=0)


class Deaf(Seer):
    """Goes to the red dot whatever it is told."""

    def act(self, observations: Sequence[Observation]):  # type: ignore[no-untyped-def]
        return super().act([replace(o, instruction="reach the red dot") for o in observations])


class Blind(Seer):
    """Knows where the dot is without looking: privileged state stands for scenes learned by heart."""

    def __init__(self, env: PointEnv) -> None:
        super().__init__()
        self.env = env

    def act(self, observations: Sequence[Observation]):  # type: ignore[no-untyped-def]
        images = self.env._observe()["images"]
        return super().act([replace(o, images=images) for o in observations])


def audited(policy_of, seeds: int = 20) -> list[EpisodeRecord]:  # type: ignore[no-untyped-def]
    """Records of the short audit, all seeds."""
    env = PointEnv("reach", "point")
    config = replace(CONFIG, num_seeds=seeds, audit="short")
    arms = {(k.variant, k.wording, k.ablation) for k in plan(config, PointSuite())}
    keys = [
        replace(KEY, seed=seed, variant=variant, wording=wording, ablation=ablation)  # type: ignore[arg-type]
        for variant, wording, ablation in sorted(
            arms, key=lambda arm: (arm[2] != "none", arm[1] != "train", arm[0])
        )
        for seed in range(seeds)
    ]
    return [run_episode(env, policy_of(env), suite="point_suite", key=key) for key in keys]


def test_a_policy_that_looks_and_listens_is_grounded() -> None:
    found = audit(audited(lambda env: Seer()))
    assert found is not None
    assert found.shares is not None
    assert found.score is not None
    assert found.score > 0.8
    assert {"looks", "hears", "follows", "rewords"} == set(found.shares)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.score <= found.high


def test_a_policy_that_ignores_language_is_named_although_it_succeeds_half_of_the_time() -> None:
    found = audit(audited(lambda env: Deaf()))
    assert found is not None
    swapped = next(arm for arm in found.arms if arm.name == "swapped")
    assert swapped.plain.value > 0.3
    assert swapped.success.value > 0.3  # success alone does not tell
    assert found.score is not None
    assert found.score < 0.3
    assert found.weakest in ("hears", "follows")


def test_a_policy_that_does_not_look_is_named() -> None:
    found = audit(audited(Blind))
    assert found is not None
    assert found.weakest == "looks"
    assert found.score == 0


def test_arms_are_paired_with_the_plain_condition_on_the_same_scenes() -> None:
    def one(seed: int, success: bool, **changes: object) -> EpisodeRecord:
        return replace(record(), key=replace(KEY, seed=seed, **changes), success=success)  # type: ignore[arg-type]

    records = [one(seed, seed != 2) for seed in range(6)]
    records += [one(seed, seed == 0, ablation="blank") for seed in range(3)]
    found = audit(records)
    assert found is not None
    (blank,) = found.arms
    assert (blank.success.n, blank.plain.successes, blank.pairs.only_a, blank.pairs.both) == (3, 2, 1, 1)
    assert found.shares == {"looks": pytest.approx(0.5)}
    assert audit(records[:6]) is None
    nothing = audit([replace(r, success=False) for r in records])
    assert nothing is not None
    assert nothing.score is None
    assert "never succeeds" in nothing.text()


def test_the_short_form_runs_few_seeds_and_the_full_form_everything_the_suite_knows() -> None:
    assert [audit_seeds("short", n) for n in (2, 10, 50)] == [2, 3, 10]
    assert audit_seeds("full", 50) == 50
    keys = plan(replace(CONFIG, num_seeds=10, audit="short"), PointSuite())
    assert len(keys) == 10 + 4 * 3
    suite = SimpleNamespace(perturbations=("lighting", "other"), camera_roles=("front", "wrist"))
    names = [arm[2] for arm in audit_arms("full", suite)]  # type: ignore[arg-type]
    assert {"no_front", "no_wrist", "frozen", "shuffled", "low_res", "lighting"} < set(names)
    assert "no_side" not in names
    assert "texture" not in names
    assert len(names) == len(set(names)) + 1  # swapped and held-out words both take nothing away
    assert perturbations_of(suite) == ("lighting",)  # type: ignore[arg-type]


def test_each_deprivation_takes_away_what_it_says_and_nothing_else() -> None:
    arm = point_embodiment()
    arm = replace(arm, cameras=(*arm.cameras, Camera(name="hand", role="wrist", height=32, width=32)))
    told: list[Observation] = []

    class Spy(Seer):
        def act(self, observations):  # type: ignore[no-untyped-def]
            told.extend(observations)
            return super().act(observations)

    first, second = (sample_observation(arm, seed, "reach the red dot") for seed in (0, 1))
    for name in DEPRIVATIONS:
        told.clear()
        policy = DeprivedPolicy(Spy(), name, arm, seed=3)
        for seen in (first, second):
            policy.act([seen])
        grey = {camera: bool((image == 128).all()) for camera, image in told[1].images.items()}
        assert grey == {"front": name in ("blank", "no_front"), "hand": name in ("blank", "no_wrist")}
        same = all(np.array_equal(told[1].images[c], first.images[c]) for c in first.images)
        assert same == (name == "frozen")
        assert (told[1].instruction == second.instruction) == (name not in ("no_words", "shuffled"))
        assert sorted(told[1].instruction.split()) in ([], sorted(["reach", "the", "red", "dot"]))
        assert told[1].state is second.state
    with pytest.raises(UnknownNameError, match="ablation"):
        DeprivedPolicy(Spy(), "blnak", arm)


def test_shuffled_words_are_the_same_words_in_an_order_that_depends_on_the_seed_alone() -> None:
    text = "put the red cube in the blue bowl"
    assert shuffled(text, 1) == shuffled(text, 1) != text
    assert sorted(shuffled(text, 1).split()) == sorted(text.split())
    assert len({shuffled(text, seed) for seed in range(20)}) > 10
    assert shuffled("go go", 0) == "go go"


def test_a_perturbation_is_asked_of_the_env_and_one_that_it_does_not_know_is_refused() -> None:
    asked = {}

    class Lit(PointEnv):
        def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
            asked["perturbation"] = (options or {}).pop("perturbation", None)
            return super().reset(seed=seed, options=options)

    assert set(DEPRIVATIONS).isdisjoint(PERTURBATIONS)
    run_episode(Lit("reach", "point"), Seer(), suite="s", key=replace(KEY, ablation="lighting"))
    assert asked == {"perturbation": "lighting"}
    with pytest.raises(UnknownNameError, match="perturbation"):
        run_episode(PointEnv("reach", "point"), Seer(), suite="s", key=replace(KEY, ablation="lighting"))


def test_the_score_stands_beside_success_and_the_page_shows_what_each_arm_saw(
    point_suite: str, tmp_path: Path
) -> None:
    summary = run(tmp_path, audit="short", num_seeds=5)
    assert summary.overall["base"].success.n == 5
    assert summary.overall["base no_words"].success.n == 3
    stored = json.loads((tmp_path / "summary.json").read_text())["audit"]
    assert stored["score"] == summary.audit.score  # type: ignore[union-attr]
    assert stored["arms"]["base blank"]["paired"]["n"] == 3
    assert "grounding" in (tmp_path / "summary.txt").read_text()
    page = write_report(tmp_path).read_text()
    assert "Grounding audit" in page
    assert page.count('alt="first pictures"') == 5  # the plain one, swapped, blank, no words, held-out words
    assert "“(nothing)”" in page
