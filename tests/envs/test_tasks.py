"""The tasks' own rules: what counts, what does not, and that published scenes stay as they are."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from vla.interfaces import heldout_embodiments_of, observation_from_gym
from vla_envs.tabletop.arms import load_arm
from vla_envs.tabletop.env import TabletopEnv
from vla_envs.tabletop.instructions import TEMPLATES, parse_verb
from vla_envs.tabletop.names import ARMS, HELD_OUT_ARM
from vla_envs.tabletop.suite import TabletopSuite
from vla_envs.tabletop.tasks import make_task
from vla_envs.tabletop.tasks.beside import stands_beside

SUITE = TabletopSuite()
PUBLISHED = ("pick", "place", "push", "stack", "knock", "drawer", "press", "relation")
VERBS = ("pick", "place", "push", "stack", "knock", "open", "close", "press")


def play(env: TabletopEnv, steps: int) -> dict:
    """The expert's next steps; returns the last info."""
    expert, info = SUITE.expert(env), env.current_info()
    for _ in range(steps):
        observation = observation_from_gym(env._observe(), env.embodiment)
        _, _, done, _, info = env.step(expert.act([observation])[0].actions[0])
        if done:
            break
    return info


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def test_published_scenes_and_sentences_stay_as_the_demonstrations_saw_them() -> None:
    scenes = []
    for task in PUBLISHED:
        for arm in ("panda", "so101"):
            model = load_arm(arm)
            for seed in (0, 7, 1_000_003):
                layout = make_task(task).layout(np.random.default_rng([seed, 0]), model)
                scenes.append(json.dumps(dataclasses.asdict(layout), default=float))
    assert digest(scenes) == "3280113dd71e"
    assert digest({verb: TEMPLATES[verb] for verb in VERBS}) == "ab3f5568d049"


def test_the_held_out_arm_is_one_of_ours_and_the_suite_says_which() -> None:
    assert HELD_OUT_ARM in ARMS
    assert heldout_embodiments_of(SUITE) == (HELD_OUT_ARM,)


@pytest.mark.parametrize("task", ["turn", "slide", "insert", "beside", "unstack"])
def test_a_saved_state_of_the_task_continues_exactly(task: str) -> None:
    env = SUITE.make(task, "panda", render=False)
    env.reset(seed=2)
    play(env, 6)
    saved, ends = env.save_state(), []
    for _ in range(2):
        env.restore_state(saved)
        info = play(env, 12)
        ends.append((env.data.qpos.copy(), info["aux"]["target_position"]))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    np.testing.assert_array_equal(ends[0][1], ends[1][1])


@pytest.mark.parametrize(("task", "joint"), [("turn", "dial0"), ("slide", "slider0")])
def test_a_handle_that_moved_with_no_hand_around_it_does_not_count(task: str, joint: str) -> None:
    env = SUITE.make(task, "panda", render=False)
    env.reset(seed=0)
    goals = [g for g in env.task.goals(env.layout, env.arm) if g.target.startswith(joint)]
    for goal in goals:
        sense = 1.0 if goal.verb in ("counterclockwise", "slide_right") else -1.0
        env.world.set_slide(goal.target, sense * (0.9 if task == "turn" else 0.048))
        assert not env.task.achieved(goal, env.world)


def test_turning_the_other_way_is_wrong() -> None:
    env = SUITE.make("turn", "panda", render=False)
    env.reset(seed=3)
    asked = env.goal
    other = next(g for g in env.task.goals(env.layout, env.arm) if g != asked and g.target == asked.target)
    env.goal = other
    expert = SUITE.expert(env)
    for _ in range(25):
        env.goal = other
        observation = observation_from_gym(env._observe(), env.embodiment)
        action = expert.act([observation])[0].actions[0]
        env.goal = asked
        info = env.step(action)[-1]
    assert not info["success"]
    assert info["wrong"]


def test_a_peg_beside_the_hole_or_still_in_the_fingers_is_not_inserted() -> None:
    env = SUITE.make("insert", "panda", render=False)
    env.reset(seed=1)
    x, y, _ = env.world.position(env.goal.destination)
    peg = env.world.pool[env.goal.target]
    for dx, inside in ((0.0, True), (0.05, False)):
        env.world.place(env.goal.target, (x + dx, y, peg.half_height + 0.002), 0.0)
        env.data.qvel[:] = 0.0
        env._simulate()
        env._simulate()
        assert env.task.achieved(env.goal, env.world) is inside


def test_a_cube_counts_as_beside_only_on_its_own_side() -> None:
    left = np.array([0.01, -0.08, 0.0])
    assert [
        side for side in ("left_of", "right_of", "behind", "in_front_of") if stands_beside(left, side)
    ] == ["left_of"]
    assert not stands_beside(2 * left, "left_of")


def test_every_beside_scene_has_several_goals_none_of_them_achieved() -> None:
    task = make_task("beside")
    for arm in ARMS:
        model = load_arm(arm)
        for seed in range(6):
            layout = task.layout(np.random.default_rng(seed), model)
            goals = task.goals(layout, model)
            assert len(goals) >= 4
            assert len({goal.target for goal in goals}) > 1


def test_lifting_a_cube_off_while_its_base_falls_does_not_count() -> None:
    env = SUITE.make("unstack", "panda", render=False)
    env.reset(seed=2)
    info = play(env, 40)
    assert info["success"]
    assert env.task.achieved(env.goal, env.world)
    body = env.model.joint(f"{env.goal.destination}/free").qposadr[0]
    env.data.qpos[body + 3 : body + 7] = [np.cos(0.4), np.sin(0.4), 0.0, 0.0]
    env._simulate()
    assert not env.task.achieved(env.goal, env.world)


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("turn the red dial counterclockwise", "counterclockwise"),
        ("slide the red slider to the left", "slide_left"),
        ("slide the red cube to the blue zone", "push"),
        ("put the red cube to the left of the blue cube", "left_of"),
        ("put the red cube behind the blue cube", "behind"),
        ("pick up the cube behind the bowl", "pick"),
        ("pick up the cube to the left of the bowl", "pick"),
        ("lift the red cube off the blue cube", "unstack"),
        ("put the red peg in the blue socket", "insert"),
        ("put the red cube in the blue bowl", "place"),
    ],
)
def test_verbs_are_told_apart(text: str, verb: str) -> None:
    assert parse_verb(text) == verb
