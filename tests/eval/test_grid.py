import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.eval.fake_suite import PointSuite
from vla.errors import ConfigError, UnknownNameError
from vla.eval.grid import EvalConfig, plan, remember_config

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
