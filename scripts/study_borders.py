"""How hard does the arm jerk where one chunk follows another, while the policy takes 200 ms to think?

usage: python scripts/study_borders.py [--latency-s 0.2] [--episodes 15] [--out FILE]

The shipped policy in the tabletop suite on the simulator's clock, each question answered after so long,
executed by real-time chunking and, to compare, by plain asynchronous execution (``vla.control.chunks``; the
synchronous arm stands still on every border, and an ensemble has none). Jerk is that of the commanded tool:
the second difference of the executed tool deltas over the third power of the period, m/s^3. Three actions in
a row are a window: inside a chunk where all of them come from one, on a border otherwise; where the arm was
held it has paused. What comes before the first chunk is left out. How soon the policy is asked again decides
how much of a chunk there is to continue: every one of the horizons is measured. Exits 1 where real-time
chunking misses the target with all of them.
"""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

ROOT = Path(__file__).parents[1]
for folder in (ROOT, ROOT / "envs", ROOT / "policies"):
    sys.path.insert(0, str(folder))

from vla import registry
from vla.control.chunks import Execution
from vla.control.loop import Tick
from vla.control.policies import PolicySpec
from vla.eval.provenance import provenance
from vla.eval.records import EpisodeKey
from vla.eval.rollout import run_episode
from vla.robots import Reading

TARGET = 1.5
WAYS: tuple[Execution, ...] = ("async", "rtc")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Jerk where one chunk follows another.

    Args:
        policy: a learned one that can continue chunks.
        tasks, arm: of the tabletop suite.
        episodes: for each task and execution; the same scenes for each.
        first_seed: of the scenes.
        latency_s: of every answer.
        execution_horizons: actions of each chunk after which the policy is asked again.
        out: JSON file to write besides.
    """

    policy: str = "learned,head=flow"
    tasks: tuple[str, ...] = ("place", "push")
    arm: str = "panda"
    episodes: int = 15
    first_seed: int = 50_000
    latency_s: float = 0.2
    execution_horizons: tuple[int, ...] = (2, 3, 4)
    out: Path | None = None


class Trace:
    """Hook: every executed tool delta, the number of its chunk, and whether the arm was held."""

    def __init__(self) -> None:
        self.deltas: list[np.ndarray] = []
        self.chunks: list[int] = []
        self.held: list[bool] = []

    def started(self, reading: Reading) -> None:
        """Nothing has been executed."""

    def ticked(self, tick: Tick) -> None:
        assert tick.chunk is not None, "nobody holds the arm here"
        number = self.chunks[-1] if self.chunks else 0
        self.deltas.append(tick.safe.action[:3].astype(float))
        self.chunks.append(number + bool(tick.chunk.info["replanned"]))
        self.held.append(bool(tick.chunk.info.get("held", False)))


def windows(trace: Trace, hz: float) -> tuple[list[float], list[float], int]:
    """Jerks inside chunks, jerks on borders (m/s^3), and how many actions the arm was held between chunks."""
    begin = next((k for k, held in enumerate(trace.held) if not held), len(trace.held))
    inside, border = [], []
    for k in range(begin + 1, len(trace.deltas) - 1):
        if any(trace.held[k - 1 : k + 2]):
            continue
        jerk = trace.deltas[k + 1] - 2 * trace.deltas[k] + trace.deltas[k - 1]
        kind = inside if len(set(trace.chunks[k - 1 : k + 2])) == 1 else border
        kind.append(float(np.linalg.norm(jerk)) * hz**3)
    return inside, border, sum(trace.held[begin:])


study = tyro.cli(Study, description=__doc__)
suite, policy = registry.suite("tabletop"), PolicySpec.parse(study.policy).build()
image_size = policy.contract.image_size  # type: ignore[attr-defined]
rows: dict[str, Any] = {}
for horizon, execution in itertools.product(study.execution_horizons, WAYS):
    inside, border, pauses, successes, steps = [], [], 0, 0, 0
    for task in study.tasks:
        env = suite.make(task, study.arm, image_size=image_size)
        for seed in range(study.first_seed, study.first_seed + study.episodes):
            trace = Trace()
            record = run_episode(
                env,
                policy,
                suite="tabletop",
                key=EpisodeKey(task=task, embodiment=study.arm, seed=seed),
                execution_horizon=horizon,
                execution=execution,
                latency_s=(study.latency_s,),
                hooks=(trace,),
            )
            a, b, held = windows(trace, env.embodiment.control_hz)
            inside, border, pauses = inside + a, border + b, pauses + held
            successes, steps = successes + record.success, steps + record.steps
        env.close()
    rows[f"{execution}, {horizon}"] = {
        "inside_median": float(np.median(inside)),
        "border_median": float(np.median(border)),
        "inside_p95": float(np.percentile(inside, 95)),
        "border_p95": float(np.percentile(border, 95)),
        "ratio_of_medians": float(np.median(border) / np.median(inside)),
        "windows": {"inside": len(inside), "border": len(border)},
        "held_between_chunks": pauses,
        "steps": steps,
        "successes": f"{successes} of {len(study.tasks) * study.episodes}",
    }
    print(execution, horizon, json.dumps(rows[f"{execution}, {horizon}"]), flush=True)
ratios = {name: row["ratio_of_medians"] for name, row in rows.items()}
smooth = [
    name
    for name, row in rows.items()
    if name.startswith("rtc") and ratios[name] <= TARGET and not row["held_between_chunks"]
]
record_ = {
    "claim": "a policy that takes 200 ms, asked again after 2, 3 or 4 actions: pauses and smoothness of "
    "chunk borders (the shipped policy)",
    "target": f"median jerk on a border <= {TARGET} x the median inside a chunk; no stillness between chunks",
    "measured": "; ".join(
        f"{name}: x {ratio:.2f} ({rows[name]['border_median']:.1f} on borders), "
        f"{rows[name]['held_between_chunks']} still"
        for name, ratio in ratios.items()
    ),
    "met": bool(smooth),
    "command": f"python scripts/study_borders.py --latency-s {study.latency_s} --episodes {study.episodes} "
    f"--first-seed {study.first_seed} --out docs/results/borders.json",
    "unit": "m/s^3 of the commanded tool",
    "policy": study.policy,
    "execution_horizons": list(study.execution_horizons),
    "arm": study.arm,
    "tasks": list(study.tasks),
    "executions": rows,
    "provenance": provenance(),
}
if study.out is not None:
    study.out.write_text(json.dumps(record_, indent=1) + "\n")
sys.exit(0 if smooth else 1)
