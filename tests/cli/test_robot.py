"""``vla robot``: the words a person types, against a simulated bus."""

import json
from pathlib import Path

import pytest

from vla.cli.main import main
from vla.robots.calibration import ArmCalibration
from vla_envs.counterparts.instruments import true_calibration
from vla_envs.counterparts.process import ServoCounterpart


def test_looking_at_an_arm_shows_every_servo_and_complains_by_exit_code(tmp_path: Path, capsys):
    with ServoCounterpart("feetech") as scene:
        true_calibration(scene).save(tmp_path / "arm.json")
        words = ["robot", "look", str(tmp_path / "arm.json"), "--port", scene.port]
        assert main(words) == 0
        said = capsys.readouterr().out
        assert all(name in said for name in (*scene.joints, "sts3215", "7.4 V", "limp"))
        scene.fault("voltage", 2)
        assert main(words) == 1
        assert "! servo 2 (shoulder_lift) reports voltage" in capsys.readouterr().out


def test_a_port_that_is_not_there_is_bad_input(tmp_path: Path, capsys):
    with ServoCounterpart("feetech") as scene:
        true_calibration(scene).save(tmp_path / "arm.json")
    assert main(["robot", "look", str(tmp_path / "arm.json"), "--port", "/dev/none"]) == 2
    assert "Ports here" in capsys.readouterr().err


def test_a_lerobot_calibration_is_taken_over(tmp_path: Path, capsys):
    motor = {"id": 1, "drive_mode": 0, "homing_offset": 5, "range_min": 800, "range_max": 3300}
    theirs = {"shoulder_pan": motor, "gripper": {**motor, "id": 6}}
    (tmp_path / "theirs.json").write_text(json.dumps(theirs))
    out = tmp_path / "arm.json"
    assert (
        main(["robot", "calibrate", "--out", str(out), "--from-lerobot", str(tmp_path / "theirs.json")]) == 0
    )
    assert "Directions are not in its file" in capsys.readouterr().out
    assert [servo.servo for servo in ArmCalibration.load(out)] == [1, 6]


@pytest.mark.parametrize("words", [["robot", "calibrate", "--out", "x.json"], ["robot", "dance"]])
def test_what_cannot_be_done_here_is_said(words: list[str], capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("vla: ")
