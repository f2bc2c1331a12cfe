"""A session with an arm that is no simulation: looked over, asked about, slow, or not moved at all."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.eval.fake_suite import PointEnv, point_embodiment
from vla.cli import run as cli_run
from vla.conversation import Prompt
from vla.data.store import EpisodeStore
from vla.errors import ConfigError, UnknownNameError
from vla.robots.named import ArmSettings, camera_sources, embodiment_of, open_arm
from vla.robots.sim import SimRobot
from vla.robots.slow import SlowRobot
from vla.session import HardwareConfig, SessionConfig, SessionResult, run_session

HERE = "tests.robots.hardware"
REACH = "reach the red dot"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def config(log: Path, kind: str = "point", speed: float = 1.0, **changes: object) -> SessionConfig:
    hardware = {name: changes.pop(name) for name in ("dry_run", "confirmed", "seconds") if name in changes}
    arm = ArmSettings(host=str(log), speed=speed)
    given = HardwareConfig(arm=arm, **{"seconds": 2.0, **hardware})  # type: ignore[arg-type]
    settings = {"policy": "seer", "planner": "", **changes}
    return SessionConfig(robot=f"{HERE}:{kind}", hardware=given, **settings)  # type: ignore[arg-type]


def ran(
    settings: SessionConfig, confirm: Callable[[str], bool] = lambda _: True
) -> tuple[SessionResult, str]:
    said: list[str] = []
    result = run_session(settings, REACH, say=said.append, confirm=confirm)
    return result, "\n".join(said)


def commands(log: Path) -> int:
    return sum(line.startswith("command") for line in log.read_text().splitlines())


def test_an_arm_is_looked_over_and_moves_when_the_person_says_so(point_suite: str, log: Path) -> None:
    asked: list[str] = []
    result, said = ran(config(log), confirm=lambda question: bool(asked.append(question) or True))
    assert len(asked) == 1
    for line in ("ok   arm: point", "ok   camera front: 32 x 32 px", "tool at (0.00, 0.19, 0.10) m", "you "):
        assert line in said
    assert result.loop.steps == commands(log) > 2


def test_it_does_not_move_when_the_person_does_not_say_so(point_suite: str, log: Path) -> None:
    with pytest.raises(ConfigError, match="Nobody said that it may move"):
        ran(config(log), confirm=lambda _: False)
    assert commands(log) == 0


def test_a_covered_lens_keeps_it_from_moving_whatever_was_confirmed(point_suite: str, log: Path) -> None:
    with pytest.raises(ConfigError, match=r"not moved:\n  - camera front: .*lens covered"):
        ran(config(log, "dark", confirmed=True))
    assert commands(log) == 0


def test_a_dry_run_shows_what_would_be_sent_and_sends_nothing(point_suite: str, log: Path) -> None:
    result, said = ran(config(log, dry_run=True, seconds=0.5), confirm=lambda _: pytest.fail("asked"))
    assert result.loop.steps == 5
    assert said.count("tcp_position_delta") == 5
    assert "m/step" in said
    assert commands(log) == 0


def test_slow_motion_takes_the_same_path(point_suite: str, tmp_path: Path) -> None:
    ends = []
    for speed in (1.0, 0.5):
        record = tmp_path / f"{speed}.zarr"
        ran(config(tmp_path / f"log{speed}", speed=speed, confirmed=True, record=record, seconds=1 / speed))
        with EpisodeStore.open(record) as store:
            ends.append(store.column(0, "executed"))
            assert store.episodes[0].provenance["speed"] == speed
            assert store.embodiments["point"].control_hz == 10
    assert np.allclose(*(end[:4] for end in ends), atol=1e-6)


def test_a_conversation_halts_connects_again_and_goes_on(point_suite: str, log: Path) -> None:
    said: list[str] = []
    lines = ("go", REACH, "halt", "reach the blue dot", "reset", "reach the blue dot", "quit")
    prompt = Prompt(io.StringIO("\n".join(lines) + "\n"), said.append)
    run_session(config(log), prompt=prompt)
    told = "\n".join(said)
    assert "STOPPED. halted" in told
    assert "stopped: say reset first." in told
    assert log.read_text().count("connect") == 3  # to look, for the first sentence, and after the reset


def test_nothing_of_a_simulation_is_taken_for_an_arm(point_suite: str, log: Path, tmp_path: Path) -> None:
    for changes, said in (
        ({"policy": "expert"}, "reads a simulation"),
        ({"video": tmp_path / "v.mp4"}, "leave out a film"),
        ({"planner": "rules"}, "judge openai:MODEL@URL"),
        ({"dry_run": True, "record": tmp_path / "r.zarr"}, "nothing to record"),
    ):
        with pytest.raises(ConfigError, match=said):
            ran(config(log, **changes))
    assert not log.exists()


def test_flags_of_a_real_arm_are_refused_in_simulation_and_the_other_way_round() -> None:
    with pytest.raises(ConfigError, match=r"sim:panda is a simulation: --host, --dry-run"):
        cli_run.run(["x", "--host", "10.0.0.1", "--dry-run"])
    with pytest.raises(ConfigError, match="found by --host: --host missing"):
        cli_run.run(["x", "--robot", "ur5e"])
    with pytest.raises(ConfigError, match="no use for --host"):
        ArmSettings(port="/dev/ttyACM0", calibration="c.json", host="x").need("port", "calibration")
    with pytest.raises(UnknownNameError, match="ur5e"):
        cli_run.run(["x", "--robot", "ur5"])


def test_cameras_are_named_and_said_once() -> None:
    assert camera_sources(("front=0", "wrist=/dev/video2")) == {"front": 0, "wrist": "/dev/video2"}
    for wrong in (("front",), ("=0",), ("front=0", "front=1")):
        with pytest.raises(ConfigError, match="NAME=SOURCE"):
            camera_sources(wrong)


def test_the_arm_of_the_policy_is_found_or_asked_for() -> None:
    known = {name: point_embodiment(name) for name in ("ur5e", "panda")}
    assert embodiment_of("ur5e", known, "").name == "ur5e"
    assert embodiment_of("fr3", known, "panda").name == "panda"
    assert embodiment_of("mine", {"panda": known["panda"]}, "").name == "panda"
    with pytest.raises(ConfigError, match=r"knows no arm 'fr3'; it knows ur5e, panda.*--embodiment"):
        embodiment_of("fr3", known, "")
    with pytest.raises(ConfigError, match="does not know an arm 'so101'"):
        embodiment_of("fr3", known, "so101")


def test_an_arm_at_another_rate_is_not_shown_as_a_slow_one(point_suite: str) -> None:
    with pytest.raises(ConfigError, match=r"at speed 0\.5 runs at 5 Hz, the robot at 10 Hz"):
        SlowRobot(SimRobot(PointEnv("reach", "point"), seed=0), point_embodiment(), 0.5)
    for speed in (0.0, 0.05, 1.5):
        with pytest.raises(ConfigError, match=r"expected 0\.1 \.\. 1"):
            ArmSettings(speed=speed)


def test_settings_reach_the_drivers_process_as_they_are(log: Path) -> None:
    arm = point_embodiment()
    settings = ArmSettings(host=str(log), cameras={"front": 0}, speed=0.5, embodiment=arm)
    assert ArmSettings.from_json(settings.to_json()) == settings
    robot = open_arm(f"{HERE}:point", settings)
    try:
        assert robot.embodiment == arm
    finally:
        robot.close()
