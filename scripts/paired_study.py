"""What studies of one policy under several settings share: the same episodes for all, and time in turn.

Settings are folders of the same weights under different contracts. Episodes come in rounds of a few seeds,
each round under every setting, so that a study that is cut short still compares pairs and says how many.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vla import registry
from vla.eval.evaluate import evaluate, load_summary
from vla.eval.grid import EvalConfig
from vla.eval.intervals import Rate
from vla.eval.paired import Pairs
from vla.eval.records import EpisodeKey
from vla.interfaces import observation_from_gym
from vla_policies.learned import LearnedPolicy

Outcomes = dict[EpisodeKey, bool]


def parser(description: str, settings: Sequence[str]) -> argparse.ArgumentParser:
    """The options of every such study."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--settings", nargs="+", default=list(settings))
    made.add_argument("--tasks", nargs="*", default=[])
    made.add_argument("--embodiments", nargs="*", default=[])
    made.add_argument("--first-seed", type=int, default=50_000)
    made.add_argument("--seeds", type=int, default=25)
    made.add_argument("--round", type=int, default=5, help="seeds a cell before the next setting's turn")
    made.add_argument("--workers", type=int, default=0)
    made.add_argument("--repeats", type=int, default=50, help="decisions timed of every setting")
    made.add_argument("--minutes", type=float, help="begin no round after this long")
    made.add_argument("--out", help="JSON file for docs/results")
    return made


def decision_ms(folders: Sequence[Path], args: argparse.Namespace) -> list[float]:
    """Median processor time of one decision of each policy, called in turn on one observation."""
    policies = [LearnedPolicy.load(folder, engine="torch") for folder in folders]
    suite = registry.suite("tabletop")
    task, arm = (args.tasks or suite.tasks)[0], (args.embodiments or suite.embodiments)[0]
    env = suite.make(task, arm, image_size=policies[0].contract.image_size)
    seen = observation_from_gym(env.reset(seed=0)[0], env.embodiment)
    env.close()
    times: list[list[float]] = [[] for _ in policies]
    for turn in range(args.repeats + 3):  # a busy machine is as busy for all; the first three warm up
        for policy, row in zip(policies, times, strict=True):
            began = time.process_time()
            policy.act([seen])
            if turn >= 3:
                row.append(1000 * (time.process_time() - began))
    return [statistics.median(row) for row in times]


def run_round(folder: Path, args: argparse.Namespace, first: int, count: int, out: Path) -> Outcomes:
    """Success by episode, of ``count`` seeds of every cell."""
    config = EvalConfig(
        policy=f"learned:{folder},engine=torch",
        tasks=tuple(args.tasks),
        embodiments=tuple(args.embodiments),
        first_seed=first,
        num_seeds=count,
        workers=args.workers,
        failure_videos_per_cell=0,
    )
    evaluate(config, out, progress=False)
    return {record.key: bool(record.success) for record in load_summary(out)[1]}


def rows_of(settings: Sequence[str], found: Sequence[Outcomes], ms: Sequence[float]) -> list[dict[str, Any]]:
    """Rate, paired difference from the first setting and decision time of each."""
    keys = list(found[0])
    rows = []
    for setting, done, took in zip(settings, found, ms, strict=True):
        pairs = Pairs.of([done[key] for key in keys], [found[0][key] for key in keys])
        rows.append(
            {
                "setting": setting,
                "success": Rate.of(done.values()).to_json(),
                "minus_first": pairs.to_json(),
                "decision_cpu_ms": round(took, 2),
                "time_ratio": round(took / ms[0], 3),
            }
        )
    return rows


def sentence(row: dict[str, Any]) -> str:
    """One row in words."""
    rate, pairs = row["success"], row["minus_first"]
    return (
        f"{row['setting']}: {100 * rate['rate']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}] "
        f"n={rate['n']}, {100 * pairs['difference']:+.1f} points "
        f"[{100 * pairs['low']:+.1f}, {100 * pairs['high']:+.1f}], time x {row['time_ratio']:.2f}"
    )


def study(
    args: argparse.Namespace,
    folders: Sequence[Path],
    scratch: Path,
    describe: Callable[[list[dict[str, Any]]], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Run all rounds; after each, write what ``describe`` makes of the rows (claim, target) to ``--out``."""
    ms, began = decision_ms(folders, args), time.monotonic()
    found: list[Outcomes] = [{} for _ in folders]
    rows: list[dict[str, Any]] = []
    last = args.first_seed + args.seeds
    for first in range(args.first_seed, last, args.round):
        if args.minutes is not None and time.monotonic() - began > 60 * args.minutes:
            break
        for i, (folder, done) in enumerate(zip(folders, found, strict=True)):
            done.update(
                run_round(folder, args, first, min(args.round, last - first), scratch / f"{first}_{i}")
            )
        rows = rows_of(args.settings, found, ms)
        if args.out:
            measured = "; ".join(sentence(row) for row in rows)
            command = " ".join(["python", f"scripts/{Path(sys.argv[0]).name}", *sys.argv[1:]])
            result = {**describe(rows), "measured": measured, "command": command}
            grid = {"tasks": args.tasks, "embodiments": args.embodiments}
            seeds = [args.first_seed, min(first + args.round, last) - 1]
            result |= {**grid, "seeds_first_last": seeds, "rows": rows}
            Path(args.out).write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        print(sentence(row))
    return rows
