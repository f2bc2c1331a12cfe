from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.control.bench_arm import GEOMETRY
from tests.eval.fake_suite import PointEnv, PointExpert, Seer
from vla.control.chunks import ChunkExecutor
from vla.control.loop import Command, LoopResult, Tick, run_loop
from vla.control.safety import SafetyConfig, SafetyEnvelope
from vla.errors import ConfigError, EnvError, IncompatibleError
from vla.interfaces import Policy
from vla.robots import Reading, Robot
from vla.robots.sim import SimRobot, sim_robot
from vla.types import ActionChunk, Observation


class Script:
    """An operator who says prepared things at prepared steps."""

    def __init__(self, **said: Command) -> None:
        self.said, self.step, self.told = {int(k[1:]): v for k, v in said.items()}, -1, []

    def poll(self) -> Command | None:
        self.step += 1
        return self.said.get(self.step)

    def tell(self, message: str) -> None:
        self.told.append(message)


class Log:
    def __init__(self) -> None:
        self.begun, self.ticks = 0, []

    def started(self, reading: Reading) -> None:
        self.begun += 1

    def ticked(self, tick: Tick) -> None:
        self.ticks.append(tick)


def run(robot: SimRobot | None = None, *, policy: Policy | None = None, **kwargs) -> tuple[LoopResult, Log]:  # type: ignore[no-untyped-def]
    robot = robot or SimRobot(PointEnv("reach", "point"), seed=0)
    log = Log()
    driver = policy or PointExpert(robot.env)  # type: ignore[arg-type]
    options = {"max_steps": 100, "hooks": [log], **kwargs}
    return run_loop(robot, driver, SafetyEnvelope(robot.embodiment), **options), log


def test_the_loop_ends_with_success_and_shows_every_turn() -> None:
    result, log = run()
    assert (result.ending, result.success) == ("success", True)
    assert [tick.index for tick in log.ticks] == list(range(result.steps))
    assert log.begun == 1
    assert log.ticks[-1].reading.info["success"]


def test_a_reading_follows_from_the_action_before_it() -> None:
    _, log = run()
    for before, after in zip(log.ticks, log.ticks[1:], strict=False):
        assert before.reading.observation is after.observation
    assert log.ticks[3].observation.time_s == pytest.approx(0.3)


def test_max_steps_ends_an_endless_loop() -> None:
    assert run(max_steps=3)[0].ending == "max_steps"
    with pytest.raises(ConfigError):
        run(max_steps=0)


def test_the_simulators_time_limit_ends_the_loop() -> None:
    class Still(PointExpert):
        def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
            chunks = super().act(observations)
            chunks[0].actions[:] = 0
            return chunks

    env = PointEnv("reach", "point")
    result, _ = run(SimRobot(env, seed=0), policy=Still(env))
    assert (result.ending, result.success, result.steps) == ("done", False, 25)


def test_an_error_stops_the_robot_before_it_leaves() -> None:
    class Broken(PointExpert):
        def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
            raise RuntimeError("the policy broke")

    robot = SimRobot(PointEnv("reach", "point"), seed=0)
    with pytest.raises(RuntimeError, match="the policy broke"):
        run(robot, policy=Broken(robot.env))  # type: ignore[arg-type]
    with pytest.raises(EnvError, match="stopped"):
        robot.command(robot.embodiment.action_low)


def test_an_instruction_changes_mid_motion_and_success_is_scored_on_it() -> None:
    result, log = run(operator=Script(s2=Command(kind="instruct", text="reach the blue dot")), max_steps=25)
    said = [tick.observation.instruction for tick in log.ticks]
    assert said[:2] != said[2:4]
    assert set(said[2:]) == {"reach the blue dot"}
    assert result.success


def test_an_instruction_that_cannot_be_followed_changes_nothing() -> None:
    operator = Script(s2=Command(kind="instruct", text="reach the green dot"))
    result, log = run(operator=operator, max_steps=20)
    assert len({tick.observation.instruction for tick in log.ticks}) == 1
    assert "names no dot" in operator.told[0]
    assert result.success


def test_stop_holds_the_arm_until_the_next_sentence() -> None:
    operator = Script(s1=Command(kind="stop"), s4=Command(kind="instruct", text="reach the red dot"))
    _, log = run(operator=operator, max_steps=6)
    assert [tick.chunk is None for tick in log.ticks] == [False, True, True, True, False, False]
    assert all((tick.safe.action[:3] == 0).all() for tick in log.ticks[1:4])


def test_after_success_the_arm_waits_for_the_next_sentence() -> None:
    operator = Script(s30=Command(kind="quit"))
    result, log = run(operator=operator)
    assert (result.ending, result.steps, operator.told) == ("quit", 30, ["done, holding still."])
    assert log.ticks[-1].chunk is None


def test_when_the_operator_leaves_what_was_begun_is_finished() -> None:
    result, _ = run(operator=Script(s1=Command(kind="leave")))
    assert (result.ending, result.success) == ("success", True)


class Clock:
    """Stands in for ``time``: it passes only while somebody sleeps or thinks."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, duration_s: float) -> None:
        self.slept.append(round(duration_s, 6))
        self.now += duration_s


def test_real_time_keeps_the_control_rate_and_counts_late_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, thinking_s = Clock(), iter([0.0, 0.04, 0.25, 0.04])

    class Thinker(PointExpert):
        def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
            clock.now += next(thinking_s)
            return super().act(observations)

    monkeypatch.setattr("vla.control.cadence.time", clock)
    monkeypatch.setattr("vla.control.loop.time", clock)
    env = PointEnv("reach", "point")
    result, _ = run(SimRobot(env, seed=0), policy=Thinker(env), max_steps=4, realtime=True)
    assert clock.slept == [0.1, 0.06, 0.06]
    assert (result.steps, result.overruns) == (4, 1)
    assert clock.now == pytest.approx(0.55)


def test_a_policy_sees_no_privileged_quantities_and_hooks_do() -> None:
    class Curious(PointExpert):
        def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
            assert [dict(o.aux) for o in observations] == [{}]
            return super().act(observations)

    env = PointEnv("reach", "point")
    result, log = run(SimRobot(env, seed=0), policy=Curious(env))
    assert result.success
    assert all("target_position" in tick.observation.aux for tick in log.ticks)


def test_a_chunk_for_another_rate_is_not_executed() -> None:
    class Fast(PointExpert):
        def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
            return [replace(chunk, control_hz=30.0) for chunk in super().act(observations)]

    env, log = PointEnv("reach", "point"), Log()
    with pytest.raises(IncompatibleError, match=r"30\.0 Hz, the arm runs at 10\.0 Hz"):
        run(SimRobot(env, seed=0), policy=Fast(env), hooks=[log])
    assert (env.steps, log.ticks) == (0, [])


def test_an_arm_that_the_policy_was_not_made_for_is_not_connected() -> None:
    robot = SimRobot(PointEnv("reach", "point"), seed=0)
    with pytest.raises(ConfigError, match="not made for point"):
        run(robot, policy=ChunkExecutor(Seer(refuses="point"), 2))
    with pytest.raises(EnvError, match="not connected"):
        robot.read()


def test_an_envelope_of_another_arm_or_without_the_arms_geometry_is_refused() -> None:
    robot = SimRobot(PointEnv("reach", "point"), seed=0)
    expert = PointExpert(robot.env)  # type: ignore[arg-type]
    with pytest.raises(IncompatibleError, match="envelope of 'dot'"):
        run_loop(robot, expert, SafetyEnvelope(PointEnv("reach", "dot").embodiment), max_steps=1)
    robot.geometry = GEOMETRY
    envelope = SafetyEnvelope(robot.embodiment)
    with pytest.raises(ConfigError, match=r"SafetyEnvelope\.of\(robot\)"):
        run_loop(robot, expert, envelope, max_steps=1)
    envelope = SafetyEnvelope(robot.embodiment, SafetyConfig(disabled=("collision",)))
    assert run_loop(robot, expert, envelope, max_steps=1).steps == 1


def test_after_a_new_instruction_nothing_old_is_reported() -> None:
    robot = SimRobot(PointEnv("reach", "point"), seed=0)
    result, _ = run(robot)
    assert result.success
    reading = robot.set_instruction("reach the blue dot")
    assert (reading.info["success"], reading.info["wrong"]) == (False, False)
    assert reading.observation.aux == {}
    assert robot.set_instruction("reach the red dot").observation.instruction == "reach the red dot"


def test_an_env_that_can_say_how_things_stand_is_asked_after_a_new_instruction() -> None:
    class Reporting(PointEnv):
        def current_info(self) -> dict[str, Any]:
            return self._info()

    robot = SimRobot(Reporting("reach", "point"), seed=0)
    run(robot)
    reading = robot.set_instruction("reach the blue dot")
    assert reading.info["instruction"] == "reach the blue dot"
    np.testing.assert_allclose(reading.observation.aux["target_position"], robot.env.dots["blue"], rtol=1e-6)  # type: ignore[attr-defined]


def test_a_simulated_arm_is_a_robot_and_refuses_commands_before_it_is_connected() -> None:
    robot = SimRobot(PointEnv("reach", "point"), seed=0)
    assert isinstance(robot, Robot)
    with pytest.raises(EnvError, match="connect"):
        robot.read()
    with pytest.raises(EnvError, match="stopped"):
        robot.command(robot.embodiment.action_low)


def test_connecting_again_gives_the_same_scene() -> None:
    robot = SimRobot(PointEnv("reach", "point"), seed=3)
    first = robot.connect().observation.images["front"].copy()
    robot.command(robot.embodiment.action_high)
    assert (robot.connect().observation.images["front"] == first).all()


def test_a_suite_that_cannot_search_scenes_says_so() -> None:
    class Deaf:
        name, tasks, embodiments = "deaf", ("reach",), ("point",)

    with pytest.raises(ConfigError, match="env_for_instruction"):
        sim_robot(Deaf(), "point", "reach the red dot", seed=0)  # type: ignore[arg-type]
