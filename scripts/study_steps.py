"""How many denoising steps a policy needs: closed-loop success on the same seeds, and latency beside it.

    python scripts/study_steps.py --settings 10 4 4:early 4:late --seeds 25

A setting is a number of steps, with a schedule behind the colon (``vla.models.heads.schedules``); the first
is what the others are compared with, pair by pair. The flow or diffusion head decides. Prints a table
and ends with one JSON line; ``--out`` writes it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from vla import registry
from vla.eval.evaluate import evaluate, load_summary
from vla.eval.grid import EvalConfig
from vla.eval.intervals import Rate
from vla.eval.records import EpisodeKey
from vla.interfaces import observation_from_gym
from vla.models.saving import load_policy, save_policy
from vla_policies.learned import LearnedPolicy


def prepare(policy: str, setting: str, head: str, folder: Path) -> Path:
    """The same weights under a contract with these steps."""
    net, contract = load_policy(policy)
    steps, _, schedule = setting.partition(":")
    settings = {**net.config.head_settings, "schedule": schedule or "uniform"}
    network = replace(net.config, head_settings=settings).to_json()
    heads = (head, *(name for name in contract.heads if name != head))
    save_policy(folder, net.state_dict(), replace(
        contract, network=network, num_flow_steps=int(steps), heads=heads,
    ))  # fmt: skip
    return folder


def outcomes(directory: Path, args: argparse.Namespace, out: Path) -> dict[EpisodeKey, bool]:
    """Success by episode."""
    config = EvalConfig(
        policy=f"learned:{directory}", tasks=tuple(args.tasks), embodiments=tuple(args.embodiments),
        first_seed=args.first_seed, num_seeds=args.seeds, workers=args.workers, failure_videos_per_cell=0,
    )  # fmt: skip
    evaluate(config, out, progress=False)
    return {record.key: bool(record.success) for record in load_summary(out)[1]}


def latencies_ms(directories: list[Path], args: argparse.Namespace) -> list[float]:
    """Median time of one decision of each policy, called in turn on one observation."""
    policies = [LearnedPolicy.load(directory) for directory in directories]
    suite = registry.suite("tabletop")
    task, arm = (args.tasks or suite.tasks)[0], (args.embodiments or suite.embodiments)[0]
    env = suite.make(task, arm, image_size=policies[0].contract.image_size)
    seen = observation_from_gym(env.reset(seed=0)[0], env.embodiment)
    env.close()
    times: list[list[float]] = [[] for _ in policies]
    for turn in range(
        args.repeats + 3
    ):  # in turn: a busy machine is as busy for all; the first three warm up
        for policy, row in zip(policies, times, strict=True):
            began = time.perf_counter()
            policy.act([seen])
            took = 1000 * (time.perf_counter() - began)
            if turn >= 3:
                row.append(took)
    return [statistics.median(row) for row in times]


def compare(base: dict[EpisodeKey, bool], other: dict[EpisodeKey, bool]) -> dict[str, Any]:
    """Pairs won and lost, the difference in points, and the exact two-sided sign test over them."""
    won = sum(other[key] and not base[key] for key in base)
    lost = sum(base[key] and not other[key] for key in base)
    pairs, fewer = won + lost, min(won, lost)
    p = min(1.0, 2 * sum(math.comb(pairs, i) for i in range(fewer + 1)) / 2**pairs)
    return {"won": won, "lost": lost, "points": 100 * (won - lost) / len(base), "p": p}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", default="policies/vla_policies/pretrained/tabletop")
    parser.add_argument("--head", default="flow")
    parser.add_argument("--settings", nargs="+", default=["10", "4", "4:early", "4:late"])
    parser.add_argument("--tasks", nargs="*", default=[])
    parser.add_argument("--embodiments", nargs="*", default=[])
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=25)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = [
            prepare(args.policy, setting, args.head, Path(scratch) / f"policy{i}")
            for i, setting in enumerate(args.settings)
        ]
        latency = latencies_ms(folders, args)
        found = [outcomes(f, args, Path(scratch) / f"eval{i}") for i, f in enumerate(folders)]
    rows = []
    for setting, done, ms in zip(args.settings, found, latency, strict=True):
        rate, pairs = Rate.of(done.values()), compare(found[0], done)
        rows.append({"setting": setting, **rate.to_json(), **pairs, "latency_ratio": ms / latency[0]})
        print(
            f"{setting:10} {rate!s:36} {pairs['points']:+6.1f} points (+{pairs['won']} -{pairs['lost']}"
            f", p {pairs['p']:.2f})   latency x {ms / latency[0]:.2f}"
        )
    line = json.dumps({"policy": args.policy, "head": args.head, "rows": rows})
    print(line)
    if args.out:
        Path(args.out).write_text(line + "\n")


if __name__ == "__main__":
    main()
