"""One arm in lerobot's own Python; run by scripts/check_lerobot_robots.py.

usage: lerobot's python scripts/lerobot_robots_side.py follower|wrapped|plugin PORT FOLDER ROUNDS

Prints one JSON line.
"""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
from lerobot.robots import make_robot_from_config
from lerobot.robots.so_follower import SO101FollowerConfig
from lerobot.utils.import_utils import register_third_party_plugins

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from vla.robots.actions import joint_embodiment
from vla.robots.lerobot import LerobotArm
from vla.robots.so101 import JOINTS, so101_kinematics
from vla.testing import check_robot

RATE_HZ, STEPS, AMPLITUDE_DEG, PERIOD_S = 30, 90, 15.0, 3.0


def follower(port: str, folder: Path, *, keep_torque: bool = False):
    """lerobot's own, its calibration taken from a file as its users have it."""
    (folder / "arm.json").write_text((folder / "theirs.json").read_text())
    config = SO101FollowerConfig(
        port=port, id="arm", calibration_dir=folder, disable_torque_on_disconnect=not keep_torque
    )
    return make_robot_from_config(config)


def plugin(port: str, folder: Path):
    """Ours, as lerobot finds it."""
    register_third_party_plugins()
    from lerobot_robot_vla import VlaRobotConfig

    config = VlaRobotConfig(
        id="ours",
        calibration_dir=folder / "unused",
        factory="vla.robots.so101:so101_from_files",
        arguments={"port": port, "calibration": str(folder / "ours.json")},
        joints=list(JOINTS),
    )
    return make_robot_from_config(config)


def follow_wave(robot, *, paced: bool) -> tuple[list[float], list[float], float]:
    """Milliseconds of each send and observation, and the largest error once it has got going, degrees."""
    first = robot.get_observation()
    start = {key: first[key] for key in robot.action_features}
    sends, looks, worst = [], [], 0.0
    due = time.monotonic()
    for step in range(STEPS):
        wave = AMPLITUDE_DEG * math.sin(2 * math.pi * step / RATE_HZ / PERIOD_S)
        goal = {key: value + (0.0 if key.startswith("gripper") else wave) for key, value in start.items()}
        began = time.monotonic()
        sent = robot.send_action(goal)
        sends.append(1e3 * (time.monotonic() - began))
        due += 1 / RATE_HZ
        if not paced:
            time.sleep(max(0.0, due - time.monotonic()))
        began = time.monotonic()
        seen = robot.get_observation()
        looks.append(1e3 * (time.monotonic() - began))
        worst = max(worst, *(abs(seen[key] - sent[key]) for key in start if not key.startswith("gripper")))
    return sends, looks, worst


def main() -> None:
    kind, port, folder, rounds = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    failures: list[str] = []
    sends: list[float] = []
    looks: list[float] = []
    worst = 0.0
    for number in range(rounds):
        try:
            if kind == "wrapped":
                kinematics = so101_kinematics()
                embodiment = joint_embodiment(
                    "so101", kinematics.low, kinematics.high, kinematics.home_q, control_hz=20.0
                )
                arm = LerobotArm(
                    follower(port, folder, keep_torque=True), JOINTS, "gripper", kinematics, embodiment
                )
                check_robot(arm)
                continue
            robot = follower(port, folder) if kind == "follower" else plugin(port, folder)
            robot.connect(calibrate=False)
            if not robot.is_calibrated:  # lerobot compares its file with the servos' memories
                failures.append(f"connection {number}: lerobot takes the calibration for another arm's")
            one = follow_wave(robot, paced=kind == "plugin")
            robot.disconnect()
        except (AssertionError, ConnectionError, OSError, RuntimeError) as error:
            failures.append(f"connection {number}: {type(error).__name__}: {error}")
            continue
        sends, looks, worst = sends + one[0], looks + one[1], max(worst, one[2])
    report = {"rounds": rounds, "failures": failures}
    if kind != "wrapped":
        report |= {
            "largest_error_deg": worst,
            **{
                f"{what}_ms_p{share}": float(np.percentile(values, share)) if values else None
                for what, values in (("send", sends), ("look", looks))
                for share in (50, 95)
            },
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
