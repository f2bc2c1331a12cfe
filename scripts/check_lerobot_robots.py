"""lerobot's own SO-101 driver on the simulated servo bus, as one of our robots, and ours as one of lerobot's.

usage: python scripts/check_lerobot_robots.py [--out docs/results/lerobot_robots.json]

Each of the three runs in lerobot's own Python (see scripts/lerobot_peer.py) against a bus of STS3215 servos
in a process of its own, in real time:

follower  lerobot's SO101Follower as it is: connects, follows a slow wave at 30 Hz, disconnects; several times
wrapped   the same follower behind vla.robots.lerobot.LerobotArm passes vla.testing.check_robot
plugin    our driver through the distribution lerobot_robot_vla, found by lerobot by its name, follows it
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import tyro
from lerobot_peer import ROOT, add_extras, lerobot_python, run_in_peer

from vla.robots.calibration import ArmCalibration
from vla_envs.counterparts.instruments import true_calibration
from vla_envs.counterparts.process import ServoCounterpart

SIDE = Path(__file__).with_name("lerobot_robots_side.py")
PLUGIN = ROOT / "plugins/lerobot_robot_vla"
#: Largest error of a joint that follows the wave, degrees (it moves on while it is measured).
LARGEST_ERROR_DEG = 3.0


@dataclass(frozen=True)
class Check:
    """What is run.

    Args:
        rounds: connections of each.
        out: JSON to write; printed only if not given.
    """

    rounds: int = 5
    out: Path | None = None


def prepare_peer() -> None:
    """Feetech's client, MuJoCo and our plugin into lerobot's Python."""
    add_extras(["feetech"])
    pip = [str(lerobot_python()), "-m", "pip", "install", "-q"]
    subprocess.run([*pip, f"mujoco=={mujoco.__version__}"], check=True)
    subprocess.run([*pip, "--no-deps", str(PLUGIN)], check=True)


def lerobot_calibration(calibration: ArmCalibration) -> dict[str, dict[str, int]]:
    """The same in the format of lerobot's calibration files."""
    return {
        servo.name: {
            "id": servo.servo, "drive_mode": 0, "homing_offset": servo.homing_offset,
            "range_min": servo.min_count, "range_max": servo.max_count,
        }
        for servo in calibration
    }  # fmt: skip


def run_arm(kind: str, rounds: int, folder: Path) -> dict[str, Any]:
    """One of the three on a fresh bus; what its side of the script reports."""
    with ServoCounterpart("feetech", image_size=64) as scene:
        calibration = true_calibration(scene)
        calibration.save(folder / "ours.json")
        (folder / "theirs.json").write_text(json.dumps(lerobot_calibration(calibration)))
        return run_in_peer(SIDE, [kind, scene.port, str(folder), str(rounds)], timeout_s=300)


def main() -> int:
    flags = tyro.cli(Check, description=__doc__)
    prepare_peer()
    with tempfile.TemporaryDirectory() as folder:
        rows = {kind: run_arm(kind, flags.rounds, Path(folder)) for kind in ("follower", "wrapped", "plugin")}
    worst = max(rows[kind]["largest_error_deg"] for kind in ("follower", "plugin"))
    failures = [f"{kind}: {what}" for kind, row in rows.items() for what in row["failures"]]
    if worst > LARGEST_ERROR_DEG:
        failures.append(f"a joint was {worst:.1f} degrees off")
    follower, plugin = rows["follower"], rows["plugin"]
    result = {
        "claim": "lerobot 0.6.1's SO101Follower and our driver, each through the other's interface, on a "
        "simulated STS3215 bus",
        "target": "no failure; joints follow a slow wave within 3 degrees",
        "measured": f"{len(failures)} failures in {flags.rounds} connections each; worst joint {worst:.1f} "
        f"degrees off; send_action p50 {follower['send_ms_p50']:.1f} ms (lerobot's), "
        f"{plugin['send_ms_p50']:.1f} ms (ours, which paces itself at 30 Hz)",
        "command": f"python scripts/check_lerobot_robots.py --rounds {flags.rounds}",
        "failures": failures,
        "rows": rows,
    }
    print(json.dumps(result, indent=1))
    if flags.out is not None:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
