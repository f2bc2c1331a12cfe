"""The tabletop suite: exact scenes, honest success, instructions that matter."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from vla.errors import ActionError, EnvError, UnknownNameError, VlaError
from vla.interfaces import AUX_KEYS, observation_from_gym
from vla_envs.tabletop.env import TabletopEnv
from vla_envs.tabletop.instructions import (
    TEMPLATES,
    normalise,
    parse_relation,
    parse_things,
    parse_verb,
    phrase,
)
from vla_envs.tabletop.names import ARMS, COLORS, TASKS
from vla_envs.tabletop.suite import TabletopSuite
from vla_envs.tabletop.tasks import make_task
from vla_envs.tabletop.tasks.matching import match_goal

SUITE = TabletopSuite()


def make(task: str, arm: str = "panda", **kwargs) -> TabletopEnv:
    return SUITE.make(task, arm, **{"render": False, **kwargs})


def roll(env: TabletopEnv, act, *, seed: int, variant: str = "base") -> dict:
    """Play one episode; ``act(observation) -> action``."""
    obs, info = env.reset(seed=seed, options={"variant": variant})
    while True:
        obs, _, terminated, truncated, info = env.step(act(obs))
        if terminated or truncated:
            return info


def expert(env: TabletopEnv):
    policy = SUITE.expert(env)
    return lambda obs: policy.act([observation_from_gym(obs, env.embodiment)])[0].actions[0]


#: Every task with two arms, every arm with four tasks or more; ``scripts/study_experts.py`` does all.
CELLS = [(t, a) for i, t in enumerate(TASKS) for j, a in enumerate(ARMS) if (i + j) % 3 == 0]


@pytest.mark.parametrize(("task", "arm"), CELLS)
def test_expert_passes_and_doing_nothing_or_anything_fails(task: str, arm: str) -> None:
    env = make(task, arm)
    rng = np.random.default_rng(0)
    assert roll(env, expert(env), seed=3)["success"]
    assert not roll(env, lambda _: np.array([0, 0, 0, 0, -1], np.float32), seed=3)["success"]
    low, high = env.embodiment.action_low, env.embodiment.action_high
    assert not roll(env, lambda _: rng.uniform(low, high).astype(np.float32), seed=3)["success"]


@pytest.mark.parametrize("task", TASKS)
def test_obeying_the_base_instruction_fails_the_swapped_one(task: str) -> None:
    env = make(task)
    env.reset(seed=5, options={"variant": "swapped"})
    swapped = env.goal
    env.reset(seed=5)
    act, base = expert(env), env.goal
    assert base != swapped

    def act_on_base(obs):
        env.goal = base
        action = act(obs)
        env.goal = swapped
        return action

    info = roll(env, act_on_base, seed=5, variant="swapped")
    assert not info["success"]


def test_same_seed_gives_the_same_scene_bit_for_bit_and_swapping_only_changes_the_words() -> None:
    first, second = make("place", render=True), make("place", render=True)
    a, _ = first.reset(seed=11)
    second.reset(seed=4)
    b, _ = second.reset(seed=11, options={"variant": "swapped"})
    assert all((a["images"][c] == b["images"][c]).all() for c in ("front", "wrist"))
    assert all((a["state"][f] == b["state"][f]).all() for f in a["state"])
    assert a["instruction"] != b["instruction"]


def test_restored_state_continues_exactly() -> None:
    env = make("stack")
    act = expert(env)
    obs, _ = env.reset(seed=2)
    for _ in range(8):
        obs, *_ = env.step(act(obs))
    saved = env.save_state()
    actions, first = [], []
    for _ in range(10):
        actions.append(act(obs))
        obs, *_ = env.step(actions[-1])
        first.append(env.data.qpos.copy())
    env.reset(seed=9)
    env.restore_state(saved)
    for action, qpos in zip(actions, first, strict=True):
        env.step(action)
        assert (env.data.qpos == qpos).all()


def test_every_goal_of_a_scene_can_be_said_and_is_understood() -> None:
    for task in TASKS:
        env = make(task)
        for seed in range(12):
            env.reset(seed=seed)
            goals = env.task.goals(env.layout, env.arm)
            for goal in goals:
                for wording in ("train", "heldout"):
                    for draw in range(6):
                        rng = np.random.default_rng(draw)
                        text = phrase(
                            goal.verb, goal.target_words, goal.destination_words, rng, wording, goal.prep
                        )
                        assert match_goal(text, goals) == goal, text


def test_heldout_wordings_use_only_known_words_and_no_known_sentence() -> None:
    known = {w for t in TEMPLATES.values() for s in t["train"] for w in normalise(s).split()}
    for templates in TEMPLATES.values():
        assert not set(templates["train"]) & set(templates["heldout"])
        assert {w for s in templates["heldout"] for w in normalise(s).split()} <= known


def test_instruction_can_change_mid_motion_and_success_follows_it() -> None:
    env = make("pick")
    act = expert(env)
    obs, _ = env.reset(seed=1)
    for _ in range(6):
        obs, *_ = env.step(act(obs))
    other = next(g for g in env.task.goals(env.layout, env.arm) if g.target != env.goal.target)
    env.set_instruction(f"Please lift the {other.target_words}!")
    assert env.goal == other
    for _ in range(40):
        obs, _, terminated, _, info = env.step(act(obs))
        if terminated:
            break
    assert info["success"]


def test_impossible_sentences_are_refused_with_what_is_possible() -> None:
    env = make("pick")
    env.reset(seed=1)
    before = env.goal
    with pytest.raises(VlaError, match=r"It can:\n  pick up the"):
        env.set_instruction("pick up the purple elephant")
    with pytest.raises(VlaError, match="No known verb"):
        env.set_instruction("make me a coffee")
    assert env.goal == before


def test_negations_and_colours_that_nothing_has_are_refused() -> None:
    env = make("relation")
    goal = None
    for seed in range(30):
        env.reset(seed=seed)
        goal = next((g for g in env.task.goals(env.layout, env.arm) if g.relation == "left"), None)
        if goal is not None:
            break
    color = env.layout.colors[goal.target]
    env.set_instruction(f"pick up the {color} cube on the left")
    assert env.goal == goal
    other = next(c for c in COLORS if c != color)
    for text in (f"pick up the {other} cube on the left", "do not pick up the left cube"):
        with pytest.raises(VlaError):
            env.set_instruction(text)


def test_what_was_achieved_before_a_new_instruction_is_not_called_wrong() -> None:
    env = make("press")
    act = expert(env)
    roll(env, act, seed=1)
    other = next(g for g in env.task.goals(env.layout, env.arm) if g.target != env.goal.target)
    env.set_instruction(f"press the {other.target_words}")
    assert env.current_info()["success"] is False
    assert env.current_info()["wrong"] is False


def test_fingerprint_tells_scenes_apart_and_survives_resets() -> None:
    env = make("press")
    before = env.fingerprint
    env.reset(seed=1)
    assert before == env.fingerprint == make("press").fingerprint
    assert before != make("press", "ur5e").fingerprint


def test_env_for_instruction_finds_a_scene_that_fits() -> None:
    env, seed = SUITE.env_for_instruction("put the red cube in the blue bowl", "panda", render=False)
    assert env.instruction == "put the red cube in the blue bowl"
    assert (env.goal.target_words, env.goal.destination_words) == ("red cube", "blue bowl")
    assert seed >= 0


def test_bad_actions_and_names_are_refused() -> None:
    env = make("pick")
    with pytest.raises(EnvError, match="reset"):
        env.step(np.zeros(5, np.float32))
    env.reset(seed=0)
    with pytest.raises(ActionError, match="not finite"):
        env.step(np.full(5, np.nan, np.float32))
    with pytest.raises(ActionError, match="shape"):
        env.step(np.zeros(7, np.float32))
    with pytest.raises(UnknownNameError, match="place"):
        make("plase")
    with pytest.raises(UnknownNameError, match="panda"):
        make("pick", "pandas")
    with pytest.raises(UnknownNameError, match="variant"):
        env.reset(seed=0, options={"variant": "bass"})


def test_clipped_actions_are_reported() -> None:
    env = make("pick")
    env.reset(seed=0)
    *_, info = env.step(np.array([1.0, 0, 0, 0, 5.0], np.float32))
    assert info["clipped"] == 2


def test_gymnasium_registration_and_spaces_hold() -> None:
    env = gymnasium.make("vla_envs:vla/tabletop-press-ur5e-v0")
    obs, info = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert {k: v.shape for k, v in info["aux"].items()} == {k: (n,) for k, n in AUX_KEYS.items()}
    env.close()


def test_projected_target_lies_on_the_target_in_the_picture() -> None:
    env = make("press", render=True, image_size=96)
    obs, info = env.reset(seed=4)
    u, v = (info["aux"]["front_target_uv"] + 1) / 2 * 96
    pixel = obs["images"]["front"][int(v), int(u)].astype(int)
    color = env.layout.colors[env.goal.target]
    strongest = {"red": {0}, "green": {1}, "blue": {2}, "yellow": {0, 1}}[color]
    assert set(np.flatnonzero(pixel > pixel.max() * 0.7)) == strongest


@pytest.mark.parametrize("task", TASKS)
def test_another_instruction_means_what_it_would_mean_if_it_were_asked(task: str) -> None:
    env, asked = make(task), make(task)
    _, info = env.reset(seed=6)
    other = int(info["aux"]["other_instruction"][0])
    asked.reset(seed=6)
    asked.set_instruction(info["other_instructions"][other])
    there = asked.current_info()["aux"]
    for name in ("target_position", "goal_position", "front_target_uv", "wrist_goal_uv"):
        key = name.replace("target", "other_target").replace("goal", "other_goal")
        np.testing.assert_allclose(info["aux"][key], there[name], atol=1e-6)
    assert info["other_instructions"][other] != info["instruction"]
    assert np.isnan(there["other_instruction"]).all()


def test_things_have_the_colour_of_their_name_in_the_picture() -> None:
    env = make("place", render=True, image_size=96)
    obs, info = env.reset(seed=3)
    uv = info["aux"]["front_things_uv"].reshape(-1, 2)
    assert len(info["things"]) == 4
    for words, (u, v) in zip(info["things"], uv, strict=False):
        pixel = obs["images"]["front"][int((v + 1) * 48), int((u + 1) * 48)].astype(int)
        strongest = {"red": {0}, "green": {1}, "blue": {2}, "yellow": {0, 1}}[words.split()[0]]
        assert set(np.flatnonzero(pixel > pixel.max() * 0.7)) == strongest, words
    assert np.isnan(uv[4:]).all()


def test_things_are_parsed_in_the_order_said() -> None:
    text = "Please put the RED block on top of the green cube."
    assert parse_verb(text) == "stack"
    assert parse_things(text) == [("red", "cube"), ("green", "cube")]
    assert parse_relation("lift the cube to the left of the bowl") == "left_of"


def test_tasks_offer_several_goals_per_scene() -> None:
    for task in TASKS:
        env = make(task)
        for seed in range(10):
            env.reset(seed=seed)
            assert len(make_task(task).goals(env.layout, env.arm)) >= 2
