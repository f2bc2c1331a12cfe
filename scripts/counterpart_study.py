"""What studies of a driver against its counterpart share: one policy, the same episodes, both ways.

Every episode runs twice: in direct simulation, and in real time through the vendor's client with a
counterpart behind it, whose world judges success as the simulation does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.control.chunks import ChunkExecutor, holding
from vla.control.loop import run_loop
from vla.control.safety import SafetyEnvelope
from vla.errors import RobotError
from vla.eval.intervals import Rate
from vla.eval.paired import Pairs
from vla.eval.records import EpisodeKey
from vla.eval.rollout import run_episode
from vla.robots import Reading, Robot
from vla.robots.wrapper import RobotWrapper
from vla_envs.counterparts.running import Counterpart
from vla_envs.tabletop.env import TabletopEnv
from vla_policies.learned import LearnedPolicy

POLICY = "policies/vla_policies/pretrained/tabletop"
TASKS = (
    "pick", "place", "push", "stack", "knock", "drawer", "press", "relation", "turn", "slide", "insert",
    "beside", "unstack",
)  # fmt: skip


class PacedRobot(RobotWrapper):
    """A driver whose commands say where they led: a control period later, with the counterpart's verdict.

    Args:
        robot: of real hardware or a counterpart; it moves while time passes.
        verdict: ``success`` and ``wrong`` of the world behind it.
        clock: by which the control rate is kept, s: the counterpart's own.
    """

    def __init__(
        self,
        robot: Robot,
        verdict: Callable[[], Mapping[str, Any]],
        instruction: str,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(robot)
        self.deadman_s = None  # the time is kept in here
        self._clock, self._verdict, self._instruction = clock, verdict, instruction
        self.late = 0
        self._deadline = 0.0

    def connect(self) -> Reading:
        self._robot.connect()
        reading = self._robot.set_instruction(self._instruction)
        self._deadline = self._clock()
        return reading

    def command(self, action: np.ndarray) -> Reading:
        self._robot.command(action)
        self._deadline += 1.0 / self.embodiment.control_hz
        now = self._clock()
        if now > self._deadline:
            self.late += 1
            self._deadline = now
        while now < self._deadline:
            time.sleep(min(0.005, self._deadline - now))
            now = self._clock()
        reading = self._robot.read()
        return replace(reading, info={**reading.info, **self._verdict()})


def parser(description: str) -> argparse.ArgumentParser:
    """The options of every such study."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--policy", default=POLICY)
    made.add_argument("--tasks", nargs="+", default=list(TASKS))
    made.add_argument("--first-seed", type=int, default=70_000)
    made.add_argument("--seeds", type=int, default=5, help="episodes of each task")
    made.add_argument("--out", help="JSON file for docs/results")
    return made


def options_of(key: EpisodeKey) -> dict[str, str]:
    """What a scene is reset with."""
    return {"variant": key.variant, "wording": key.wording}


def simulated(policy: LearnedPolicy, key: EpisodeKey, envs: dict[str, TabletopEnv]) -> dict[str, Any]:
    """The episode in direct simulation."""
    if key.task not in envs:
        envs[key.task] = TabletopEnv(key.task, key.embodiment, image_size=policy.contract.image_size)
    horizon = policy.contract.execution_horizon
    record = run_episode(envs[key.task], policy, suite="tabletop", key=key, execution_horizon=horizon)
    return {"success": bool(record.success), "steps": record.steps}


def driven(policy: LearnedPolicy, robot: PacedRobot, max_steps: int) -> dict[str, Any]:
    """The episode through the driver."""
    envelope = SafetyEnvelope.of(robot)
    executor = ChunkExecutor(policy, policy.contract.execution_horizon, hold=holding(envelope))
    try:
        result = run_loop(robot, executor, envelope, max_steps=max_steps)
    except RobotError as error:  # an episode that the driver ended is one that failed
        return {"success": False, "steps": 0, "late_turns": robot.late, "error": str(error)}
    return {"success": result.success, "steps": result.steps, "late_turns": robot.late}


def against(
    args: argparse.Namespace,
    arm: str,
    policy: LearnedPolicy,
    counterpart: Counterpart,
    robot: Robot,
    describe: Mapping[str, Any],
    *,
    after: Callable[[dict[str, Any]], None] = lambda row: None,
) -> None:
    """The study of a robot before a counterpart that puts up the scenes; ``after`` each episode."""

    def drive(key: EpisodeKey) -> dict[str, Any]:
        scene = counterpart.set_scene(key.task, key.seed, options_of(key))
        judged = PacedRobot(robot, counterpart.outcome, scene["instruction"], counterpart.clock)
        row = driven(policy, judged, scene["max_steps"])
        after(row)
        return row

    told = {**describe, "target": ">= 20 episodes, success within 5 points of direct simulation, same seeds"}
    study(args, arm, policy, drive, told)
    robot.close()


def study(
    args: argparse.Namespace,
    arm: str,
    policy: LearnedPolicy,
    drive: Callable[[EpisodeKey], dict[str, Any]],
    describe: Mapping[str, Any],
) -> None:
    """Every episode both ways; after each, everything so far is written to ``--out``."""
    envs: dict[str, TabletopEnv] = {}
    rows: list[dict[str, Any]] = []
    for seed, task in itertools.product(range(args.first_seed, args.first_seed + args.seeds), args.tasks):
        key = EpisodeKey(task=task, embodiment=arm, seed=seed)
        row = {"task": task, "seed": seed, "simulated": simulated(policy, key, envs), "driven": drive(key)}
        rows.append(row)
        print(json.dumps(row), flush=True)
        if args.out:
            result = {
                **describe,
                **summary(rows),
                "tasks": args.tasks,
                "embodiments": [arm],
                "episodes": rows,
            }
            Path(args.out).write_text(json.dumps(result, indent=1) + "\n")
    print(summary(rows)["measured"])


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rates, their paired difference and the command."""
    there, here = ([row[way]["success"] for row in rows] for way in ("driven", "simulated"))
    pairs = Pairs.of(there, here)
    low, high = pairs.interval
    seeds = [row["seed"] for row in rows]
    turns = sum(row["driven"]["steps"] for row in rows)
    late = sum(row["driven"]["late_turns"] for row in rows)
    return {
        "measured": (
            f"driven {Rate.of(there)}, simulated {Rate.of(here)}, difference "
            f"{100 * pairs.difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]; "
            f"{late} of {turns} turns late"
        ),
        "command": " ".join(["python", f"scripts/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "driven": Rate.of(there).to_json(),
        "simulated": Rate.of(here).to_json(),
        "driven_minus_simulated": pairs.to_json(),
        "seeds_first_last": [min(seeds), max(seeds)],
    }
