import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.control.test_loop import Script
from tests.eval.fake_suite import PointEnv, PointExpert
from vla.cli import run as cli_run
from vla.control.loop import Command, run_loop
from vla.control.safety import SafetyEnvelope
from vla.conversation import Prompt
from vla.data.store import EpisodeStore
from vla.errors import ConfigError, UnknownNameError
from vla.report.video import SETTLE_STEPS, LiveVideo, VideoWriter, read_frames
from vla.robots.sim import SimRobot
from vla.session import SessionConfig, SessionResult, run_session
from vla_policies.trivial import ZeroPolicy

CONFIG = SessionConfig(robot="sim:point", suite="point_suite", policy="expert", realtime=False)


def talk(
    *lines: str, config: SessionConfig = CONFIG, first: str | None = None
) -> tuple[SessionResult, list[str]]:
    said: list[str] = []
    prompt = Prompt(io.StringIO("\n".join(lines) + "\n"), said.append)
    return run_session(config, first, prompt=prompt, say=said.append), said


def test_one_sentence_is_followed_and_filmed(point_suite: str, tmp_path: Path) -> None:
    config = SessionConfig(robot="sim:dot", suite=point_suite, policy="seer", video=tmp_path / "v.mp4")
    result = run_session(config, "reach the blue dot", say=lambda _: None)
    assert result.loop.success
    assert len(read_frames(tmp_path / "v.mp4")) == result.loop.steps + 1
    assert f"success after {result.loop.steps} steps" in str(result)
    assert "safety envelope: none" in str(result)


def test_without_a_sentence_the_prompt_is_asked_and_a_departed_person_ends_it(point_suite: str) -> None:
    result, said = talk("help", "reach the red dot")
    assert result.instruction == "reach the red dot"
    assert result.loop.success
    assert any("hold still" in line for line in said)


def test_reset_makes_a_new_scene_for_the_last_sentence(point_suite: str) -> None:
    result, said = talk("reach the blue dot", "reset", first="reach the red dot")
    assert (result.instruction, result.seed) == ("reach the blue dot", 1)
    assert 'point, scene 1: "reach the blue dot"' in said


def test_a_sentence_without_a_scene_is_answered_not_fatal(point_suite: str) -> None:
    result, said = talk("fly away", "reset", first="reach the red dot")
    assert result.instruction == "reach the red dot"
    assert sum("names no dot" in line for line in said) == 2


def test_quit_leaves_at_once(point_suite: str) -> None:
    result, _ = talk("quit", first="reach the red dot")
    assert (result.loop.ending, result.loop.steps) == ("quit", 0)


@pytest.mark.parametrize(
    ("robot", "words"), [("simm:point", "Did you mean 'sim'"), ("sim:pont", "Did you mean 'point'")]
)
def test_unknown_robots_and_arms_raise_with_the_right_name(point_suite: str, robot: str, words: str) -> None:
    with pytest.raises(UnknownNameError, match=words):
        run_session(SessionConfig(robot=robot, suite=point_suite), "reach the red dot")


def test_nothing_to_do_or_no_display_raise(point_suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="Say what to do"):
        run_session(CONFIG)
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match="no display"):
        run_session(SessionConfig(robot="sim:point", suite=point_suite, viewer=True), "reach the red dot")


def test_a_policy_that_refuses_the_arm_is_not_run(point_suite: str) -> None:
    config = SessionConfig(robot="sim:point", suite=point_suite, policy="seer,refuses=point")
    with pytest.raises(ConfigError, match="not made for point"):
        run_session(config, "reach the red dot", say=lambda _: None)


def test_words_that_the_policy_does_not_know_are_told_once_a_sentence(point_suite: str) -> None:
    config = replace(CONFIG, policy="seer", robot="sim:dot")
    _, said = talk("kindly reach the blue dot", config=config, first="please reach the red dot")
    assert [line for line in said if "does not know" in line] == [
        "The policy does not know 'kindly' and acts on the other words."
    ]
    said.clear()
    run_session(config, "please reach the red dot now", say=said.append)
    assert sum("does not know 'please', 'now'" in line for line in said) == 1


def test_the_film_keeps_the_end_of_a_motion_and_leaves_out_the_waiting(tmp_path: Path) -> None:
    env = PointEnv("reach", "point")
    operator = Script(s2=Command(kind="stop"), s30=Command(kind="quit"))
    with VideoWriter(tmp_path / "v.mp4", fps=10) as writer:
        film = LiveVideo(env, writer, size=64)
        result = run_loop(
            SimRobot(env, seed=0), PointExpert(env), SafetyEnvelope(env.embodiment),
            max_steps=100, hooks=[film], operator=operator,
        )  # fmt: skip
    assert result.steps == 30
    assert writer.num_frames == 1 + 2 + SETTLE_STEPS


def test_a_film_has_an_end_and_the_person_is_told(tmp_path: Path) -> None:
    env, said = PointEnv("reach", "point"), []
    with VideoWriter(tmp_path / "v.mp4", fps=10) as writer:
        film = LiveVideo(env, writer, size=64, max_s=0.4, say=said.append)
        run_loop(
            SimRobot(env, seed=0), ZeroPolicy(env.embodiment), SafetyEnvelope(env.embodiment),
            max_steps=20, hooks=[film],
        )  # fmt: skip
    assert writer.num_frames == 4
    assert said == [f"{tmp_path / 'v.mp4'} is 0.4 s long now: what follows is not filmed."]


def test_a_detailed_arm_is_asked_for_through_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, object]] = []

    def stop(*_: object, **wanted: object) -> None:
        made.append(wanted)
        raise KeyboardInterrupt

    monkeypatch.setattr("vla.session.scenes.sim_robot", stop)
    for flags in ([], ["--detailed"]):
        with pytest.raises(KeyboardInterrupt):
            cli_run.run(["pick the red cube", "--policy", "expert", "--headless", *flags])
    assert made == [{"seed": 0}, {"seed": 0, "detailed": True}]


def test_lines_are_read_without_the_loop_waiting(point_suite: str) -> None:
    class Never(io.StringIO):
        def __iter__(self) -> Iterator[str]:  # type: ignore[override]
            import threading

            threading.Event().wait(30)
            yield ""

    assert Prompt(Never()).poll() is None


def test_the_person_says_what_becomes_of_each_recorded_episode(point_suite: str, tmp_path: Path) -> None:
    config = replace(CONFIG, record=tmp_path / "r.zarr")
    _, said = talk(
        "success", "failure", "reach the blue dot", "success", "reach the red dot", "discard", "quit",
        config=config, first="reach the red dot",
    )  # fmt: skip
    assert "there is no episode to judge." in said
    assert any(line.startswith('discarded "reach the red dot", 1 steps') for line in said)
    with EpisodeStore.open(tmp_path / "r.zarr") as store:
        assert [(info.instruction, info.success) for info in store.episodes] == [
            ("reach the red dot", False),
            ("reach the blue dot", True),
        ]


def test_a_verdict_without_a_recording_says_how_to_record(point_suite: str) -> None:
    result, said = talk("success", "quit", first="reach the red dot")
    assert "nothing is recorded: vla run --record STORE does." in said
    assert result.instruction == "reach the red dot"


def test_a_policy_may_think_in_a_thread_while_the_arm_moves(point_suite: str) -> None:
    seer = replace(CONFIG, policy="seer", execution="async", realtime=True)
    assert run_session(seer, "reach the red dot").loop.success


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"realtime": False}, "vla eval latency"), ({"policy": "expert"}, "reads the simulation")],
)
def test_thinking_beside_a_simulation_that_does_not_wait_is_refused(
    point_suite: str, changes: dict[str, object], words: str
) -> None:
    asked = replace(CONFIG, **{"policy": "seer", "execution": "async", "realtime": True, **changes})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=words):
        run_session(asked, "reach the red dot")
