import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.eval.fake_suite import PointSuite
from vla.errors import ConfigError, UnknownNameError
from vla.eval.grid import EvalConfig, Queue, plan, remember_config
from vla.eval.records import EpisodeKey

CONFIG = EvalConfig(suite="point_suite", tasks=("reach",), num_seeds=3)


def test_the_grid_is_every_combination_once_and_ablations_on_the_plain_one() -> None:
    config = replace(CONFIG, first_seed=5, variants=("base", "swapped"), ablations=("none", "blank"))
    keys = plan(config, PointSuite())
    assert len(keys) == len(set(keys)) == 2 * 3 * 3
    assert {key.seed for key in keys} == {5, 6, 7}
    assert {key.embodiment for key in keys} == {"point", "dot"}


@pytest.mark.parametrize(("field", "value"), [("tasks", ("reech",)), ("embodiments", ("pont",))])
def test_unknown_tasks_and_arms_raise_with_a_suggestion(field: str, value: tuple[str, ...]) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean"):
        plan(replace(CONFIG, **{field: value}), PointSuite())


@pytest.mark.parametrize(
    "changes",
    [{"num_seeds": 0}, {"first_seed": -1}, {"workers": -1}, {"execution_horizon": 0}, {"variants": ()}],
)
def test_settings_out_of_range_raise(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(CONFIG, **changes)  # type: ignore[arg-type]


def test_seeds_of_demonstrations_are_refused() -> None:
    with pytest.raises(ConfigError, match="demonstrations"):
        EvalConfig(first_seed=999_990, num_seeds=25)


def test_an_unknown_variant_raises() -> None:
    with pytest.raises(UnknownNameError, match="swapped"):
        EvalConfig(variants=("swaped",))  # type: ignore[arg-type]


def test_config_survives_json() -> None:
    config = replace(CONFIG, variants=("base", "swapped"), image_size=48)
    assert EvalConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_another_evaluation_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    remember_config(CONFIG, tmp_path / "config.json")
    remember_config(replace(CONFIG, num_seeds=9, workers=1), tmp_path / "config.json")
    with pytest.raises(ConfigError, match="policy: 'expert' there, 'zero' now"):
        remember_config(replace(CONFIG, policy="zero"), tmp_path / "config.json")


@settings(deadline=None)
@given(
    cells=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    turns=st.lists(st.integers(0, 3), max_size=80),
    batch=st.integers(1, 5),
)
def test_the_queue_hands_out_every_episode_once(cells: list[int], turns: list[int], batch: int) -> None:
    keys = [EpisodeKey(task=f"t{c}", embodiment="a", seed=s) for c, n in enumerate(cells) for s in range(n)]
    queue, given = Queue(keys, batch), Counter[EpisodeKey]()
    for worker in [*turns, *[0] * len(keys)]:
        taken = queue.take(worker)
        assert len({key.task for key in taken}) <= 1
        given.update(taken)
    assert len(queue) == 0
    assert given == Counter(keys)


def test_workers_keep_to_different_cells_until_one_runs_dry() -> None:
    keys = [EpisodeKey(task=t, embodiment="a", seed=s) for t in "xy" for s in range(4)]
    queue = Queue(keys, batch=2)
    tasks = [[queue.take(w)[0].task for w in (0, 1)] for _ in range(2)]
    assert tasks == [["x", "y"], ["x", "y"]]
    assert queue.take(0) == []


def test_what_is_put_back_is_handed_out_again() -> None:
    keys = [EpisodeKey(task="x", embodiment="a", seed=s) for s in range(3)]
    queue = Queue(keys, batch=3)
    queue.put_back(queue.take(0)[1:])
    assert queue.take(1) == keys[1:]
