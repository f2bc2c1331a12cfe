"""The ROS 2 driver as a node (rclpy) against the counterpart's: contract, motion, stop, faults, recovery.

    scripts/setup_ros2
    export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
    .venv-ros2/bin/python scripts/check_ros2.py --out docs/results/ros2.json

By way of rosbridge the same is tested by ``tests/robots/test_ros2.py``. Prints what held, and as its last
line everything as JSON; exits 1 where something did not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from vla.errors import RobotError
from vla.robots.checks import check_robot
from vla.robots.ros2 import Ros2Robot
from vla_envs.counterparts.ros.robot import counterpart_robot
from vla_envs.counterparts.running import Counterpart, ros_counterpart

HOST = "127.0.0.42"
ASIDE = np.array([0, 0.01, 0, 0, -1], np.float32)
FAULTS = {
    "lost_socket": "joint_state_broadcaster is lost",
    "silent": "joint_state_broadcaster is lost",
    "missing_joint": "joint_states lacks wrist_3_joint",
    "nan_joint": "not finite",
    "inactive": "is the controller active",
    "blocked": "something in the way",
    "protective_stop": "is the controller active",
}


def drive(robot: Ros2Robot, steps: int) -> None:
    for _ in range(steps):
        robot.command(ASIDE)
        time.sleep(0.1)


def refusal(robot: Ros2Robot) -> tuple[str, float]:
    """What the driver says once it has noticed, and after how many seconds."""
    began = time.monotonic()
    while time.monotonic() < began + 5:
        try:
            robot.command(ASIDE)
        except RobotError as error:
            return str(error), time.monotonic() - began
        time.sleep(0.05)
    return "", 5.0


def at_rest(counterpart: Counterpart) -> bool:
    time.sleep(0.4)
    before = counterpart.state()["q"]
    time.sleep(0.3)
    return bool(np.abs(counterpart.state()["q"] - before).max() < 2e-3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    held: dict[str, bool] = {}
    noticed_s: dict[str, float] = {}
    with ros_counterpart(HOST, transport="rclpy") as counterpart:
        robot = counterpart_robot(HOST, rclpy=True)
        check_robot(robot, settle_s=0.3)
        held["contract"] = True
        counterpart.set_scene("pick", 0)
        start = robot.connect().observation.state["tcp_position"]
        drive(robot, 5)
        time.sleep(0.2)
        moved = robot.read().observation.state["tcp_position"] - start
        held["five steps of 1 cm"] = bool(np.abs(moved - [0, 0.05, 0]).max() < 3e-3)
        robot.stop()
        held["stop"] = at_rest(counterpart)
        held["recover"] = robot.recover() == "ready"
        for fault, said in FAULTS.items():
            counterpart.set_scene("pick", 0)
            robot.connect()
            drive(robot, 2)
            counterpart.fault(fault)
            text, noticed_s[fault] = refusal(robot)
            held[f"fault {fault}"] = said in text and at_rest(counterpart)
            counterpart.fault("clear")
            if fault == "protective_stop":
                robot.recover()
        robot.connect()
        drive(robot, 2)
        robot.close()
    for name, good in held.items():
        print(f"{name:24s} {'held' if good else 'DID NOT HOLD'}")
    row = {
        "claim": "the ROS 2 driver as a node (rclpy, Fast DDS) against a node of ros2_control's topics: "
        "contract, motion, stop, recovery, and faults named with the arm at rest",
        "target": "all hold",
        "measured": f"{sum(held.values())} of {len(held)} held; faults were named after "
        f"{min(noticed_s.values()):.2f} to {max(noticed_s.values()):.2f} s (rclpy {version('rclpy')})",
        "command": ".venv-ros2/bin/python scripts/check_ros2.py --out docs/results/ros2.json",
        "met": all(held.values()),
        "noticed_s": {name: round(value, 3) for name, value in noticed_s.items()},
    }
    if flags.out:
        flags.out.write_text(json.dumps(row) + "\n")
    print(json.dumps(row))
    return int(not row["met"])


if __name__ == "__main__":
    sys.exit(main())
