"""The clock goes on while a policy thinks: paired scenes under each execution, and what they say together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.eval.fake_suite import PointEnv, Seer
from tests.eval.test_evaluate import CONFIG
from vla.cli.main import main
from vla.control.chunks import Execution
from vla.errors import ConfigError, IncompatibleError, UnknownNameError
from vla.eval.compare import compare_runs
from vla.eval.grid import EvalConfig, remember_config
from vla.eval.intervals import Rate
from vla.eval.latency import load_study, study_latency
from vla.eval.records import EpisodeKey, EpisodeRecord, read_records
from vla.eval.rollout import run_episode

KEY = EpisodeKey(task="reach", embodiment="point", seed=5)


def episode(execution: Execution, *latency_s: float, seed: int = 5, horizon: int = 2) -> EpisodeRecord:
    found = run_episode(
        PointEnv("reach", "point"),
        Seer(),
        suite="point_suite",
        key=replace(KEY, seed=seed),
        execution_horizon=horizon,
        execution=execution,
        latency_s=latency_s,
    )
    return replace(found, latency_mean_s=0.0, latency_p95_s=0.0)


def outcomes(run: Path) -> list[tuple[object, ...]]:
    return sorted(
        (r.key, r.success, r.steps, r.instruction, r.actions) for r in read_records(run / "records.jsonl")
    )


def test_without_latency_asynchronous_episodes_are_the_synchronous_ones() -> None:
    for seed in range(4):
        plain = episode("sync", seed=seed)
        assert episode("sync", 0.0, seed=seed) == plain
        assert episode("async", 0.0, seed=seed) == plain


def test_a_policy_whose_chunks_agree_is_the_same_ensembled() -> None:
    plain, together = episode("sync"), episode("ensemble")
    assert (together.success, together.steps) == (plain.success, plain.steps)


def test_a_synchronous_arm_waits_the_latency_for_every_chunk_in_simulated_time() -> None:
    plain, slow = episode("sync"), episode("sync", 0.1)
    assert plain.success
    assert slow.success
    num_chunks = -(-plain.steps // 2)
    assert slow.steps == plain.steps + num_chunks


def test_an_asynchronous_arm_waits_for_its_first_chunk_alone() -> None:
    plain, slow = episode("sync"), episode("async", 0.1)
    assert slow.steps == plain.steps + 1  # the dots stand still, so that old plans are good plans


def test_a_study_is_paired_and_the_same_over_any_number_of_workers(point_suite: str, tmp_path: Path) -> None:
    studies = []
    for workers in (0, 2):
        config = replace(CONFIG, workers=workers, num_seeds=4, embodiments=("point", "dot"))
        traces = {"0": (0.0,), "jitter": (0.0, 0.1, 0.3)}
        out = tmp_path / str(workers)
        studies.append(
            study_latency(config, out, executions=["sync", "async"], traces=traces, progress=False)
        )
    assert studies[0] == studies[1]
    for name in ("sync-jitter", "async-jitter"):
        assert outcomes(tmp_path / "0" / name) == outcomes(tmp_path / "2" / name)
    first, second, third, fourth = studies[0].points
    assert (first.execution, first.latency, first.pairs, first.success) == ("sync", "0", None, Rate(8, 8))
    assert second.pairs is not None
    assert (second.pairs.n, second.pairs.both, second.p_holm) == (8, 8, 1.0)
    assert third.mean_s == pytest.approx(0.4 / 3)
    assert third.time_to_success_s is not None
    assert fourth.time_to_success_s is not None
    assert first.time_to_success_s is not None
    assert third.time_to_success_s > fourth.time_to_success_s > first.time_to_success_s
    assert load_study(tmp_path / "0") == studies[0]
    # its evaluations are ordinary ones
    assert compare_runs(tmp_path / "0/sync-jitter", tmp_path / "0/async-jitter").left_out == 0


def test_another_trace_or_execution_is_another_evaluation(tmp_path: Path) -> None:
    remember_config(EvalConfig(), tmp_path / "config.json")
    for changes in ({"latency_s": (0.1,)}, {"execution": "async"}):
        with pytest.raises(ConfigError, match="another evaluation"):
            remember_config(EvalConfig(**changes), tmp_path / "config.json")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="seconds"):
        EvalConfig(latency_s=(-1.0,))
    with pytest.raises(UnknownNameError, match="ensemble"):
        EvalConfig(execution="ensembel")  # type: ignore[arg-type]


def test_configurations_of_earlier_versions_are_synchronous_without_latency(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    remember_config(EvalConfig(), path)
    content = json.loads(path.read_text())
    del content["execution"], content["latency_s"]
    path.write_text(json.dumps(content))
    remember_config(EvalConfig(), path)


@pytest.mark.parametrize("policy", ["seer", "expert"])
def test_real_time_chunking_is_refused_before_anything_runs(
    point_suite: str, tmp_path: Path, policy: str
) -> None:
    with pytest.raises(IncompatibleError, match="real-time chunking"):
        study_latency(
            replace(CONFIG, policy=policy), tmp_path / "out", executions=["sync", "rtc"], traces={"0": ()}
        )
    assert not (tmp_path / "out").exists()


def test_the_command_writes_a_table_numbers_and_a_page_with_the_curve(
    point_suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "robot.json").write_text("[0.1, 0.2]")
    command = (
        f"eval latency seer --suite point_suite --tasks reach --arms point --episodes 3 --workers 0 --quiet \
        --latencies 0 0.2 --traces {tmp_path}/robot.json --execution sync async --out {tmp_path}/study"
    )
    assert main(command.split()) == 0
    printed = capsys.readouterr().out
    assert "100.0 % [44, 100] (n=3)" in printed
    assert "robot (mean 0.150 s)" in printed
    stored = json.loads((tmp_path / "study/latency.json").read_text())["points"]
    assert [(p["execution"], p["latency"]) for p in stored[:3]] == [
        ("sync", "0"),
        ("async", "0"),
        ("sync", "0.2"),
    ]
    assert stored[1]["against_sync"]["n"] == 3
    page = (tmp_path / "study/report.html").read_text()
    assert 'aria-label="success against latency"' in page
    assert "the arm holds still" in page
    assert main(["report", str(tmp_path / "study")]) == 0
    assert "robot (mean 0.150 s)" in capsys.readouterr().out


def test_a_damaged_study_is_named_with_a_remedy(tmp_path: Path) -> None:
    for text in ('{"runs": [{}]}', '{"runs": []}', "{", "{}"):
        (tmp_path / "latency.json").write_text(text)
        with pytest.raises(ConfigError, match=r"(?s)latency\.json.*vla eval latency"):
            load_study(tmp_path)
