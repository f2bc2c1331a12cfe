"""Failures are replayed, lost at the step at which they are lost, and explained by what would have helped."""

from dataclasses import replace

import numpy as np
import pytest

from tests.data.worlds import make_episode
from tests.eval.fake_suite import PointEnv, PointExpert, point_embodiment
from vla.cli.main import main
from vla.data.store import EpisodeStore
from vla.errors import ConfigError
from vla.eval.branches import go_on, reachable_until
from vla.eval.cards import chosen, load_cards, make_cards
from vla.eval.evaluate import evaluate, load_summary
from vla.eval.grid import EvalConfig
from vla.eval.nearest import nearest_episodes

CONFIG = EvalConfig(
    suite="point_suite", policy="zero", tasks=("reach",), embodiments=("point",), num_seeds=3, workers=0
)


@pytest.fixture
def run(point_suite, tmp_path):
    evaluate(CONFIG, tmp_path, progress=False)  # a policy that stands still
    return tmp_path


@pytest.mark.parametrize("turn", [0, 1, 7, 18, 24])
def test_the_last_chance_is_found_to_the_step(turn):
    asked = []

    def succeeds(step):
        asked.append(step)
        return step <= turn

    answers = reachable_until(succeeds, 24)
    assert max(step for step, yes in answers.items() if yes) == turn
    assert len(asked) == len(set(asked)) < 15


def test_what_was_never_possible_stays_so_and_short_episodes_are_asked_whole():
    assert not any(reachable_until(lambda step: False, 9).values())
    assert reachable_until(lambda step: True, 1) == {0: True, 1: True}


def test_going_on_starts_from_the_saved_state_and_may_be_told_something_else():
    env = PointEnv("reach", "point")
    env.reset(seed=0)
    for _ in range(4):
        env.step(np.array([0.01, 0.0, 0.0, 0.0], np.float32))
    state, other = env.save_state(), next(name for name in env.dots if name != env.target)
    result, trace = go_on(env, PointExpert(env), state, execution_horizon=1)
    assert result.success
    np.testing.assert_array_equal(trace.states[0][0]["tcp"], state["tcp"])
    result, trace = go_on(
        env, PointExpert(env), state, execution_horizon=1, instruction=f"reach the {other} dot"
    )
    assert result.success
    assert env.near(other)


def test_a_policy_that_stands_still_loses_when_the_way_gets_longer_than_the_time(run):
    (card,) = make_cards(run, count=1)
    assert card.reproduced
    env = PointEnv("reach", "point")
    env.reset(seed=card.key.seed)
    last = card.last_chance
    assert 0 < last < card.steps - 1
    assert (card.reachable[last], card.reachable[last + 1]) == (True, False)
    ends = {branch.name: branch.success for branch in card.branches}
    assert ends == {"expert": True, "again": False, "no_front": False}
    assert [branch.step for branch in card.branches] == [last, last // 2, last // 2]
    assert (run / "cards" / card.clip).stat().st_size > 0


def test_another_policy_goes_on_too(run):
    (card,) = make_cards(run, count=1, other="seer")
    assert {branch.name: branch.success for branch in card.branches}["other policy"]
    assert load_cards(run) == [card]


def test_cells_take_turns_and_crashes_are_left_out(run):
    _, records, _ = load_summary(run)
    failed = [r for r in records if not r.success]
    elsewhere = replace(failed[0], key=replace(failed[0].key, embodiment="other"))
    crashed = replace(failed[0], error="smoke", key=replace(failed[0].key, seed=99))
    picked = chosen([crashed, *failed, elsewhere], 2)
    assert [record.key.embodiment for record in picked] == ["point", "other"]


def test_the_verb_puts_cards_into_the_report(run, capsys):
    assert main(["eval", "cards", str(run), "--count", "1"]) == 0
    said = capsys.readouterr().out
    assert "by: expert" in said
    page = (run / "report.html").read_text()
    assert "Failure cards" in page
    assert "Success was still possible at" in page
    with pytest.raises(ConfigError, match="counted from 1"):
        make_cards(run, count=0)


def test_the_nearest_demonstration_is_the_one_whose_target_is_nearest(tmp_path):
    arm, rng = point_embodiment(image_size=16), np.random.default_rng(0)
    with EpisodeStore.create(tmp_path / "demos.zarr", embodiments=[arm]) as store:
        for i in range(4):
            store.append(make_episode(rng, arm, provenance={"task": "reach" if i else "push"}))
        spots = [store.column(i, "aux/target_position")[0] for i in range(4)]
        found = nearest_episodes(store, "reach", "point", {"target_position": spots[2]}, count=2)
        assert (found[0].episode, found[0].distance_m) == (2, 0.0)
        assert 0 not in [near.episode for near in found]
        assert found[1].distance_m > 0
        assert nearest_episodes(store, "reach", "other", {"target_position": spots[2]}) == []
