"""Success of the scripted experts on every task and arm, and of doing nothing and of acting at random.

    python scripts/study_experts.py --episodes 100 --out docs/results/experts.json
    python scripts/study_experts.py --suite tabletop@1007 --tasks turn,slide --arms panda --episodes 20

Physics only (no rendering). Half of the episodes ask the base instruction, half the swapped one.
Prints a table and ends with one JSON line; ``--check`` exits 1 when an expert's success is below 97 %.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np

from vla import registry
from vla.eval.intervals import Rate, wilson
from vla.interfaces import observation_from_gym

FLOOR = 0.97


def run_cell(cell: tuple[str, str, str, int, str]) -> dict:
    """Play the episodes of one cell; returns counts and lengths."""
    name, task, arm, episodes, who = cell
    suite = registry.suite(name)
    env = suite.make(task, arm, render=False)
    expert = suite.expert(env)
    low, high = env.embodiment.action_low, env.embodiment.action_high
    successes, lengths, failed = 0, [], []
    for seed in range(episodes):
        rng = np.random.default_rng(seed)
        obs, info = env.reset(seed=seed, options={"variant": ("base", "swapped")[seed % 2]})
        while True:
            if who == "expert":
                action = expert.act([observation_from_gym(obs, env.embodiment)])[0].actions[0]
            else:
                action = rng.uniform(low, high).astype(np.float32)
                if who == "nothing":  # no motion, open gripper
                    action = np.array([0, 0, 0, 0, -1], np.float32)
            obs, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                break
        successes += info["success"]
        if info["success"]:
            lengths.append(env.steps)
        else:
            failed.append(seed)
    return {"suite": name, "task": task, "arm": arm, "who": who, "n": episodes, "successes": successes,
            "mean_steps": float(np.mean(lengths)) if lengths else None, "failed_seeds": failed}  # fmt: skip


def finished(progress: Path | None) -> dict[tuple[str, str, str, str], dict]:
    """Rows that an earlier, interrupted run appended to ``progress``, by (suite, task, arm, who)."""
    if progress is None or not progress.exists():
        return {}
    rows = [json.loads(line) for line in progress.read_text().splitlines()]
    return {(row["suite"], row["task"], row["arm"], row["who"]): row for row in rows}


def counted(rows: list[dict]) -> str:
    """ "297 of 300, 99.00 % [97.1, 99.7]" over all rows."""
    rate = Rate(sum(r["successes"] for r in rows), sum(r["n"] for r in rows))
    low, high = rate.interval
    return f"{rate.successes} of {rate.n}, {100 * rate.value:.2f} % [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument(
        "--trivial-episodes", type=int, default=20, help="of doing nothing and of random actions"
    )
    parser.add_argument("--suite", default="tabletop", help="or a season of it, tabletop@1007")
    parser.add_argument("--tasks", help="some only, separated by commas")
    parser.add_argument("--arms", help="some only, separated by commas")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--progress",
        type=Path,
        help="rows are appended here; a second run takes up those with enough episodes",
    )
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    suite = registry.suite(args.suite)
    tasks = args.tasks.split(",") if args.tasks else suite.tasks
    arms = args.arms.split(",") if args.arms else suite.embodiments
    grid = [(args.suite, t, a) for t in tasks for a in arms]
    jobs = [(*cell, args.episodes, "expert") for cell in grid]
    jobs += [(*cell, args.trivial_episodes, who) for who in ("nothing", "random") for cell in grid]
    done = finished(args.progress)
    known = [done.get((suite, t, a, who)) for suite, t, a, _, who in jobs]
    kept = [row if row and row["n"] >= job[3] else None for row, job in zip(known, jobs, strict=True)]
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        rows = []
        played = pool.imap(run_cell, [job for job, row in zip(jobs, kept, strict=True) if row is None])
        for old in kept:
            row = old or next(played)
            low, high = wilson(row["successes"], row["n"])
            row["interval_95"] = [low, high]
            rows.append(row)
            if old is None and args.progress:
                with args.progress.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            steps = "" if row["mean_steps"] is None else f"{row['mean_steps']:5.1f} steps"
            print(f"{row['who']:8s} {row['task']:9s} {row['arm']:6s} {row['successes']:3d}/{row['n']:<3d} "
                  f"[{low:.3f}, {high:.3f}] {steps}", flush=True)  # fmt: skip

    def of(who: str) -> list[dict]:
        return [row for row in rows if row["who"] == who]

    experts = of("expert")
    worst = min(experts, key=lambda row: row["successes"] / row["n"])
    result = {
        "claim": f"scripted experts, {len(tasks)} tasks x {len(arms)} arms of {suite.name} (physics only)",
        "target": ">= 97 % in every cell; doing nothing and random actions fail",
        "measured": f"all: {counted(experts)}; worst cell {worst['task']} with {worst['arm']} "
        f"{counted([worst])}; doing nothing {counted(of('nothing'))}; random {counted(of('random'))}",
        "command": " ".join(["python scripts/study_experts.py", *sys.argv[1:]]),
        "experts_mean": sum(r["successes"] for r in experts) / sum(r["n"] for r in experts),
        "experts_worst_cell": min(r["successes"] / r["n"] for r in experts),
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({**result, "cells": rows}, indent=1) + "\n")
    print(json.dumps(result))
    return int(args.check and result["experts_worst_cell"] < FLOOR)


if __name__ == "__main__":
    sys.exit(main())
