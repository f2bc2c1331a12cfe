"""Runs that stop early stop where they should, at the same place each time, and say what holds."""

import json
from dataclasses import replace

import pytest

from vla.cli.main import main
from vla.errors import ConfigError
from vla.eval.grid import EvalConfig
from vla.eval.records import read_records
from vla.eval.until import evaluate_until, race, stopped_text
from vla.report.page import write_report

CONFIG = EvalConfig(suite="point_suite", policy="seer", tasks=("reach",), embodiments=("point",), workers=0)


def config(**changes):
    return replace(CONFIG, num_seeds=60, **changes)


def test_a_run_stops_once_the_rate_is_known_and_not_before(point_suite, tmp_path):
    summary, known = evaluate_until(config(), tmp_path, half_width=0.1, progress=False)
    assert known.met
    assert (known.rate.n, summary.num_episodes) == (known.seeds, known.seeds)
    assert 10 <= known.seeds < 60
    assert known.high - known.low <= 0.2
    before = known.seeds - 5
    _, earlier = evaluate_until(
        replace(CONFIG, num_seeds=before), tmp_path / "b", half_width=0.1, progress=False
    )
    assert not earlier.met
    assert "raise --episodes" in earlier.text()


def test_called_again_it_ends_at_the_same_place_and_runs_nothing(point_suite, tmp_path):
    _, first = evaluate_until(config(), tmp_path, half_width=0.1, progress=False)
    lines = (tmp_path / "records.jsonl").read_bytes()
    _, again = evaluate_until(config(), tmp_path, half_width=0.1, progress=False)
    assert (first, lines) == (again, (tmp_path / "records.jsonl").read_bytes())
    assert stopped_text(tmp_path) == first.text()
    assert "at any time" in write_report(tmp_path).read_text()


def test_a_race_names_the_better_one_and_stops(point_suite, tmp_path):
    ended = race(config(), config(policy="zero"), tmp_path, progress=False)
    assert ended.verdict == "A"
    assert ended.evidence >= 20
    assert ended.seeds < 60
    assert len(read_records(tmp_path / "a" / "records.jsonl")) == ended.pairs.n == ended.seeds
    assert json.loads((tmp_path / "race.json").read_text())["verdict"] == "A"


def test_a_race_between_equals_is_not_decided(point_suite, tmp_path):
    ended = race(config(), replace(config()), tmp_path, round_seeds=30, progress=False)
    assert (ended.verdict, ended.seeds, ended.evidence) == ("undecided", 60, 1.0)
    assert "cannot be told" in ended.text()


def test_impossible_wishes_and_unequal_races_are_refused(point_suite, tmp_path):
    with pytest.raises(ConfigError, match="knows a rate exactly"):
        evaluate_until(config(), tmp_path, half_width=0.0)
    with pytest.raises(ConfigError, match="stop rule"):
        evaluate_until(config(), tmp_path, half_width=0.7)
    with pytest.raises(ConfigError, match="more than the policy"):
        race(config(), replace(config(policy="zero"), first_seed=3), tmp_path)
    with pytest.raises(ConfigError, match="counted from 1"):
        race(config(), config(policy="zero"), tmp_path, round_seeds=0)


def test_both_have_a_command(point_suite, tmp_path, capsys):
    grid = ["--suite", "point_suite", "--episodes", "40", "--workers", "0", "--quiet"]
    grid += ["--tasks", "reach", "--arms", "point"]
    assert main(["eval", "race", "--a", "seer", "--b", "zero", "--out", str(tmp_path / "race"), *grid]) == 0
    assert "A is better." in capsys.readouterr().out
    assert main(["eval", "--policy", "seer", "--until", "0.15", "--out", str(tmp_path / "one"), *grid]) == 0
    assert "known to plus or minus 15 points" in " ".join(capsys.readouterr().out.split())
