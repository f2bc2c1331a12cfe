"""Seasons: new scenes and sentences for each number, and apart from what demonstrations show."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vla import registry
from vla.errors import ConfigError, EnvError
from vla.interfaces import TRAIN_SEED, observation_from_gym
from vla_envs.tabletop.arms import load_arm
from vla_envs.tabletop.env import TabletopEnv
from vla_envs.tabletop.instructions import TEMPLATES, normalise
from vla_envs.tabletop.names import ALL_COLORS, COLORS, TASKS
from vla_envs.tabletop.seasons import Season, _painted_kind, trained_colors, unseen_colors
from vla_envs.tabletop.suite import TabletopSuite
from vla_envs.tabletop.tasks import Layout, make_task
from vla_envs.tabletop.tasks.matching import match_goal
from vla_envs.tabletop.wordings import season_sentences

PANDA = load_arm("panda")
TRAINING, EVALUATION, UNSEEN = Season.parse(3), Season.parse(1003), Season.parse("1003+unseen")


def make(task: str, season: int | str | None, **kwargs) -> TabletopEnv:
    return TabletopSuite(season).make(task, "panda", **{"render": False, **kwargs})


def scene(task: str, season: Season, seed: int) -> Layout:
    rng, pool = season.generator(seed, 0), make_task(task).pool(PANDA)
    return season.redraw(make_task(task).layout(rng, PANDA), pool, season.reshape(pool), rng)


def pairs(task: str, layout: Layout) -> set[tuple[str, str]]:
    kinds = {entity.name: entity.kind for entity in make_task(task).pool(PANDA)}
    return {(color, _painted_kind(name, kinds)) for name, color in layout.colors.items()}


def test_a_season_is_the_same_every_time_and_another_one_is_not() -> None:
    def picture(season: int | str) -> tuple[np.ndarray, str, np.ndarray]:
        env = make("place", season, render=True)
        obs, info = env.reset(seed=5)
        env.close()
        return obs["images"]["front"], info["instruction"], env.data.qpos.copy()

    first, again, other = picture(1003), picture("1003"), picture(1004)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[2], again[2])
    assert first[1] == again[1]
    assert (first[0] != other[0]).any()
    assert first[1] != other[1]
    assert not np.array_equal(first[2], other[2])


def test_seasons_differ_in_layouts_shades_sizes_and_sentences() -> None:
    seasons = [Season.parse(number) for number in (1, 2, 1001, 1002)]
    assert len({str(scene("pick", s, 0).placements) for s in seasons}) == len(seasons)
    assert len({str(s.colors) for s in seasons}) == len(seasons)
    assert len({s.reshape(make_task("pick").pool(PANDA))[0].size for s in seasons}) == len(seasons)
    assert len({str(s.templates) for s in seasons}) == len(seasons)


def test_public_scenes_have_no_season_in_them() -> None:
    public, season = make("press", None), make("press", 3)
    assert "season" not in public.reset(seed=1)[1]
    assert season.reset(seed=1)[1]["season"] == "3"
    assert public.fingerprint != season.fingerprint != make("press", 4).fingerprint
    assert registry.suite("tabletop").name == "tabletop"


def test_a_season_is_part_of_the_suite_name_that_results_carry() -> None:
    assert registry.suite("tabletop@1003+unseen").name == "tabletop@1003+unseen"
    assert registry.suite("tabletop", season=7).name == "tabletop@7"
    with pytest.raises(ConfigError, match="names its season"):
        registry.suite("tabletop@7", season=8)
    with pytest.raises(ConfigError, match="no seasons"):
        registry.suite("tests.eval.fake_suite:PointSuite@7")


@pytest.mark.parametrize("text", ["", "-1", "seven", "1003+all", "7+unseen"])
def test_what_is_no_season_is_refused(text: str) -> None:
    with pytest.raises(EnvError, match=r"[Ss]eason"):
        Season.parse(text)


def test_demonstration_seeds_are_refused_in_evaluation_seasons_only() -> None:
    with pytest.raises(EnvError, match="for evaluation"):
        make("press", 1003).reset(seed=TRAIN_SEED)
    make("press", 3).reset(seed=TRAIN_SEED)
    make("press", 1003).reset(seed=0)


def test_unseen_seasons_show_only_pairs_that_nobody_trained_on() -> None:
    for task in TASKS:
        for seed in range(8):
            trained = {pair for s in (TRAINING, EVALUATION) for pair in pairs(task, scene(task, s, seed))}
            assert all(color in trained_colors(kind) for color, kind in trained)
            for color, kind in pairs(task, scene(task, UNSEEN, seed)):
                assert color in unseen_colors(kind)
                assert color not in COLORS


def test_every_colour_is_trained_on_some_kind_so_that_its_word_can_be_learnt() -> None:
    kinds = (
        "cube",
        "cylinder",
        "bottle",
        "bowl",
        "plate",
        "zone",
        "button",
        "drawer",
        "dial",
        "slider",
        "peg",
    )
    assert {color for kind in kinds for color in trained_colors(kind)} == set(ALL_COLORS)
    assert all(not set(trained_colors(kind)) & set(unseen_colors(kind)) for kind in kinds)


def test_recolouring_keeps_things_of_one_kind_apart() -> None:
    for task in TASKS:
        for season in (TRAINING, UNSEEN):
            layout = scene(task, season, 2)
            if task != "relation":
                assert len(pairs(task, layout)) == len(layout.colors)
            if "bowl" in layout.colors:
                assert sum(color == layout.colors["bowl"] for color in layout.colors.values()) == 1


def test_public_training_and_evaluation_sentences_are_disjoint_in_known_words() -> None:
    for verb in TEMPLATES:
        public = {s for sentences in TEMPLATES[verb].values() for s in sentences}
        training, evaluation = (set(season_sentences(verb, evaluation=e)) for e in (False, True))
        assert not training & evaluation
        assert not public & (training | evaluation)
        assert min(len(training), len(evaluation)) >= 9
        words = [{w for s in some for w in normalise(s).split()} for some in (training, evaluation)]
        assert words[1] <= words[0] | {w for s in public for w in normalise(s).split()}
    for season in (TRAINING, EVALUATION):
        for templates in season.templates.values():
            assert not set(templates["train"]) & set(templates["heldout"])


@pytest.mark.parametrize("task", TASKS)
def test_every_season_sentence_is_understood(task: str) -> None:
    layout = scene(task, UNSEEN, 4)
    goals = make_task(task).goals(layout, PANDA)
    for goal in goals:
        words = {"target": goal.target_words, "goal": goal.destination_words, "prep": goal.prep}
        for evaluation in (False, True):
            for sentence in season_sentences(goal.verb, evaluation=evaluation):
                assert match_goal(sentence.format(**words), goals) == goal, sentence


@pytest.mark.parametrize(("task", "season"), [("stack", "1003"), ("insert", "1001+unseen"), ("knock", "12")])
def test_experts_solve_seasons_and_saved_states_continue_exactly(task: str, season: str) -> None:
    suite = TabletopSuite(season)
    env = suite.make(task, "ur5e", render=False)
    act = suite.expert(env).act
    obs, _ = env.reset(seed=1, options={"variant": "swapped", "wording": "heldout"})
    saved, ends = env.save_state(), []
    for _ in range(2):
        obs = env.restore_state(saved)
        for _ in range(env.max_steps):
            obs, _, done, _, info = env.step(act([observation_from_gym(obs, env.embodiment)])[0].actions[0])
            if done:
                break
        ends.append(env.data.qpos.copy())
        assert info["success"]
    np.testing.assert_array_equal(*ends)


def test_resized_things_stand_on_the_table() -> None:
    before = make_task("unstack").pool(PANDA)
    after = [dataclasses.replace(entity, size=entity.size * 0.9) for entity in before]
    layout = make_task("unstack").layout(np.random.default_rng(0), PANDA)
    redrawn = TRAINING.redraw(layout, before, after, np.random.default_rng(0))
    heights = {entity.name: entity.half_height for entity in after}
    assert redrawn.placements["base0"].position[2] == pytest.approx(heights["base0"])
    assert redrawn.placements["top0"].position[2] == pytest.approx(2 * heights["base0"] + heights["top0"])
