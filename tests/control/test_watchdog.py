"""Stalls and faults in real time, by a clock that passes only while somebody sleeps or works."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.control.test_loop import Clock, Script
from tests.eval.fake_suite import PointEnv, point_embodiment
from vla.control.cadence import Clock as LoopClock
from vla.control.chunks import ChunkExecutor, Execution, holding
from vla.control.latency import Answer, Think
from vla.control.loop import Command, LoopResult, run_loop
from vla.control.safety import SafetyConfig, SafetyEnvelope
from vla.embodiment import Field
from vla.errors import EnvError, IncompatibleError
from vla.robots import Reading
from vla.robots.sim import SimRobot
from vla.types import ActionChunk, Observation

PERIOD_S = 0.1
CONFIG = SafetyConfig(max_observation_age_s=0.4, max_policy_silence_s=0.6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("loop", "cadence", "chunks"):
        monkeypatch.setattr(f"vla.control.{module}.time", clock)
    clock.perf_counter = clock.monotonic  # type: ignore[attr-defined]
    return clock


class Live(SimRobot):
    """A live arm: says when a picture was taken, remembers what reached it and when it was stopped."""

    def __init__(self, clock: Clock, frozen_from_s: float = np.inf, *, stamps: bool = True) -> None:
        super().__init__(PointEnv("reach", "point"), seed=0)
        self.deadman_s, self.clock, self.frozen_from_s, self.stamps = 1.0, clock, frozen_from_s, stamps
        self.commanded: list[tuple[float, np.ndarray]] = []
        self.stops: list[float] = []
        self.breaks_at = np.inf

    def read(self) -> Reading:
        reading = super().read()
        seen_s = min(self.clock.now, self.frozen_from_s)
        observation = replace(reading.observation, time_s=seen_s)
        return replace(reading, observation=observation, taken_s=seen_s if self.stamps else None)

    def command(self, action: np.ndarray) -> Reading:
        self.commanded.append((self.clock.now, action))
        if len(self.commanded) == self.breaks_at:
            raise EnvError("protective stop")
        return super().command(action)

    def stop(self) -> None:
        self.stops.append(self.clock.now)
        super().stop()


class Wave:
    """Chunks of eight small steps along x."""

    contract = None

    def __init__(self) -> None:
        self.asked: list[float] = []

    def reset(self) -> None: ...

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        actions = np.zeros((8, 4), np.float32)
        actions[:, 0], actions[:, 3] = 0.001, -1
        return [ActionChunk(actions=actions, control_hz=10.0) for _ in observations]


class Takes:
    """Thinking beside the loop that takes so long for each question, in turn."""

    def __init__(self, clock: Clock, *seconds: float) -> None:
        self.clock, self.seconds, self.asked = clock, seconds, 0

    def ask(self, think: Think, step: int) -> Answer:
        due = self.clock.now + self.seconds[min(self.asked, len(self.seconds) - 1)]
        self.asked += 1
        clock, chunks = self.clock, think()

        class Due:
            def there(self, step: int) -> bool:
                return clock.now >= due - 1e-9

            def chunks(self) -> list[ActionChunk]:
                return chunks

        return Due()

    def reset(self) -> None: ...


def drive(
    robot: Live,
    clock: Clock,
    *seconds: float,
    execution: Execution = "async",
    steps: int = 60,
    **options: Any,
) -> tuple[LoopResult, SafetyEnvelope]:
    envelope = SafetyEnvelope(robot.embodiment, options.pop("config", CONFIG))
    policy = ChunkExecutor(
        Wave(), 2, execution=execution, thinking=Takes(clock, *seconds), hold=holding(envelope)
    )
    return run_loop(robot, policy, envelope, max_steps=steps, realtime=True, **options), envelope


def test_a_policy_of_200_ms_keeps_the_arm_moving_without_pauses(clock: Clock) -> None:
    robot = Live(clock)
    result, _ = drive(robot, clock, 0.2, steps=20)
    times = [when for when, _ in robot.commanded]
    np.testing.assert_allclose(np.diff(times), PERIOD_S, atol=1e-9)
    moving = [action[0] > 0 for _, action in robot.commanded]
    assert moving == [False, False] + [True] * 18  # it holds before the first chunk only
    assert (result.ending, result.overruns) == ("max_steps", 0)
    assert result.cadence is not None
    assert result.cadence.achieved_hz == pytest.approx(10.5, abs=0.6)


def test_a_policy_that_stops_answering_stops_the_arm_within_two_periods_of_the_limit(clock: Clock) -> None:
    robot = Live(clock)
    result, envelope = drive(robot, clock, 0.1, 0.1, 99.0)
    asked_s = max(when for when, _ in robot.commanded) - 0.6  # the third question
    assert result.ending == "stopped"
    assert result.fault.startswith("stalled: the policy has not answered for")
    assert robot.stops[0] - (asked_s + 0.6) <= 2 * PERIOD_S + 1e-9
    assert envelope.counts["stalled"] == 1
    # until then: the chunk to its end, then stillness (zero deltas), and the gripper as it was
    last = [action for _, action in robot.commanded][-1]
    np.testing.assert_array_equal(last, [0, 0, 0, -1])


@pytest.mark.parametrize("stamps", [True, False])
def test_a_frozen_camera_stops_the_arm_within_two_periods_of_the_limit(clock: Clock, stamps: bool) -> None:
    robot = Live(clock, frozen_from_s=1.05, stamps=stamps)
    result, envelope = drive(robot, clock, 0.1)
    assert (result.ending, envelope.counts["stale"]) == ("stopped", 1)
    assert "cameras" in result.fault
    assert 0 < robot.stops[0] - (1.05 + 0.4) <= 2 * PERIOD_S + 1e-9


def test_a_policy_that_thinks_in_place_for_too_long_does_not_act_on_what_it_saw(clock: Clock) -> None:
    class Slow(Wave):
        def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
            clock.now += 0.5
            return super().act(observations)

    robot = Live(clock)
    envelope = SafetyEnvelope(robot.embodiment, CONFIG)
    result = run_loop(robot, ChunkExecutor(Slow(), 2), envelope, max_steps=9, realtime=True)
    assert (result.ending, robot.commanded) == ("stopped", [])
    assert result.fault.startswith("stale")


def test_an_error_of_the_robot_stops_it_in_the_same_period(clock: Clock) -> None:
    robot = Live(clock)
    robot.breaks_at = 5
    with pytest.raises(EnvError, match="protective stop"):
        drive(robot, clock, 0.1)
    assert robot.stops == [robot.commanded[-1][0]]


def test_a_stop_stays_until_the_operator_resets_and_sentences_do_not_undo_it(clock: Clock) -> None:
    said = {12: Command(kind="instruct", text="reach the blue dot"), 14: Command(kind="stop")}
    operator = Script(**{f"s{k}": v for k, v in {**said, 17: Command(kind="reset")}.items()})
    robot = Live(clock, frozen_from_s=0.3)
    result, _ = drive(robot, clock, 0.1, operator=operator)
    assert (result.ending, operator.step) == ("reset", 17)
    assert operator.told[0].startswith("STOPPED. stale: ")
    assert operator.told[1:] == ["stopped: say reset first."] * 2
    assert all(when < robot.stops[0] for when, _ in robot.commanded)


def test_a_simulator_stands_still_while_it_waits_and_is_not_stopped(clock: Clock) -> None:
    class Slow(Wave):
        def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
            clock.now += 5.0
            return super().act(observations)

    robot = SimRobot(PointEnv("reach", "point"), seed=0)
    policy = ChunkExecutor(Slow(), 2)
    result = run_loop(robot, policy, SafetyEnvelope(robot.embodiment, CONFIG), max_steps=6, realtime=True)
    assert (result.ending, result.steps, result.overruns) == ("max_steps", 6, 3)


def test_turned_off_watchdogs_stop_nothing(clock: Clock) -> None:
    off = SafetyConfig(disabled=("stale", "stalled"), max_observation_age_s=0.2)
    result, envelope = drive(Live(clock, frozen_from_s=0.3), clock, 0.1, 99.0, config=off, steps=20)
    assert (result.ending, result.steps) == ("max_steps", 20)
    assert "stale" not in envelope.counts


def test_a_failing_stop_does_not_hide_what_went_wrong(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(Live):
        def stop(self) -> None:
            raise EnvError("no answer")

    robot = Stuck(clock)
    robot.breaks_at = 2
    with pytest.raises(EnvError, match="protective stop"):
        drive(robot, clock, 0.1)
    assert "could not be stopped: no answer" in caplog.text


def test_the_cadence_says_where_the_time_went(clock: Clock) -> None:
    def busy(seconds: float) -> Callable[[], None]:
        return lambda: setattr(clock, "now", clock.now + seconds)

    loop = LoopClock(10.0)
    for spent in (0.02, 0.02, 0.2, 0.02):
        with loop.spending("policy"):
            busy(spent)()
        with loop.spending("command"):
            busy(0.01)()
        loop.wait()
    cadence = loop.cadence()
    assert (cadence.turns, cadence.overruns) == (4, 1)
    assert cadence.parts_ms["policy"] == pytest.approx((20, 173, 200))
    assert cadence.text().startswith(
        "9.1 Hz of 10, 1 of 4 turns over budget; p50/p95 in ms: policy 20.0/173.0"
    )


# --- what may be averaged


def rotated(**changes: Any) -> Any:
    point = point_embodiment()
    turn: dict[str, Any] = {
        "name": "turn", "size": 3, "unit": "rad", "frame": "world", "mode": "delta", "low": (-1,) * 3,
        "high": (1,) * 3, "slot": "arm0.tcp_rotation_delta", "rotation_format": "rotvec",
    }  # fmt: skip
    return replace(point, action=(*point.action, Field(**{**turn, **changes})))


def test_averaging_rotations_is_refused_by_name_and_small_turns_are_not() -> None:
    ensemble = ChunkExecutor(Wave(), 2, execution="ensemble")
    ensemble.check(point_embodiment())
    ensemble.check(rotated())
    quaternion = {
        "size": 4,
        "low": (-1,) * 4,
        "high": (1,) * 4,
        "mode": "absolute",
        "rotation_format": "quat_wxyz",
    }
    absolute = {"mode": "absolute", "rotation_format": "euler_xyz"}
    for changes in ({**quaternion, "slot": "arm0.tcp_rotation"}, absolute):
        with pytest.raises(
            IncompatibleError, match=rf"'turn' holds a rotation as '{changes['rotation_format']}'"
        ):
            ensemble.check(rotated(**changes))
    ChunkExecutor(Wave(), 2, execution="async").check(rotated(**absolute))


def test_an_arm_whose_rotations_cannot_be_averaged_does_not_move() -> None:
    class Turning(PointEnv):
        def __init__(self) -> None:
            super().__init__("reach", "point")
            self.embodiment = rotated(mode="absolute", rotation_format="euler_xyz")

    robot = SimRobot(Turning(), seed=0)
    policy = ChunkExecutor(Wave(), 2, execution="ensemble")
    with pytest.raises(IncompatibleError, match="temporal ensembling"):
        run_loop(robot, policy, SafetyEnvelope(robot.embodiment), max_steps=3)
    with pytest.raises(EnvError, match="not connected"):
        robot.read()


def test_grippers_are_those_of_the_newest_chunk_never_halfway() -> None:
    class Undecided(Wave):
        def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
            self.asked.append(0)
            actions = np.full((8, 4), float(len(self.asked)), np.float32)
            actions[:, 3] = 1 if len(self.asked) % 2 else -1
            return [ActionChunk(actions=actions, control_hz=10.0)]

    seen = SimRobot(PointEnv("reach", "point"), seed=0).connect().observation
    ensemble = ChunkExecutor(Undecided(), 1, execution="ensemble")
    ensemble.check(point_embodiment())
    found = np.array([ensemble.act([seen])[0].actions[0] for _ in range(4)])
    np.testing.assert_array_equal(found[:, 3], [1, -1, 1, -1])
    assert found[1, 0] == pytest.approx(1.5, abs=0.01)
