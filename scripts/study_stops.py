"""How soon does a stop reach the driver, by the clock on the wall, after a stall or a fault?

usage: python scripts/study_stops.py [--repeats 10] [--control-hz 20] [--out FILE]

A simulated arm in a process of its own (``vla.robots.process``), driven in real time. What goes wrong: the
policy stops answering, the picture freezes, the policy raises, the driver raises, the loop hangs, the loop is
killed, the driver is killed. Each is measured from the moment at which it can be known (the end of the limit
that is set for it, or the fault itself) to the moment at which the driver's ``stop`` is called in its
process, as that process writes it down; for a killed driver, to the error in the loop. The machine ought to
be idle. Exits 1 where anything takes longer than two control periods.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

ROOT = Path(__file__).parents[1]
for folder in (ROOT, ROOT / "envs", ROOT / "policies"):
    sys.path.insert(0, str(folder))

from vla.control.chunks import ChunkExecutor, holding
from vla.control.latency import Background
from vla.control.loop import run_loop
from vla.control.safety import SafetyConfig, SafetyEnvelope
from vla.errors import RobotError
from vla.eval.provenance import provenance
from vla.robots.process import ProcessRobot
from vla.types import ActionChunk, Observation

PERIODS = 2
FACTORY = "tests.control.process_robots:faulty"
LIMITS = SafetyConfig(max_observation_age_s=0.3, max_policy_silence_s=0.3)
DEADMAN_S = 0.3


@dataclass(frozen=True, kw_only=True)
class Study:
    """How soon a stop reaches the driver.

    Args:
        repeats: of each fault.
        control_hz: rate of the loop.
        out: JSON file to write besides.
    """

    repeats: int = 10
    control_hz: float = 20.0
    out: Path | None = None


class Policy:
    """Chunks of stillness; its question number ``at`` ends in ``fault`` (a function)."""

    contract = None

    def __init__(self, control_hz: float, fault: Callable[[], None] | None = None, at: int = 3) -> None:
        self.control_hz, self.fault, self.at = control_hz, fault, at
        self.asked, self.fault_s = 0, 0.0

    def reset(self) -> None:
        self.asked = 0

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        self.asked += 1
        if self.asked == self.at and self.fault is not None:
            self.fault_s = time.monotonic()
            self.fault()
        actions = np.tile(np.array([0, 0, 0, -1], np.float32), (4, 1))
        return [ActionChunk(actions=actions, control_hz=self.control_hz) for _ in observations]


def noted(log: Path, what: str, since: float = 0.0) -> float:
    """The first moment of that name after ``since``, as the driver's process wrote it; waits for it."""
    for _ in range(1000):
        lines = log.read_text().splitlines() if log.exists() else []
        times = [float(line.split()[1]) for line in lines if line.startswith(what)]
        if found := [moment for moment in times if moment >= since]:
            return found[0]
        time.sleep(0.01)
    raise RuntimeError(f"no {what!r} in {log}")


def drive(log: Path, policy: Policy, hz: float, *, fault: str = "", background: bool = True) -> str:
    """Drive until it ends; what ended it."""
    arguments: dict[str, Any] = {"log": str(log), "fault": fault, "at": 6, "control_hz": hz}
    robot = ProcessRobot(FACTORY, arguments, deadman_s=DEADMAN_S, answer_s=5.0 if not fault else None)
    envelope = SafetyEnvelope.of(robot, LIMITS)
    thinking = Background() if background else None
    execution = "async" if background else "sync"
    driver = ChunkExecutor(policy, 2, execution=execution, thinking=thinking, hold=holding(envelope))
    try:
        return run_loop(robot, driver, envelope, max_steps=100, realtime=True).fault
    except (RobotError, ArithmeticError) as error:
        return str(error)
    finally:
        robot.close()


def stalled(log: Path, hz: float) -> float:
    gate = threading.Event()
    policy = Policy(hz, lambda: gate.wait(5.0) and None)
    said = drive(log, policy, hz)
    gate.set()
    assert said.startswith("stalled"), said
    return noted(log, "stop") - policy.fault_s - LIMITS.max_policy_silence_s


def stale(log: Path, hz: float) -> float:
    said = drive(log, Policy(hz), hz, fault="freezes")
    assert said.startswith("stale"), said
    return noted(log, "stop") - noted(log, "fault") - LIMITS.max_observation_age_s


def policy_raises(log: Path, hz: float) -> float:
    def fault() -> None:
        raise ArithmeticError("not a number")

    policy = Policy(hz, fault)
    said = drive(log, policy, hz)
    assert said == "not a number", said
    return noted(log, "stop") - policy.fault_s


def driver_raises(log: Path, hz: float) -> float:
    said = drive(log, Policy(hz), hz, fault="raises")
    assert "ZeroDivisionError" in said, said
    return noted(log, "stop") - noted(log, "fault")


def loop_hangs(log: Path, hz: float) -> float:
    policy = Policy(hz, lambda: time.sleep(1.5))
    drive(log, policy, hz, background=False)
    return noted(log, "stop") - policy.fault_s - DEADMAN_S


def loop_killed(log: Path, hz: float) -> float:
    pid = os.fork()
    if pid == 0:
        drive(log, Policy(hz), hz)
        os._exit(0)
    noted(log, "command")
    time.sleep(0.3)
    killed_s = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return noted(log, "stop", killed_s) - killed_s


def driver_killed(log: Path, hz: float) -> float:
    robot = ProcessRobot(FACTORY, {"log": str(log), "control_hz": hz}, deadman_s=DEADMAN_S)
    robot.connect()
    still = np.array([0, 0, 0, -1], np.float32)
    killed_s = np.inf
    for step in range(20):
        if step == 10:
            killed_s = time.monotonic()
            os.kill(robot.pid, signal.SIGKILL)
        try:
            robot.command(still)
        except RobotError as error:
            if "killed by signal 9" not in str(error):
                raise
            return time.monotonic() - killed_s
        time.sleep(1 / hz)
    raise RuntimeError("nobody noticed")


study = tyro.cli(Study, description=__doc__)
period_s = 1 / study.control_hz
rows: dict[str, Any] = {}
with tempfile.TemporaryDirectory() as folder_:
    for measure in (stalled, stale, policy_raises, driver_raises, loop_hangs, loop_killed, driver_killed):
        found = [
            measure(Path(folder_) / f"{measure.__name__}-{k}", study.control_hz) for k in range(study.repeats)
        ]
        rows[measure.__name__] = {
            "periods_median": round(float(np.median(found)) / period_s, 3),
            "periods_max": round(max(found) / period_s, 3),
            "n": len(found),
        }
        print(measure.__name__, json.dumps(rows[measure.__name__]), flush=True)
worst = max(row["periods_max"] for row in rows.values())
record = {
    "claim": "After any stall or fault a stop reaches the driver within two control periods.",
    "target": f"<= {PERIODS} control periods, each time, at {study.control_hz:g} Hz",
    "measured": f"at most {worst:.2f} control periods over {len(rows)} faults, n={study.repeats} each",
    "met": worst <= PERIODS,
    "command": f"python scripts/study_stops.py --repeats {study.repeats} --out docs/results/stops.json",
    "limits_s": {"stale": 0.3, "stalled": 0.3, "deadman": DEADMAN_S},
    "faults": rows,
    "provenance": provenance(),
}
if study.out is not None:
    study.out.write_text(json.dumps(record, indent=1) + "\n")
sys.exit(0 if worst <= PERIODS else 1)
