"""What fewer visual tokens cost: closed-loop success and latency of a policy at several settings of the dial.

    python scripts/study_tokens.py --policy outputs/patches/policy --settings none:1 pool:0.25 attention:0.5

The policy needs a backbone whose tokens are patches. A setting is a compression with its ``keep``
(``vla.models.tokens``); the first is what latencies are divided by. A setting with weights of its own
(``shuffle``, ``instruction``) can only be asked of a policy trained with that compression. The same seeds for
all. Prints a table and ends with one JSON line; ``--out`` writes it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from vla import registry
from vla.errors import VlaError
from vla.eval.evaluate import evaluate, load_summary
from vla.eval.grid import EvalConfig
from vla.eval.intervals import Rate
from vla.interfaces import observation_from_gym
from vla.models.saving import load_policy, save_policy
from vla_policies.learned import LearnedPolicy

TRAINED = ("shuffle", "instruction")  # compressions with weights


def prepare(policy: str, setting: str, folder: Path) -> Path:
    """The same weights under a contract with this compression."""
    net, contract = load_policy(policy)
    name, _, keep = setting.partition(":")
    if name in TRAINED and net.config.compression != name:
        sys.exit(
            f"{setting}: {policy} was trained with compression {net.config.compression!r}, not {name!r}."
        )
    network = replace(net.config, compression=name, keep=float(keep or 1)).to_json()
    weights = {k: v for k, v in net.state_dict().items() if name in TRAINED or not k.startswith("compress.")}
    save_policy(folder, weights, replace(contract, network=network))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", required=True)
    parser.add_argument(
        "--settings", nargs="+", default=["none:1", "pool:0.25", "attention:0.5", "attention:0.25"]
    )
    parser.add_argument("--tasks", nargs="*", default=[])
    parser.add_argument("--embodiments", nargs="*", default=[])
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=25)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out")
    args = parser.parse_args()
    suite = registry.suite("tabletop")
    rates: list[Rate] = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = [prepare(args.policy, s, Path(scratch) / f"policy{i}") for i, s in enumerate(args.settings)]
        policies = [LearnedPolicy.load(folder) for folder in folders]
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
                took = time.perf_counter() - began
                if turn >= 3:
                    row.append(took)
        for i, folder in enumerate(folders):
            config = EvalConfig(
                policy=f"learned:{folder}", tasks=tuple(args.tasks), embodiments=tuple(args.embodiments),
                first_seed=args.first_seed, num_seeds=args.seeds, workers=args.workers,
                failure_videos_per_cell=0,
            )  # fmt: skip
            evaluate(config, Path(scratch) / f"eval{i}", progress=False)
            rates.append(Rate.of(bool(r.success) for r in load_summary(Path(scratch) / f"eval{i}")[1]))
    medians, rows = [statistics.median(row) for row in times], []
    for setting, rate, median in zip(args.settings, rates, medians, strict=True):
        ratio = median / medians[0]
        rows.append({"setting": setting, **rate.to_json(), "latency_ratio": ratio})
        print(f"{setting:18} {rate!s:36} latency x {ratio:.2f}")
    line = json.dumps({"policy": args.policy, "rows": rows})
    print(line)
    if args.out:
        Path(args.out).write_text(line + "\n")


if __name__ == "__main__":
    try:
        main()
    except VlaError as error:
        sys.exit(str(error))
