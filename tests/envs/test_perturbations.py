"""A perturbed scene is the same task, seen or begun otherwise; the next plain one is as it was."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from vla import registry
from vla.errors import UnknownNameError
from vla.eval.ablations import PERTURBATIONS, perturbations_of
from vla_envs.tabletop.env import TabletopEnv

SUITE = registry.suite("tabletop")


@pytest.fixture(scope="module", params=["place", "relation"])
def env(request: pytest.FixtureRequest) -> Iterator[TabletopEnv]:
    made = SUITE.make(request.param, "panda")
    yield made  # type: ignore[misc]
    made.close()


def seen(env: TabletopEnv, seed: int, perturbation: str = "") -> dict:
    options = {"perturbation": perturbation} if perturbation else {}
    obs, info = env.reset(seed=seed, options=options)
    return {
        **obs["images"],
        "said": obs["instruction"],
        "aux": info["aux"],
        "tcp": obs["state"]["tcp_position"],
    }


def test_the_suite_knows_all_that_the_audit_asks_for() -> None:
    assert perturbations_of(SUITE) == tuple(PERTURBATIONS)
    with pytest.raises(UnknownNameError, match="perturbation"):
        SUITE.make("place", "panda", render=False).reset(seed=0, options={"perturbation": "fog"})


@pytest.mark.parametrize("name", list(PERTURBATIONS))
def test_it_looks_otherwise_or_begins_elsewhere_and_asks_the_same(env: TabletopEnv, name: str) -> None:
    differing = 0
    for seed in (1, 2, 3):
        plain, changed, again = seen(env, seed), seen(env, seed, name), seen(env, seed, name)
        assert changed["said"] == plain["said"] or name == "distractors"
        np.testing.assert_allclose(
            changed["aux"]["target_position"], plain["aux"]["target_position"], atol=1e-3
        )
        differing += not np.array_equal(changed["front"], plain["front"])
        np.testing.assert_array_equal(changed["front"], again["front"])
        moved = float(np.linalg.norm(changed["tcp"] - plain["tcp"]))
        assert (moved > 0.02) == (name == "start_pose")
        back = seen(env, seed)
        np.testing.assert_array_equal(back["front"], plain["front"])
        np.testing.assert_array_equal(back["wrist"], plain["wrist"])
    assert differing >= 2  # not every scene has a distractor that may change


@pytest.mark.parametrize("name", list(PERTURBATIONS))
def test_the_expert_still_does_it(env: TabletopEnv, name: str) -> None:
    expert = SUITE.expert(env)
    env.reset(seed=5, options={"perturbation": name})
    success = done = False
    from vla.interfaces import observation_from_gym

    obs = env._observe()
    expert.reset()
    while not (success or done):
        action = expert.act([observation_from_gym(obs, env.embodiment)])[0].actions[0]
        obs, _, success, done, _ = env.step(action)
    assert success


def test_a_saved_state_carries_the_looks(env: TabletopEnv) -> None:
    env.reset(seed=4, options={"perturbation": "lighting"})
    state, picture = env.save_state(), env._observe()["images"]["front"]
    env.reset(seed=9)
    np.testing.assert_array_equal(env.restore_state(state)["images"]["front"], picture)


def test_what_is_not_meant_changes_colour_and_what_is_meant_does_not() -> None:
    env = SUITE.make("place", "panda", render=False)
    changed = 0
    for seed in range(8):
        env.reset(seed=seed)
        before, goal = dict(env.layout.colors), env.goal
        env.reset(seed=seed, options={"perturbation": "distractors"})
        after = env.layout.colors
        assert (env.goal.target, env.goal.destination) == (goal.target, goal.destination)
        assert env.goal.target_words == goal.target_words
        for name in (goal.target, goal.destination):
            assert after[name] == before[name]
        changed += before != after
    assert changed >= 7
