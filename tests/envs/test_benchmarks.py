"""Meta-World, LIBERO and Fetch: what is said of them and, where they are installed, what they do."""

from __future__ import annotations

import numpy as np
import pytest

from vla.embodiment import Embodiment
from vla.errors import EnvError, UnknownNameError
from vla.eval.grid import EvalConfig, plan
from vla.interfaces import tasks_of
from vla.testing import check_env, check_suite
from vla_envs.gymnasium_suite.suite import GymnasiumSuite
from vla_envs.libero.suite import LiberoSuite, suite_sizes
from vla_envs.metaworld.suite import EMBODIMENT, MetaWorldSuite
from vla_envs.metaworld.tasks import INSTRUCTIONS, LEVELS, MT10
from vla_envs.remote.places import BenchmarkMissingError, benchmark_python


def needs(name: str) -> pytest.MarkDecorator:
    try:
        benchmark_python(name)
    except BenchmarkMissingError as error:
        return pytest.mark.skip(reason=str(error))
    return pytest.mark.skipif(False, reason="")


def test_every_metaworld_task_is_on_one_level_and_says_something() -> None:
    assert sorted(task for tasks in LEVELS.values() for task in tasks) == sorted(INSTRUCTIONS)
    assert [len(tasks) for tasks in LEVELS.values()] == [28, 11, 6, 5]
    assert len(INSTRUCTIONS) == 50
    assert len(MT10) == 10
    assert set(MT10) < set(INSTRUCTIONS)
    assert all(words and "_" not in words and "-v3" not in words for words in INSTRUCTIONS.values())


def test_metaworld_is_planned_by_group_without_being_installed() -> None:
    suite = MetaWorldSuite()
    keys = plan(EvalConfig(suite="metaworld", tasks=("mt10",), num_seeds=10, audit="full"), suite)
    assert {key.task for key in keys} == set(MT10)
    assert {(key.variant, key.wording) for key in keys} == {("base", "train")}
    assert tasks_of(suite, ["very_hard"]) == LEVELS["very_hard"]
    with pytest.raises(UnknownNameError, match="swapped"):
        plan(EvalConfig(suite="metaworld", variants=("swapped",)), suite)
    with pytest.raises(EnvError, match="one look"):
        suite.make("reach-v3", "sawyer", detailed=True)


def test_the_arm_of_metaworld_moves_a_hand_and_a_gripper() -> None:
    arm = Embodiment.load(EMBODIMENT)
    assert (arm.state_dim, arm.action_dim, arm.control_hz) == (4, 4, 80.0)


def test_libero_has_its_suites_and_those_of_libero_pro() -> None:
    assert len(suite_sizes()) == 5 + 16
    assert len(LiberoSuite("libero_90").tasks) == 90
    assert LiberoSuite("libero_goal_swap").name == "libero@libero_goal_swap"
    with pytest.raises(UnknownNameError, match="libero_goal_lan"):
        LiberoSuite("libero_goal_env")


@needs("metaworld")
def test_metaworld_keeps_the_contract_of_every_env() -> None:
    check_suite(MetaWorldSuite(), tasks=["drawer-open-v3", "pick-place-v3"])


@needs("metaworld")
def test_metaworlds_own_policy_does_its_task_and_the_picture_stands_upright() -> None:
    suite = MetaWorldSuite()
    env = suite.make("reach-v3", "sawyer", image_size=64)
    obs, info = env.reset(seed=0)
    assert info["instruction"] == "Reach a goal position"
    assert env.facts["max_steps"] == 500
    picture = obs["images"]["front"].astype(float)
    red = (picture[..., 0] > 2 * picture[..., 1]) & (picture[..., 0] > 60)
    rows, columns = np.nonzero(red)
    assert rows.mean() < 32  # the arm reaches down from above
    assert columns.mean() < 32  # and stands on the left
    for _ in range(200):
        _, _, terminated, _, info = env.step(env.expert_action())
        if terminated:
            break
    assert info["success"]


@needs("metaworld")
def test_metaworlds_first_picture_shows_the_goal_where_the_label_says_it_is() -> None:
    env = MetaWorldSuite().make("pick-place-v3", "sawyer", image_size=96)
    for seed in (1, 2, 3):  # Meta-World itself would show the goal of the episode before
        obs, info = env.reset(seed=seed)
        u, v = ((info["aux"]["front_goal_uv"] + 1) * 48).astype(int)
        red, _, blue = obs["images"]["front"][v - 2 : v + 3, u - 2 : u + 3].astype(int).reshape(-1, 3).T
        assert (blue - red).max() > 80  # the goal's mark; nothing else here is blue


@needs("metaworld")
def test_metaworlds_target_of_the_bare_hand_is_the_goal() -> None:
    env = MetaWorldSuite().make("reach-v3", "sawyer")
    obs, info = env.reset(seed=0)
    assert info["aux"]["phase"] == 0
    assert np.isnan(info["aux"]["goal_position"]).all()
    while not info["success"]:
        obs, *_, info = env.step(env.expert_action())
    off = obs["state"]["tcp_position"] - info["aux"]["target_position"]
    assert np.linalg.norm(off) < 0.06  # Meta-World counts the tool within 5 cm, and tells of the hand
    assert info["aux"]["phase"] == 1


@needs("gymnasium_robotics")
def test_fetch_keeps_the_contract_and_its_gripper_closes_where_it_is_told_to() -> None:
    env = GymnasiumSuite("fetch").make("pick_and_place", "fetch")
    check_env(env)
    env.reset(seed=0)
    widths = []
    for command in (-1.0, 1.0):
        for _ in range(8):
            obs, *_ = env.step(np.array([0, 0, 0, command], np.float32))
        widths.append(float(obs["state"]["gripper_opening"][0]))
    assert widths == pytest.approx([1.0, 0.0], abs=0.05)


@needs("libero")
def test_libero_says_what_its_task_file_says_and_begins_in_its_stored_states() -> None:
    env = LiberoSuite("libero_goal").make("task00", "libero_panda", image_size=64)
    check_env(env, num_steps=2)
    obs, _ = env.reset(seed=0)
    assert obs["instruction"] == "open the middle layer of the drawer"  # the file is called otherwise
    again, _ = env.reset(seed=50)  # there are fifty states
    np.testing.assert_array_equal(obs["state"]["joint_position"], again["state"]["joint_position"])
    assert env.facts["num_init_states"] == 50
