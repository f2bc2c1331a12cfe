"""A benchmark behind a process: an environment like any other; its faults are told, nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.envs.fake_remote import WORLDS, FakeRemoteSuite
from vla import registry
from vla.data.generate import generate
from vla.data.store import EpisodeStore
from vla.errors import EnvError, UnknownNameError
from vla.eval.evaluate import evaluate
from vla.eval.grid import EvalConfig
from vla.interfaces import Cell, tasks_of
from vla.testing import check_suite
from vla_envs.remote.places import BenchmarkMissingError
from vla_envs.remote.process import BenchmarkProcess, RemoteError
from vla_envs.remote.serving import wire

ROOT = Path(__file__).parents[2]
STILL = np.array([0, 0, 0, -1], np.float32)


@pytest.fixture
def suite():
    made = FakeRemoteSuite()
    yield made
    made.process.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").exists() else True


def gone(pid: int, patience_s: float = 20) -> bool:
    end = time.monotonic() + patience_s
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def pid_of(process: BenchmarkProcess) -> int:
    assert process._process is not None
    return process._process.pid


def test_a_served_world_keeps_the_contract_of_every_env(suite: FakeRemoteSuite) -> None:
    check_suite(suite)


def test_its_expert_succeeds_and_actions_reach_it_in_its_own_units(suite: FakeRemoteSuite) -> None:
    env = suite.make("point", "sawyer")
    before, _ = env.reset(seed=3)
    after, *_ = env.step(np.array([0.01, 0, 0, -1], np.float32))
    moved = after["state"]["tcp_position"] - before["state"]["tcp_position"]
    np.testing.assert_allclose(moved, [0.01, 0, 0], atol=1e-6)
    for _ in range(40):
        _, _, terminated, truncated, info = env.step(env.expert_action())
        if terminated or truncated:
            break
    assert info["success"]


def test_labels_of_the_benchmark_come_with_the_info_and_not_with_what_a_policy_sees(
    suite: FakeRemoteSuite,
) -> None:
    env = suite.make("point", "sawyer")
    obs, info = env.reset(seed=3)
    assert set(obs) == {"images", "state", "instruction"}
    assert info["aux"]["goal_position"].dtype == np.float32
    while not info["success"]:
        obs, *_, info = env.step(env.expert_action())
    np.testing.assert_allclose(obs["state"]["tcp_position"], info["aux"]["goal_position"], atol=3e-3)


def test_what_a_benchmark_does_not_have_is_refused(suite: FakeRemoteSuite) -> None:
    env = suite.make("point", "sawyer")
    with pytest.raises(UnknownNameError, match="benchmarks do not have"):
        env.reset(seed=0, options={"variant": "swapped"})
    with pytest.raises(EnvError, match="before reset"):
        env.step(STILL)


def test_an_error_inside_carries_the_traceback_from_there_and_the_process_goes_on(
    suite: FakeRemoteSuite,
) -> None:
    env = suite.make("raises", "sawyer")
    env.reset(seed=0)
    with pytest.raises(RemoteError, match="divided by zero") as caught:
        env.step(STILL)
    assert "fake_worlds.py" in str(caught.value)
    assert caught.value.kind == "ZeroDivisionError"
    assert suite.make("point", "sawyer").reset(seed=0)[1]["success"] is False
    assert suite.process.generation == 1


def test_a_world_that_cannot_be_built_says_why(suite: FakeRemoteSuite) -> None:
    with pytest.raises(RemoteError, match="this world cannot be built"):
        suite.make("unbuildable", "sawyer")


def test_a_process_that_dies_is_quoted_and_started_again(suite: FakeRemoteSuite) -> None:
    env, other = suite.make("dies", "sawyer"), suite.make("point", "sawyer")
    env.reset(seed=0)
    state = other.reset(seed=5)[0]["state"]
    with pytest.raises(EnvError, match=r"exit code 7(.|\n)*last words of the benchmark"):
        env.step(STILL)
    env.close()
    with pytest.raises(EnvError, match="has ended"):
        other.step(STILL)
    np.testing.assert_array_equal(other.reset(seed=5)[0]["state"]["tcp_position"], state["tcp_position"])
    assert suite.process.generation == 2


def test_a_process_that_does_not_answer_is_ended() -> None:
    suite = FakeRemoteSuite(timeout_s=20)  # first generous: it has to start
    env = suite.make("hangs", "sawyer")
    env.reset(seed=0)
    pid = pid_of(suite.process)
    assert suite.process._connection is not None
    suite.process._connection.settimeout(0.2)
    with pytest.raises(EnvError, match="gave no answer"):
        env.step(STILL)
    assert gone(pid)


def test_no_process_outlives_its_suite_or_its_client() -> None:
    suite = FakeRemoteSuite()
    suite.make("point", "sawyer")
    pid = pid_of(suite.process)
    del suite
    assert gone(pid)
    code = (
        "from tests.envs.fake_remote import FakeRemoteSuite; import os, signal; s = FakeRemoteSuite();"
        "s.make('point', 'sawyer'); print(s.process._process.pid, flush=True); os.kill(os.getpid(), {0})"
    )
    for how in (signal.SIGKILL, signal.SIGTERM):
        client = subprocess.run(
            [sys.executable, "-c", code.format(int(how))],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert client.returncode == -how
        assert gone(int(client.stdout))


def test_a_server_of_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PROTOCOL", wire.PROTOCOL + 1)
    process = BenchmarkProcess("here", WORLDS)
    with pytest.raises(EnvError, match="speaks protocol 2, this package 3"):
        process.start()
    assert not process.is_running


def test_a_benchmark_that_is_not_installed_says_how_to_get_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("VLA_BENCHMARKS", str(tmp_path))
    with pytest.raises(BenchmarkMissingError, match="scripts/setup_benchmark metaworld"):
        registry.suite("vla_envs.metaworld.suite:MetaWorldSuite").make("reach-v3", "sawyer")


def test_states_are_returned_to_from_anywhere(suite: FakeRemoteSuite) -> None:
    env = suite.make("point", "sawyer")
    env.reset(seed=1)
    states, seen = [], []
    for k in range(5):
        obs, *_ = env.step(np.array([0.002 * k, -0.01, 0, 1], np.float32))
        states.append(env.save_state())
        seen.append(obs["state"]["tcp_position"])
    env.reset(seed=2)
    for k in (3, 1, 4, 0):
        np.testing.assert_array_equal(env.restore_state(states[k])["state"]["tcp_position"], seen[k])
        assert env.render_frame(8)[0, 0, 0] == k + 1


def test_fingerprints_tell_tasks_and_sizes_apart_and_nothing_else(suite: FakeRemoteSuite) -> None:
    prints = [suite.make(task, "sawyer", image_size=s).fingerprint for task, s in
              (("point", 16), ("point", 16), ("point_again", 16), ("point", 32))]  # fmt: skip
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_groups_stand_for_their_tasks(suite: FakeRemoteSuite) -> None:
    assert tasks_of(suite, ["hard", "both"]) == ("point_again", "point")
    with pytest.raises(UnknownNameError, match="easy"):
        tasks_of(suite, ["eazy"])


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(ROOT))
    return "tests.envs.fake_remote:FakeRemoteSuite"


@pytest.mark.parametrize("workers", [0, 1])
def test_the_evaluator_runs_it_and_gives_results_by_level(
    registered: str, tmp_path: Path, workers: int
) -> None:
    config = EvalConfig(
        suite=registered, policy="expert", tasks=("both",), num_seeds=2, workers=workers, audit="short"
    )
    summary = evaluate(config, tmp_path / "run", progress=False)
    assert summary.overall["base"].success.successes == 4
    assert set(summary.by_level) == {"easy", "hard"}
    assert summary.mean_of_levels("base") == 1.0


def test_an_audit_asks_for_nothing_that_a_benchmark_does_not_have(registered: str, tmp_path: Path) -> None:
    config = EvalConfig(
        suite=registered, policy="zero", tasks=("easy",), num_seeds=1, workers=0, audit="full"
    )
    summary = evaluate(config, tmp_path / "run", progress=False)
    assert not {"swapped", "heldout"} & set(summary.conditions)
    assert {"blank", "no_words", "frozen"} <= {name.rpartition(" ")[2] for name in summary.conditions}


def test_demonstrations_of_its_expert_fill_a_store(registered: str, tmp_path: Path) -> None:
    report = generate(
        registered, [Cell(task="point", embodiment="sawyer")], 3, tmp_path / "demos.zarr",
        image_size=16, num_workers=1, noise=None, progress=False,
    )  # fmt: skip
    assert report.added == 3
    with EpisodeStore.open(report.path) as store:
        assert [info.provenance["variant"] for info in store.episodes] == ["base"] * 3
        assert {int(info.provenance["seed"]) for info in store.episodes} == {1_000_000, 1_000_001, 1_000_002}
        assert {info.instruction for info in store.episodes} == {"Move the point to the goal"}
