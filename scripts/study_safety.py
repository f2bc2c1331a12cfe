"""Random and adversarial actions through the safety envelope: does anything come out beyond a limit?

usage: python scripts/study_safety.py [--steps 1000000] [--arms panda ur5e ...] [--out FILE]

For each arm of the tabletop suite (tool deltas at 10 Hz in a box), for the Panda driven by absolute joint
angles at 100 Hz with the limits of motion that its maker states, and for a three-joint arm over a table whose
every pose is looked at (collision, box): episodes of 500 steps, each of one of nine kinds of sequence
(uniform, far outside the range, flipping between the ends, pushing against one face, a random walk, NaN and
infinities among huge and tiny numbers, lost encoders, jumping tool readings, a sine faster than the arm),
through the envelope as it is by default. What comes out is compared with every limit by independent code.
Exits 1 where anything is beyond one.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

ROOT = Path(__file__).parents[1]
for folder in (ROOT, ROOT / "envs", ROOT / "policies"):
    sys.path.insert(0, str(folder))

from tests.control.bench_arm import GEOMETRY, bench
from vla import registry
from vla.control.geometry import PoseChecks
from vla.control.motion import limited_entries, limits_of
from vla.control.safety import SafetyConfig, SafetyEnvelope
from vla.embodiment import Embodiment, Field
from vla.eval.provenance import provenance

EPISODE = 500
KINDS = (
    "uniform", "far", "flip", "push", "walk", "broken", "blind", "jumps", "sine",
)  # fmt: skip
#: "Parameters for control", Franka Control Interface documentation: Panda, rad, rad/s, rad/s^2, rad/s^3.
PANDA: dict[str, Any] = {
    "low": (-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
    "high": (2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
    "max_velocity": (2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
    "max_acceleration": (15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0),
    "max_jerk": (7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0),
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """Random and adversarial actions through the safety envelope.

    Args:
        steps: for each arm.
        pose_steps: for the arm whose every pose is looked at, thirty looks a step.
        arms: those of the tabletop suite, ``panda_joints`` and ``bench``; all if none is named.
        seed: of the sequences.
        out: JSON file to write after each arm; arms that it holds already are kept unless they are named.
    """

    steps: int = 1_000_000
    pose_steps: int = 100_000
    arms: tuple[str, ...] = ()
    seed: int = 0
    out: Path | None = None


def panda_joints() -> Embodiment:
    """Seven absolute joint angles at 100 Hz."""
    kind: Any = {
        "size": 7,
        "unit": "rad",
        "frame": "joint",
        "mode": "absolute",
        "slot": "arm0.joint_position",
    }
    ends = {"low": PANDA["low"], "high": PANDA["high"]}
    return Embodiment(
        name="panda_joints",
        cameras=(),
        state=(Field(name="joint_position", **kind, **ends),),
        action=(Field(name="joint_target", **kind, **PANDA),),
        control_hz=100.0,
    )


def actions_of(kind: str, arm: Embodiment, rng: np.random.Generator) -> np.ndarray:
    """float64 [EPISODE, action_dim] of one kind of sequence."""
    low, high = arm.action_low.astype(float), arm.action_high.astype(float)
    shape, span = (EPISODE, len(low)), high - low
    uniform = rng.uniform(low, high, shape)
    if kind == "far":
        return (low + high) / 2 + rng.normal(0, 20, shape) * span
    if kind == "flip":
        period = int(rng.integers(1, 60))
        side = (np.arange(EPISODE) // period % 2).astype(bool)[:, None] ^ (rng.random(len(low)) < 0.5)
        return np.where(side, low, high)
    if kind == "push":
        return np.tile(np.where(rng.random(len(low)) < 0.5, low, high), (EPISODE, 1))
    if kind == "walk":
        return (low + high) / 2 + np.cumsum(rng.normal(0, rng.uniform(0.01, 0.3), shape) * span, axis=0)
    if kind == "broken":
        odd = np.array([np.nan, np.inf, -np.inf, 1e300, -1e300, 1e30, 5e-324, -0.0])
        return np.where(rng.random(shape) < 0.15, rng.choice(odd, shape), uniform)
    if kind == "sine":
        phase = rng.uniform(0, 2 * np.pi, len(low)) + np.arange(EPISODE)[:, None] * rng.uniform(0.02, 3)
        return (low + high) / 2 + np.sin(phase) * span * rng.uniform(0.2, 1.5)
    if kind in ("blind", "jumps") and rng.random() < 0.5:
        return np.tile(np.where(rng.random(len(low)) < 0.5, low, high), (EPISODE, 1))
    return uniform


def tool_episode(
    envelope: SafetyEnvelope, kind: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs, the commanded tool position each answered, and the readings of the state that were lost."""
    arm = envelope.embodiment
    low, high = np.array(arm.workspace_low), np.array(arm.workspace_high)
    tcp = rng.uniform(low - 0.05, high + 0.05)
    state = {f.name: np.clip(np.zeros(f.size), f.low, f.high).astype(np.float32) for f in arm.state}
    out, told, lost = [], [], []
    for action in actions_of(kind, arm, rng):
        error = rng.normal(0, 0.005, 3) if kind != "jumps" else rng.normal(0, 0.3, 3) * (rng.random() < 0.2)
        state["tcp_position"] = (tcp - error).astype(np.float32)
        state["tcp_error"] = error.astype(np.float32)
        state["joint_position"] = np.zeros_like(state["joint_position"])
        lost.append(kind == "blind" and rng.random() < 0.2)
        if lost[-1]:
            name = ("tcp_position", "tcp_error", "joint_position")[rng.integers(3)]
            state[name] = np.where(rng.random(len(state[name])) < 0.7, np.nan, state[name]).astype(np.float32)
            state[name][0] = (np.nan, np.inf)[rng.integers(2)]
        known = state["tcp_position"].astype(float) + state["tcp_error"].astype(float)
        safe = envelope(action, state).action.astype(float)
        out.append(safe)
        told.append(known if np.isfinite(known).all() else tcp)
        tcp = tcp + safe[:3]
    return np.array(out), np.array(told), np.array(lost)


def check_tool(envelope: SafetyEnvelope, out: np.ndarray, told: np.ndarray, lost: np.ndarray) -> Counter[str]:
    """Outputs beyond a limit of an arm moved by tool deltas, by name; written without the envelope's code."""
    arm, config = envelope.embodiment, envelope.config
    low, high = arm.action_low.astype(float), arm.action_high.astype(float)
    found = Counter(
        finite=int((~np.isfinite(out)).any(1).sum()), range=int(((out < low) | (out > high)).any(1).sum())
    )
    delta = np.array([f.mode == "delta" for f in arm.action for _ in range(f.size)])
    last, now = np.vstack([np.zeros(len(low)), out[:-1]])[:, delta], out[:, delta]
    slower = (np.abs(now) <= np.abs(last) + 1e-9) & (now * last >= 0)
    near = np.abs(now - last) <= config.max_delta_change * (high - low)[delta] + 1e-8
    found["change"] = int((~(slower | near)).any(1).sum())
    reached, rounding = told + out[:, :3], 1e-7
    bottom, top = np.minimum(arm.workspace_low, told), np.maximum(arm.workspace_high, told)
    outside = ((reached < bottom - rounding) | (reached > top + rounding)).any(1)
    found["workspace"] = int(outside[~lost].sum())
    found["moved_blind"] = int((out[lost][:, delta] != 0).any(1).sum())
    return found


def joint_episode(
    envelope: SafetyEnvelope, kind: str, rng: np.random.Generator, start: np.ndarray
) -> np.ndarray:
    """float64 [EPISODE + 3, joints]: at rest at ``start``, then what came out."""
    first = start.astype(np.float32)
    out = [first.astype(float)] * 3
    for k, action in enumerate(actions_of(kind, envelope.embodiment, rng)):
        q = out[-1].astype(np.float32)
        if kind == "blind" and k and rng.random() < 0.2:
            q = np.where(rng.random(len(q)) < 0.5, np.nan, q).astype(np.float32)
        out.append(envelope(action, {"joint_position": q}).action.astype(float))
    return np.array(out)


def check_joints(envelope: SafetyEnvelope, out: np.ndarray, poses: PoseChecks | None) -> Counter[str]:
    """Outputs beyond a limit of an arm driven by absolute joint angles, by name."""
    arm = envelope.embodiment
    low, high = arm.action_low.astype(float), arm.action_high.astype(float)
    found = Counter(
        finite=int((~np.isfinite(out)).any(1).sum()), range=int(((out < low) | (out > high)).any(1).sum())
    )
    assert len(limited_entries(arm)) == len(low), "every entry declares limits of motion"
    rounding = 2.0**-23 * np.maximum(np.abs(low), np.abs(high))  # a float32 is off by half of it at most
    for order, (name, limit) in enumerate(
        zip(("velocity", "acceleration", "jerk"), limits_of(arm), strict=True), start=1
    ):
        differences = np.abs(np.diff(out, n=order, axis=0)) * arm.control_hz**order
        allowed = limit * (1 + 1e-9) + 2 ** (order - 1) * rounding * arm.control_hz**order
        found[name] = int((differences > allowed).any(1).sum())
    if poses is not None:
        broken = [poses.breaches(q) for q in out]
        for name in poses.checks:
            found[f"pose_{name}"] = sum(b[name] > 2e-6 for b in broken)
    return found


def study_arm(name: str, steps: int, seed: int) -> dict[str, Any]:
    """Every kind of sequence in turn, until so many steps are done."""
    rng, began = np.random.default_rng([seed, sum(map(ord, name))]), time.perf_counter()
    poses, start = None, np.zeros(0)
    if name == "panda_joints":
        envelope = SafetyEnvelope(panda_joints())
        start = np.array([0, -0.785, 0, -2.356, 0, 1.571, 0.785])
    elif name == "bench":
        arm = replace(bench(), workspace_low=(-0.5, -0.5, -0.5))  # the table comes before the box
        envelope, start = SafetyEnvelope(arm, geometry=GEOMETRY), np.array([0.0, 0.4, 1.2])
        poses = PoseChecks(GEOMETRY, arm, ("joint", "workspace", "collision"))
    else:
        env = registry.suite("tabletop").make("place", name, render=False)
        envelope = SafetyEnvelope(env.embodiment)
        env.close()
    found: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    done = 0
    while done < steps:
        kind = KINDS[done // EPISODE % len(KINDS)]
        envelope.reset()
        if len(start):
            found.update(check_joints(envelope, joint_episode(envelope, kind, rng, start), poses))
        else:
            found.update(check_tool(envelope, *tool_episode(envelope, kind, rng)))
        counts.update(envelope.counts)
        done += EPISODE
    return {
        "steps": done,
        "checks": list(envelope.checks),
        "beyond": {name: int(number) for name, number in sorted(found.items())},
        "counted": dict(counts),
        "seconds": round(time.perf_counter() - began, 1),
    }


def written(results: dict[str, Any], study: Study) -> int:
    """Write what there is so far; how many outputs were beyond a limit."""
    beyond = sum(number for result in results.values() for number in result["beyond"].values())
    total = sum(result["steps"] for result in results.values())
    record = {
        "claim": "Whatever a policy says, what leaves the safety envelope is inside every limit of the arm.",
        "target": "no output beyond any limit in 10^6 random and adversarial steps an arm (10^5 with poses)",
        "measured": f"{beyond} of {total} outputs beyond a limit, over {len(results)} arms",
        "command": f"python scripts/study_safety.py --steps {study.steps} --out docs/results/safety.json",
        "config": asdict(SafetyConfig()),
        "seed": study.seed,
        "arms": results,
        "provenance": provenance(),
    }
    if study.out is not None:
        study.out.write_text(json.dumps(record, indent=1) + "\n")
    return beyond


study = tyro.cli(Study, description=__doc__)
results: dict[str, Any] = {}
if study.out is not None and study.out.exists():
    results = json.loads(study.out.read_text())["arms"]
beyond = written(results, study)
for name in study.arms or (*registry.suite("tabletop").embodiments, "panda_joints", "bench"):
    results[name] = study_arm(name, study.pose_steps if name == "bench" else study.steps, study.seed)
    print(name, json.dumps(results[name]), flush=True)
    beyond = written(results, study)
sys.exit(1 if beyond else 0)
