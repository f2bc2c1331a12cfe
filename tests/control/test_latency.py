"""While the policy thinks: each way of executing, on a replayed clock, and beside a robot."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.eval.fake_suite import point_embodiment
from vla.control.chunks import ChunkExecutor, Execution, ensembled, holding
from vla.control.latency import Background, Replayed, delay_steps, load_trace
from vla.control.safety import SafetyEnvelope
from vla.errors import ConfigError, IncompatibleError, UnknownNameError
from vla.testing import sample_observation
from vla.types import ActionChunk, Observation

ARM = point_embodiment()
SEEN = sample_observation(ARM)
STILL = 0.0


class Numbered:
    """Chunk number c holds c.0, c.1, ... in its first entry; continues a chunk where it is asked to."""

    contract = None

    def __init__(self, horizon: int = 8) -> None:
        self.horizon, self.asked = horizon, []

    def reset(self) -> None:
        self.asked = []

    def check_continues(self) -> None: ...

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        self.asked.append(observations[0])
        actions = np.zeros((self.horizon, 4), np.float32)
        actions[:, 0] = len(self.asked) + np.arange(self.horizon) / 10
        promise = observations[0].promise
        if promise is not None:
            actions[: promise.frozen] = promise.actions[: promise.frozen]
        return [ActionChunk(actions=actions, control_hz=10.0) for _ in observations]


def firsts(executor: ChunkExecutor, steps: int) -> list[float]:
    return [round(float(executor.act([SEEN])[0].actions[0, 0]), 1) for _ in range(steps)]


def executor(
    execution: Execution, latency_s: Sequence[float] = (), horizon: int = 2, policy: Numbered | None = None
) -> ChunkExecutor:
    return ChunkExecutor(
        policy or Numbered(),
        horizon,
        execution=execution,
        thinking=Replayed(latency_s),
        hold=holding(SafetyEnvelope(ARM)),
    )


def test_without_latency_each_way_executes_what_the_plain_one_does() -> None:
    plain = firsts(ChunkExecutor(Numbered(), 2), 12)
    assert firsts(executor("sync"), 12) == firsts(executor("async"), 12) == plain
    # a chunk that is executed whole has nothing in common with the next, and nothing to continue
    whole = firsts(ChunkExecutor(Numbered(), 8), 20)
    assert firsts(executor("rtc", horizon=8), 20) == whole
    one = [
        firsts(executor(how, horizon=1, policy=Numbered(1)), 5)
        for how in ("sync", "async", "ensemble", "rtc")
    ]
    assert one == [[1.0, 2.0, 3.0, 4.0, 5.0]] * 4


def test_the_delay_counts_in_simulated_steps() -> None:
    assert [delay_steps(s, 10.0) for s in (0.0, 0.09, 0.1, 0.3, 0.39)] == [0, 0, 1, 3, 3]
    # asked in step 0, there in step 3; two actions; asked in step 5, there in step 8
    expected = [STILL] * 3 + [1.0, 1.1] + [STILL] * 3 + [2.0, 2.1] + [STILL] * 3
    assert firsts(executor("sync", [0.3]), 13) == expected


def test_asynchronous_execution_goes_on_and_switches_to_the_present_moment() -> None:
    # asked again after 1.0 and 1.1; 1.2 .. 1.4 are executed meanwhile, the answer is read from its fourth
    assert firsts(executor("async", [0.3]), 13) == [STILL] * 3 + [
        1.0,
        1.1,
        1.2,
        1.3,
        1.4,
        2.3,
        2.4,
        2.5,
        3.3,
        3.4,
    ]


def test_a_chunk_that_is_used_up_is_followed_by_stillness_and_no_action_is_skipped_for_it() -> None:
    assert firsts(executor("async", [0.3], policy=Numbered(4)), 10) == [
        *[STILL] * 3, 1.0, 1.1, 1.2, 1.3, STILL, 2.2, 2.3,
    ]  # fmt: skip


def test_a_trace_is_replayed_exactly_from_a_place_that_the_seed_decides() -> None:
    trace = [0.0, 0.1, 0.2, 0.3, 0.5]

    def steps(seed: int) -> list[int]:
        replayed = Replayed(trace, (seed, 7))
        return [replayed.next_steps(10.0) for _ in range(10)]

    for seed in range(8):
        first = [0, 1, 2, 3, 5].index(steps(seed)[0])
        assert steps(seed) == ([0, 1, 2, 3, 5] * 3)[first : first + 10]
    assert len({steps(seed)[0] for seed in range(8)}) > 1
    again = executor("sync", trace)
    before = firsts(again, 20)
    again.reset()
    assert firsts(again, 20) == before


def test_the_ensemble_weighs_all_chunks_that_cover_the_moment() -> None:
    rows = np.array([[1.0], [2.0], [4.0]], np.float32)
    weights = np.exp([-0.0, -0.01, -0.02])
    assert ensembled(rows)[0] == pytest.approx(float(weights @ rows[:, 0] / weights.sum()))
    policy = Numbered(3)
    found = [
        float(executor_.act([SEEN])[0].actions[0, 0])
        for executor_ in [executor("ensemble", policy=policy)]
        for _ in range(4)
    ]
    assert len(policy.asked) == 4  # it asks whenever the policy is free
    assert found[1] == pytest.approx(float(ensembled(np.array([[1.1], [2.0]], np.float32))[0]))
    assert found[3] == pytest.approx(float(ensembled(np.array([[2.2], [3.1], [4.0]], np.float32))[0]))


def test_the_frozen_prefix_is_what_is_executed_while_the_policy_thinks() -> None:
    policy = Numbered()
    acting, executed = executor("rtc", [0.2], policy=policy), []
    for _ in range(14):
        asked = len(policy.asked)
        executed.append(acting.act([SEEN])[0].actions[0])
        if len(policy.asked) > asked and policy.asked[-1].promise is not None:
            began, promise = len(executed) - 1, policy.asked[-1].promise
            assert promise.frozen == 2
        elif len(policy.asked) > 1 and len(executed) == began + 2:
            np.testing.assert_array_equal(np.stack(executed[began:]), promise.actions[:2])
    assert policy.asked[0].promise is None  # there was nothing to continue
    assert len(policy.asked) > 4


def test_as_much_is_frozen_as_the_longest_of_the_last_delays() -> None:
    policy = Numbered()
    acting = executor("rtc", [0.3, 0.0, 0.1], policy=policy)
    acting._thinking._first = 0  # type: ignore[attr-defined]
    firsts(acting, 12)
    assert [asked.promise and asked.promise.frozen for asked in policy.asked[:4]] == [None, 3, 3, 3]


def test_a_new_instruction_discards_what_is_thought_about_and_nothing_old_is_executed() -> None:
    acting = executor("async", [0.2])
    assert firsts(acting, 4) == [STILL, STILL, 1.0, 1.1]
    other = replace(SEEN, instruction="stop that")
    found = [round(float(acting.act([other])[0].actions[0, 0]), 1) for _ in range(4)]
    assert found == [STILL, STILL, 2.0, 2.1]


def test_replanned_is_the_first_action_of_a_chunk_not_the_step_that_asked() -> None:
    acting = executor("sync", [0.1])
    infos = [acting.act([SEEN])[0].info for _ in range(5)]
    assert [info["replanned"] for info in infos] == [False, True, False, False, True]
    assert ["latency_s" in info for info in infos] == [False, True, False, False, True]


def test_a_policy_that_cannot_continue_a_chunk_is_refused_by_name() -> None:
    class Plain(Numbered):
        check_continues = None  # type: ignore[assignment]

    class Bare:
        contract = None

        def reset(self) -> None: ...

        def act(self, observations):  # type: ignore[no-untyped-def]
            raise AssertionError

    with pytest.raises(
        IncompatibleError, match=r"(?s)Bare is not compatible with real-time chunking.*flow or"
    ):
        ChunkExecutor(Bare(), 2, execution="rtc")
    with pytest.raises(UnknownNameError, match="async"):
        ChunkExecutor(Bare(), 2, execution="asink")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="hold"):
        ChunkExecutor(Bare(), 2, thinking=Replayed())


def test_beside_a_robot_a_thread_thinks_and_the_last_chunk_is_executed_on() -> None:
    gate, begun = threading.Semaphore(0), threading.Event()

    class Slow(Numbered):
        def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
            begun.set()
            assert gate.acquire(timeout=20)
            return super().act(observations)

    thinking = Background()
    acting = ChunkExecutor(Slow(), 2, execution="async", thinking=thinking, hold=holding(SafetyEnvelope(ARM)))

    def answered() -> None:
        gate.release()
        assert thinking._last is not None
        thinking._last.exception(timeout=20)

    assert firsts(acting, 3) == [STILL] * 3
    answered()
    assert firsts(acting, 4) == [1.0, 1.1, 1.2, 1.3]
    answered()
    assert firsts(acting, 1) == [2.2]
    assert begun.is_set()
    gate.release()
    acting.reset()


def test_what_goes_wrong_in_the_thread_is_raised_in_the_loop() -> None:
    class Broken(Numbered):
        def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
            raise ConfigError("out of memory")

    thinking = Background()
    acting = ChunkExecutor(Broken(), 2, thinking=thinking, hold=holding(SafetyEnvelope(ARM)))

    def two_steps() -> None:
        acting.act([SEEN])  # raises here where the thread is quick, else in the next step
        assert thinking._last is not None
        thinking._last.exception(timeout=20)
        acting.act([SEEN])

    with pytest.raises(ConfigError, match="out of memory"):
        two_steps()


def test_traces_are_read_from_lists_and_from_the_records_of_an_evaluation(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[0.1, 0]")
    (tmp_path / "named.json").write_text('{"latency_s": [0.25]}')
    lines = [{"latency_mean_s": 0.02}, {"latency_mean_s": 0.0, "error": "smoke"}, {"latency_mean_s": 0.03}]
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert load_trace(tmp_path / "list.json") == (0.1, 0.0)
    assert load_trace(tmp_path / "named.json") == (0.25,)
    assert load_trace(tmp_path) == load_trace(tmp_path / "records.jsonl") == (0.02, 0.03)


@pytest.mark.parametrize("text", ["[]", "[-0.1]", '["a"]', "{}", "3", "[NaN]", "[true]", "[0.1"])
def test_a_file_without_latencies_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "trace.json").write_text(text)
    with pytest.raises(ConfigError, match=r"trace\.json"):
        load_trace(tmp_path / "trace.json")
