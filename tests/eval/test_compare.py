import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.eval.test_evaluate import run
from tests.eval.test_records import record
from vla.cli.main import main
from vla.errors import ConfigError
from vla.eval.compare import compare_records, compare_runs
from vla.eval.curves import time_to_success
from vla.eval.intervals import Rate
from vla.eval.paired import Pairs
from vla.eval.records import EpisodeKey, EpisodeRecord
from vla.eval.spread import RunSpread


def records(outcomes: dict[str, list[bool]], **changes: object) -> list[EpisodeRecord]:
    """One record an outcome, by task; seeds count up."""
    return [
        replace(record(**changes), key=EpisodeKey(task=task, embodiment="arm", seed=seed), success=success)
        for task, row in outcomes.items()
        for seed, success in enumerate(row)
    ]


def test_policies_are_compared_on_the_episodes_that_both_ran(point_suite: str, tmp_path: Path) -> None:
    run(tmp_path / "a", variants=("base", "swapped"), num_seeds=8)
    run(tmp_path / "b", policy="zero", num_seeds=10)
    comparison = compare_runs(tmp_path / "a", tmp_path / "b")
    assert comparison.conditions == {"base": Pairs(both=0, only_a=8, only_b=0, neither=0)}
    assert comparison.left_out == 10  # 8 of A swapped, 2 of B with other seeds
    assert comparison.b_is_worse
    assert "A is better than B (McNemar's exact test, p = 0.0078, n = 8)" in comparison.text()
    assert not compare_runs(tmp_path / "b", tmp_path / "a").b_is_worse


def test_the_command_says_so_to_people_scripts_and_ci(point_suite: str, tmp_path: Path, capsys) -> None:
    run(tmp_path / "a", num_seeds=8)
    run(tmp_path / "b", policy="zero", num_seeds=8)
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["eval", "compare", *paths, "--out", str(tmp_path / "c.json")]) == 0
    assert main(["eval", "compare", *paths, "--check"]) == 1
    assert main(["eval", "compare", *reversed(paths), "--check"]) == 0
    assert "+100.0 [" in capsys.readouterr().out
    stored = json.loads((tmp_path / "c.json").read_text())
    assert stored["conditions"]["base"]["only_a"] == 8
    assert stored["tasks"]["reach"]["p_holm"] == pytest.approx(2 / 2**8)


def test_what_was_judged_differently_is_not_compared(point_suite: str, tmp_path: Path) -> None:
    run(tmp_path / "a", num_seeds=2)
    run(tmp_path / "b", num_seeds=2, first_seed=50)
    with pytest.raises(ConfigError, match="no episode in common"):
        compare_runs(tmp_path / "a", tmp_path / "b")
    told = records({"pick": [True]}), records({"pick": [True]}, instruction="push it")
    with pytest.raises(ConfigError, match="the suite has changed"):
        compare_records(*told, a="A", b="B")


def test_a_task_that_got_worse_shows_although_the_mean_does_not() -> None:
    better, same, worse = [False] * 12 + [True] * 28, [True] * 40, [True] * 40
    a = records({"pick": better, "push": same, "stack": worse})
    b = records({"pick": [True] * 40, "push": same, "stack": [False] * 12 + [True] * 28})
    comparison = compare_records(a, b, a="A", b="B")
    assert comparison.conditions["base"].difference == 0
    assert comparison.holm["stack"] == pytest.approx(3 * 2 / 2**12)
    assert comparison.b_is_worse
    mean, low, high = comparison.cells_mean
    assert low < mean == 0 < high


def test_success_grows_with_the_time_allowed_and_ends_at_the_rate() -> None:
    made = [replace(r, time_to_success_s=float(i)) for i, r in enumerate(records({"pick": [True] * 6}))]
    failed = replace(record(99), success=False, time_to_success_s=None)
    curve = time_to_success([*made, failed], points=6)
    assert [point.rate.successes for point in curve] == [1, 2, 3, 4, 5, 6]
    assert curve[-1].rate == Rate(6, 7)
    assert curve[-1].time_s == 5.0
    assert time_to_success([]) == []
    assert time_to_success([failed])[0].rate == Rate(0, 1)


def test_runs_that_differ_by_chance_alone_show_no_spread_and_others_show_theirs() -> None:
    rng = np.random.default_rng(0)

    def spread(deviation: float) -> RunSpread:
        rates = np.clip(0.8 + deviation * rng.normal(size=6), 0, 1)
        return RunSpread.of([Rate(int(rng.binomial(400, rate)), 400) for rate in rates])

    alike, apart = [spread(0.0) for _ in range(200)], [spread(0.08) for _ in range(200)]
    assert np.mean([s.p_value <= 0.05 for s in alike]) <= 0.08
    assert np.mean([s.low <= 0.8 <= s.high for s in alike]) >= 0.92
    assert np.mean([s.low <= 0.8 <= s.high for s in apart]) >= 0.92  # Wilson of all episodes would not
    assert np.median([s.deviation for s in apart]) == pytest.approx(0.08, rel=0.25)
    assert np.median([s.deviation for s in alike]) < 0.02


def test_the_spread_of_training_seeds_is_a_command(point_suite: str, tmp_path: Path, capsys) -> None:
    for name in "ab":
        run(tmp_path / name, num_seeds=4)
    assert main(["eval", "spread", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "2 training runs: 100.0 % [100, 100] for the recipe" in capsys.readouterr().out
    assert main(["eval", "spread", str(tmp_path / "a")]) == 2


def test_planning_is_a_command(capsys) -> None:
    assert main(["eval", "power", "--tell", "0.9", "0.95", "--known", "0.95", "0.02"]) == 0
    text = capsys.readouterr().out
    assert "tell 90 % from 95 % with probability 0.8" in text
    assert "plus or minus 2 points" in text
    assert main(["eval", "power"]) == 2
    assert main(["eval", "power", "--tell", "0.9", "0.9"]) == 2
