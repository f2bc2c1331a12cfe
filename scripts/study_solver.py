"""Whether the convention solver finds planted errors, and invents none, on every arm of a suite.

    python scripts/study_solver.py --store demos.zarr --check --out docs/results/solver.json

Demonstrations of each arm are written as raw columns in one plain convention ("clean") and then with one
error planted at a time. An answer counts as found when every question that the error concerns is answered
rightly, and as invented when an answer that was given (not refused) is false. Ends with one JSON line;
``--check`` exits 1 unless 20 kinds are found on every arm and nothing is invented anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
from study_solver_plans import ACTION, STATE, TASKS, Kind, Plan, kinds, load_demos, write

from vla import registry
from vla.data.generate import generate
from vla.data.solve import Solution, solve
from vla.data.solve.robot import MujocoRobot, suite_robot
from vla.data.store import EpisodeStore
from vla.interfaces import Cell
from vla.text import text_table

SUITE = "tabletop"
WANTED_KINDS = 20
JOINT_MODES = {"joint": "absolute", "joint_delta": "delta", "joint_velocity": "velocity"}


def truth(plan: Plan, robot: MujocoRobot) -> dict[str, Callable[[Any], bool]]:
    """For each question, whether a value is right."""
    sizes = {"quat_xyzw": 4, "quat_wxyz": 4, "matrix": 9, "matrix_6d": 6}
    size, n = sizes.get(plan.rotation, 3), robot.num_joints
    first = n + 1 if plan.joints_first else 0
    axes = [plan.axes.index(i) for i in range(3)]
    signs = [plan.mirror if axes[i] == 1 else 1 for i in range(3)]
    per = "/s" if plan.mode == "velocity" else "/step"
    absolute = plan.mode == "absolute"
    turn = {"start": 3, "format": "quat_xyzw" if absolute else "yaw" if plan.yaw_only else "rotvec"}
    steps = {1.0: "rad", np.pi / 180: "deg"}.get(plan.joint_step, "none")
    ends_in = {"joint_delta": "/step", "joint_velocity": "/s"}
    joint_unit = steps + ends_in[plan.mode] if plan.mode in ends_in else plan.joint_unit

    def holds(**wanted: Any) -> Callable[[Any], bool]:
        return lambda value: all(value[key] == item for key, item in wanted.items())

    def ends(opened: float, closed: float, slack: float) -> Callable[[Any], bool]:
        room = slack * abs(opened - closed)
        return lambda v: abs(v["open"] - opened) <= room and abs(v["closed"] - closed) <= room

    shown = {"front": "wrist", "wrist": "front"} if plan.swapped else {"front": "front", "wrist": "wrist"}
    cameras = {f"camera.{n}": holds(camera=c, flip=plan.flip, bgr=plan.bgr) for n, c in shown.items()}
    return {
        "position": holds(column=STATE, start=first, axes=axes, signs=signs),
        "position_unit": plan.position_unit.__eq__,
        "rotation": holds(column=STATE, start=first + 3, format=plan.rotation),
        "rotation_unit": plan.rotation_unit.__eq__,
        "rotation_sign_flips": lambda v: (v > 0) == plan.sign_flips,
        "joints": holds(column=STATE, start=0 if plan.joints_first else 3 + size, size=n),
        "joint_unit": plan.joint_unit.__eq__,
        "action_position": holds(column=ACTION, start=0),
        "action_mode": plan.mode.__eq__,
        "action_frame": plan.frame.__eq__,
        "action_lag": plan.lag.__eq__,
        "action_unit": lambda v: v == (plan.action_unit if absolute else plan.action_unit + per),
        "action_rotation": holds(**turn) if plan.turns else lambda v: False,
        "action_rotation_unit": lambda v: v == ("rad" if absolute else plan.turn_unit + per),
        "joint_action": lambda v: v["start"] == 0 and v["mode"] == JOINT_MODES.get(plan.mode),
        "joint_action_unit": lambda v: v == joint_unit,
        "gripper_action": ends(*plan.command, slack=0.05),
        "gripper_state": ends(*plan.opening, slack=0.6),
        "control_hz": lambda v: abs(v - plan.hz) < 0.1,
        **cameras,
    }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the solver made of one kind on one arm."""

    kind: str
    arm: str
    found: bool
    invented: tuple[str, ...]
    refused: tuple[str, ...]


def judge(kind: Kind, arm: str, solution: Solution, robot: MujocoRobot) -> Outcome:
    right = truth(kind.plan, robot)
    given = {q: a for q, a in solution.answers.items() if not a.refused}
    false = tuple(q for q, a in given.items() if not (q in right and right[q](a.value)))
    found = all(q in given and q not in false for q in kind.questions)
    found &= all(q in solution.refused for q in kind.refuses)
    return Outcome(kind=kind.name, arm=arm, found=found, invented=false, refused=solution.refused)


def run(store: EpisodeStore, arms: list[str], episodes: int, verbose: str, first_seed: int) -> list[Outcome]:
    outcomes = []
    for arm in arms:
        robot = suite_robot(SUITE, arm)
        demos = load_demos(store, arm, episodes, robot, first_seed)
        for kind in kinds():
            solution = solve(write(demos, kind.plan, seed=0), model=robot)
            outcome = judge(kind, arm, solution, robot)
            outcomes.append(outcome)
            if verbose and verbose in kind.name:
                print(f"{arm}: {kind.name}\n{solution.table()}\n")
            if not outcome.found or outcome.invented:
                print(f"{arm}: {kind.name}: found {outcome.found}, false {outcome.invented}", file=sys.stderr)
                for question in (*outcome.invented, *kind.questions):
                    print(f"    {solution.answers.get(question)}", file=sys.stderr)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", type=Path, help="demonstrations of the suite; default: generate some")
    parser.add_argument("--arms", nargs="*", default=[])
    parser.add_argument("--episodes", type=int, default=40, help="demonstrations an arm")
    parser.add_argument("--first-seed", type=int, default=0, help="leave those of lower seeds in --store out")
    parser.add_argument("--show", default="", help="print the tables of kinds with this in their name")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", action="store_true")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        wanted = flags.arms or list(registry.suite(SUITE).embodiments)
        path = flags.store or _generated(Path(scratch) / "demos.zarr", wanted, flags.episodes)
        store = EpisodeStore.open(path)
        arms = flags.arms or list(store.embodiments)
        outcomes = run(store, arms, flags.episodes, flags.show, flags.first_seed)
    rows = []
    for kind in kinds():
        mine = [o for o in outcomes if o.kind == kind.name]
        marks = ["found" if o.found else "not found" for o in mine]
        rows.append([kind.name, *marks, str(sum(len(o.invented) for o in mine))])
    print(text_table(["planted", *arms, "invented"], rows))
    planted = [k.name for k in kinds() if not k.name.startswith("clean")]
    everywhere = [k for k in planted if all(o.found for o in outcomes if o.kind == k)]
    invented_clean = sum(len(o.invented) for o in outcomes if o.kind.startswith("clean"))
    invented = sum(len(o.invented) for o in outcomes)
    held_out = f"held out: from {flags.store.name}, seeds from {flags.first_seed} on" if flags.store else ""
    result = {
        "claim": f"convention solver: planted errors in demonstrations of {len(arms)} arms",
        "target": f">= {WANTED_KINDS} kinds found on every arm, none invented",
        "measured": f"{len(everywhere)} of {len(planted)} kinds found on every arm, {invented} invented "
        f"({flags.episodes} pick and place demonstrations an arm, "
        f"{held_out if flags.store else 'those its thresholds were set on'})",
        "command": _command(flags),
        "arms": arms,
        "kinds": len(planted),
        "found_on_every_arm": len(everywhere),
        "not_found": sorted(f"{o.arm}: {o.kind}" for o in outcomes if not o.found),
        "invented_on_clean": invented_clean,
        "invented": invented,
        "found_by_arm": {a: sum(o.found for o in outcomes if o.arm == a and o.kind in planted) for a in arms},
    }
    if flags.out:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    passed = len(everywhere) >= WANTED_KINDS and result["invented"] == 0
    return int(flags.check and not passed)


def _command(flags: argparse.Namespace) -> str:
    """What was asked for, as one would type it."""
    words = ["python scripts/study_solver.py"]
    words += [f"--store {flags.store.name}"] if flags.store else []
    words += [f"--first-seed {flags.first_seed}"] if flags.first_seed else []
    words += [f"--arms {' '.join(flags.arms)}"] if flags.arms else []
    words += [f"--episodes {flags.episodes}", *(["--check"] if flags.check else [])]
    return " ".join([*words, *([f"--out docs/results/{flags.out.name}"] if flags.out else [])])


def _generated(path: Path, arms: list[str], episodes: int) -> Path:
    cells = [Cell(task=task, embodiment=arm) for arm in arms for task in TASKS]
    generate(SUITE, cells, -(-episodes // len(TASKS)), path)
    return path


if __name__ == "__main__":
    sys.exit(main())
