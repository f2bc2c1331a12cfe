import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from vla.cli import eval as cli_eval
from vla.errors import ConfigError, EnvError, ObservationError, StoreError, UnknownNameError, VlaError
from vla.eval.evaluate import evaluate, load_summary, write_summary
from vla.eval.grid import EvalConfig, remember_config
from vla.eval.intervals import Rate
from vla.eval.records import read_records
from vla.eval.runners import make_env
from vla.files import exclusive
from vla.report.tables import summary_text

CONFIG = EvalConfig(
    suite="point_suite", policy="seer", tasks=("reach",), embodiments=("point",), num_seeds=6, workers=0
)


def run(out: Path, **changes: object):  # type: ignore[no-untyped-def]
    return evaluate(replace(CONFIG, **changes), out, progress=False)  # type: ignore[arg-type]


def test_base_swapped_and_blank_stand_beside_each_other(point_suite: str, tmp_path: Path) -> None:
    summary = run(tmp_path, variants=("base", "swapped"), ablations=("none", "blank"))
    assert summary.conditions[0] == "base"
    assert summary.overall["base"].success == Rate(6, 6)
    assert summary.overall["swapped"].success == Rate(6, 6)
    assert summary.overall["base blank"].success.successes <= 1
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored["overall"]["base"]["success"]["n"] == 6
    assert "100.0 % [61, 100] n=6" in (tmp_path / "summary.txt").read_text()


def test_workers_give_the_same_outcomes_as_one_process(point_suite: str, tmp_path: Path) -> None:
    def outcomes(out: Path) -> list[tuple[object, ...]]:
        return sorted((r.key, r.success, r.steps, r.instruction) for r in read_records(out / "records.jsonl"))

    run(tmp_path / "one", policy="random", embodiments=())
    run(tmp_path / "two", policy="random", embodiments=(), workers=2)
    assert outcomes(tmp_path / "one") == outcomes(tmp_path / "two")


def test_a_resumed_run_does_only_what_is_missing(point_suite: str, tmp_path: Path) -> None:
    run(tmp_path)
    path = tmp_path / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:-9])
    summary = run(tmp_path)
    assert summary.overall["base"].success.n == 6
    assert path.read_bytes().splitlines(keepends=True)[:3] == lines[:3]
    assert len(path.read_bytes().splitlines()) == 6


def test_more_seeds_can_be_added_later(point_suite: str, tmp_path: Path) -> None:
    run(tmp_path, num_seeds=2)
    assert run(tmp_path, num_seeds=5).num_episodes == 5
    assert run(tmp_path, num_seeds=3).num_episodes == 3


def test_other_settings_in_the_same_folder_are_refused(point_suite: str, tmp_path: Path) -> None:
    run(tmp_path, num_seeds=1)
    with pytest.raises(ConfigError, match="another evaluation"):
        run(tmp_path, num_seeds=1, execution_horizon=1)


def test_new_weights_under_the_same_path_do_not_mix_with_old_records(
    point_suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, num_seeds=1)
    monkeypatch.setenv("FAKE_SUITE_WEIGHTS", "def")
    with pytest.raises(ConfigError, match="weights_sha256: 'abc' there, 'def' now"):
        run(tmp_path, num_seeds=2)


def test_crashed_episodes_are_failures_with_their_error(point_suite: str, tmp_path: Path) -> None:
    summary = run(tmp_path, tasks=("raises",), policy="expert")
    group = summary.overall["base"]
    assert (group.success, group.errors) == (Rate(3, 6), 3)
    errors = [r.error for r in read_records(tmp_path / "records.jsonl") if r.error]
    assert errors == ["EnvError: the motor smokes"] * 3


def test_too_many_crashes_stop_the_run(point_suite: str, tmp_path: Path) -> None:
    with pytest.raises(EnvError, match="2 episodes crashed, the last with: EnvError: the motor smokes"):
        run(tmp_path, tasks=("raises",), policy="expert", max_errors=2)
    assert len(read_records(tmp_path / "records.jsonl")) == 4


def test_a_worker_that_dies_is_replaced_and_its_episodes_run(
    point_suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FAKE_SUITE_DIES_ONCE", str(tmp_path / "died"))
    summary = run(tmp_path / "run", tasks=("dies",), policy="expert", workers=1)
    assert summary.overall["base"].success == Rate(6, 6)
    assert "died (exit code 9)" in caplog.text


def test_an_episode_that_kills_twice_is_recorded_as_crashed(
    point_suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAKE_SUITE_DIES_ONCE", raising=False)
    summary = run(tmp_path, tasks=("dies",), policy="expert", workers=1, num_seeds=3)
    group = summary.overall["base"]
    assert (group.success, group.errors) == (Rate(2, 3), 1)


def test_a_policy_that_refuses_an_arm_stops_everything_before_it_runs(
    point_suite: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="not made for dot"):
        run(tmp_path / "out", policy="seer,refuses=dot", embodiments=("point", "dot"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_policy_that_cannot_read_what_it_sees_stops_the_run_instead_of_crashing_episodes(
    point_suite: str, tmp_path: Path, workers: int
) -> None:
    with pytest.raises((ObservationError, EnvError), match="32 px, not 64"):
        run(tmp_path, policy="seer,size=64", workers=workers)
    assert read_records(tmp_path / "records.jsonl") == []


def test_two_evaluations_do_not_write_into_one_folder(point_suite: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with exclusive(out, "evaluating"), pytest.raises(VlaError, match=f"evaluating in {out}"):
        run(out, num_seeds=1)
    assert run(out, num_seeds=1).num_episodes == 1


def test_every_session_is_remembered_and_several_code_versions_are_told(
    point_suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vla.eval.provenance._commit", lambda: "aaa")
    assert "code versions" not in summary_text(run(tmp_path, num_seeds=1))
    run(tmp_path, num_seeds=1)  # nothing to do: no session
    monkeypatch.setattr("vla.eval.provenance._commit", lambda: "bbb")
    assert "2 code versions" in summary_text(run(tmp_path, num_seeds=3))
    sessions = json.loads((tmp_path / "provenance.json").read_text())["sessions"]
    assert [(s["commit"], s["records_before"]) for s in sessions] == [("aaa", 0), ("bbb", 1)]
    assert all(s["time"].endswith("+00:00") for s in sessions)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("config.json", '{"suite": "poi', ConfigError),
        ("config.json", '{"suite": "point_suite", "safety": {"x": 1}}', ConfigError),
        ("provenance.json", "[1]", StoreError),
        ("provenance.json", '{"sessions": 3}', StoreError),
    ],
)
def test_damaged_files_of_a_run_are_named_with_a_remedy(
    point_suite: str, tmp_path: Path, name: str, content: str, error: type[VlaError]
) -> None:
    run(tmp_path, num_seeds=1)
    (tmp_path / name).write_text(content)
    with pytest.raises(error, match=rf"{name} is damaged.*Remove it"):
        load_summary(tmp_path)


def test_a_writer_that_dies_leaves_the_last_whole_summary(
    point_suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, num_seeds=1)
    before = (tmp_path / "summary.json").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_summary(*load_summary(tmp_path)[:1], tmp_path, [], [])
    assert (tmp_path / "summary.json").read_bytes() == before


def test_detailed_arms_are_asked_for_through_the_command_line_and_are_another_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[EvalConfig] = []

    def stop(config: EvalConfig, *_: object, **__: object) -> None:
        asked.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("vla.eval.evaluate.evaluate", stop)
    for flags in (["--policy", "expert"], ["--policy", "expert", "--detailed"]):
        with pytest.raises(KeyboardInterrupt):
            cli_eval.run(flags)
    made: list[dict[str, object]] = []
    suite = SimpleNamespace(make=lambda task, arm, **wanted: made.append(wanted))
    for config in asked:
        make_env(suite, config, "pick", "panda")  # type: ignore[arg-type]
    assert made == [{}, {"detailed": True}]
    remember_config(asked[0], tmp_path / "config.json")
    with pytest.raises(ConfigError, match="detailed: False there, True now"):
        remember_config(asked[1], tmp_path / "config.json")


def test_the_policys_own_horizon_and_image_size_are_taken(point_suite: str, tmp_path: Path) -> None:
    run(tmp_path, num_seeds=1)
    config, _, _ = load_summary(tmp_path)
    assert (config.execution_horizon, config.image_size) == (2, 32)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"suite": "point_sweet"}, "point_suite"),
        ({"policy": "sear"}, "seer"),
        ({"policy": "seer,refuse=x"}, "refuses"),
        ({"tasks": ("rech",)}, "reach"),
    ],
)
def test_misspelt_names_raise_with_the_right_ones(
    point_suite: str, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(UnknownNameError, match=words):
        run(tmp_path, **changes)


def test_first_episodes_and_failures_are_filmed(point_suite: str, tmp_path: Path) -> None:
    run(tmp_path, policy="expert", videos_per_cell=2)
    assert sorted(p.name for p in (tmp_path / "videos").iterdir()) == [
        "reach-point-base-0.mp4",
        "reach-point-base-1.mp4",
    ]
    run(tmp_path / "zero", policy="zero", failure_videos_per_cell=1)
    assert len(list((tmp_path / "zero" / "videos").iterdir())) == 1


def test_an_interrupt_leaves_valid_files_and_no_processes(point_suite: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from vla.eval.evaluate import evaluate
        from vla.eval.grid import EvalConfig
        if __name__ == "__main__":
            evaluate(EvalConfig(suite="point_suite", policy="expert", tasks=("reach",), num_seeds=50_000,
                                workers=1), Path({str(out)!r}), progress=False)
        """
    )
    (tmp_path / "go.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "go.py")],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(read_records(out / "records.jsonl")) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    records = read_records(out / "records.jsonl")
    assert len(records) >= 3
    assert json.loads((out / "summary.json").read_text())["num_episodes"] == len(records)
    while living(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert living(process.pid) == []


def living(group: int) -> list[int]:
    """Processes of a group that have not ended."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found
