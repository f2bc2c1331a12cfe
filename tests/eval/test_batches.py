"""Episodes run side by side off one policy: the same records whoever runs them, and after whatever."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.eval.fake_suite import Crowd, PointSuite
from vla.errors import ActionError, ConfigError
from vla.eval.evaluate import evaluate
from vla.eval.grid import EvalConfig
from vla.eval.groups import Group
from vla.eval.intervals import Rate
from vla.eval.records import EpisodeKey, EpisodeRecord, read_records
from vla.eval.runners import GroupRunner
from vla.types import ActionChunk

CONFIG = EvalConfig(
    suite="point_suite", policy="crowd", tasks=("reach",), num_seeds=7, batch=3, workers=0,
    ablations=("none", "frozen"), failure_videos_per_cell=0,
)  # fmt: skip
GROUP = [EpisodeKey(task="reach", embodiment="point", seed=seed) for seed in range(3)]


def run(out: Path, **changes: Any) -> dict[EpisodeKey, EpisodeRecord]:
    evaluate(replace(CONFIG, **changes), out, progress=False)
    return told(out)


def told(out: Path) -> dict[EpisodeKey, EpisodeRecord]:
    """What the records say, but for the time that it took."""
    records = read_records(out / "records.jsonl")
    assert len({record.key for record in records}) == len(records)
    return {record.key: replace(record, latency_mean_s=0.0, latency_p95_s=0.0) for record in records}


def runner_of(policy: Crowd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GroupRunner:
    monkeypatch.setattr("tests.eval.fake_suite.make_crowd", lambda: policy)
    return GroupRunner(replace(CONFIG, execution_horizon=2), tmp_path, PointSuite())


def test_one_and_two_workers_and_none_give_identical_records(point_suite: str, tmp_path: Path) -> None:
    here = run(tmp_path / "0")
    assert len(here) == 28
    assert len({record.actions for record in here.values()}) > 7  # both arms are alike
    assert run(tmp_path / "1", workers=1) == here
    assert run(tmp_path / "2", workers=2) == here


def test_company_changes_what_this_policy_does_so_the_test_above_can_fail(
    point_suite: str, tmp_path: Path
) -> None:
    three, one = run(tmp_path / "3"), run(tmp_path / "1", batch=1)
    plain = [key for key in three if key.ablation == "none" and key.seed < 6]
    assert all(three[key].actions != one[key].actions for key in plain)


@pytest.mark.parametrize("left", [1, 4, 17])
def test_a_killed_run_that_goes_on_ends_with_the_records_of_one_that_was_not_killed(
    point_suite: str, tmp_path: Path, left: int
) -> None:
    whole = run(tmp_path / "run")
    path = tmp_path / "run/records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:left]) + lines[left][:20])
    assert run(tmp_path / "run", workers=2) == whole
    assert path.read_bytes().splitlines(keepends=True)[:left] == lines[:left]
    assert len(path.read_bytes().splitlines()) == len(lines)


def test_a_policy_is_asked_once_for_all_that_wait(
    point_suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    class Counting(Crowd):
        def act(self, observations: Any) -> list[ActionChunk]:
            asked.append([seen.episode for seen in observations])
            return super().act(observations)

    runner = runner_of(Counting(), monkeypatch, tmp_path)
    records = list(runner.run(Group(keys=tuple(GROUP), wanted=frozenset(GROUP))))
    runner.close()
    assert [record.key for record in records] == GROUP
    assert asked[0] == [0, 1, 2]
    assert len(asked) == max((record.steps + 1) // 2 for record in records)
    assert sum(map(len, asked)) == sum((record.steps + 1) // 2 for record in records)


def test_a_scene_that_crashes_leaves_its_company_alone(point_suite: str, tmp_path: Path) -> None:
    records = run(tmp_path, tasks=("raises",), embodiments=("point",), ablations=("none",))
    assert [bool(records[key].error) for key in sorted(records)] == [False, True] * 3 + [False]
    assert all(record.success for record in records.values() if not record.error)


@pytest.mark.parametrize("once", [True, False])
def test_a_worker_that_dies_loses_no_episode_of_its_group(
    point_suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, once: bool
) -> None:
    monkeypatch.delenv("FAKE_SUITE_DIES_ONCE", raising=False)
    if once:
        monkeypatch.setenv("FAKE_SUITE_DIES_ONCE", str(tmp_path / "died"))
    config = replace(CONFIG, tasks=("dies",), embodiments=("point",), ablations=("none",), workers=1)
    summary = evaluate(replace(config, num_seeds=3), tmp_path / "run", progress=False)
    group = summary.overall["base"]
    assert (group.success, group.errors) == ((Rate(3, 3), 0) if once else (Rate(2, 3), 1))


def test_what_the_policy_cannot_answer_stops_the_run_and_ctrl_c_leaves_nobody_waiting(
    point_suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Crowd):
        def act(self, observations: Any) -> list[ActionChunk]:
            raise self.error

    policy = Failing()
    runner = runner_of(policy, monkeypatch, tmp_path)
    for error in (ActionError("cannot"), KeyboardInterrupt()):
        policy.error = error  # type: ignore[attr-defined]
        with pytest.raises(type(error)):
            list(runner.run(Group(keys=tuple(GROUP), wanted=frozenset(GROUP))))
    runner.close()


def test_policies_made_for_one_scene_and_stores_are_refused_a_batch(point_suite: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="answers for one: batch 1, not 3"):
        run(tmp_path, policy="expert")
    with pytest.raises(ConfigError, match="record with batch 1"):
        replace(CONFIG, record="somewhere.zarr")
