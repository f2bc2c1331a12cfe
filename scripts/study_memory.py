"""Does a worker's memory stay flat over hundreds of episodes? One process, watched from outside.

usage: python scripts/study_memory.py [--episodes 600] [--batch 1] [--policy learned] [--check]
           [--out docs/results/eval_memory.json]

The worker is the one that evaluations use. It goes round eight cells, five episodes at each, so that it
closes and builds envs all the time (it keeps four). Resident memory is read after every episode. What
libraries load at first use comes early, so growth is that of the second half: the difference of the medians
of its first and last fifth. Prints a table and, as its last line, everything as JSON; --check exits with 1
above the target.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from itertools import cycle, product
from pathlib import Path

import psutil

from vla.control.policies import PolicySpec, contract_of
from vla.eval.grid import EvalConfig
from vla.eval.groups import grouped
from vla.eval.records import EpisodeKey
from vla.eval.workers import start_worker
from vla.text import text_table

#: MiB a worker may have grown by over the second half.
TARGET = 10.0
TASKS, ARMS, AT_A_CELL = ("pick", "place", "push", "stack"), ("panda", "so101"), 5


def visits(episodes: int) -> list[list[EpisodeKey]]:
    """Five new seeds of one cell after the other."""
    cells, found, seed = cycle(product(TASKS, ARMS)), [], 0
    while sum(map(len, found)) < episodes:
        task, arm = next(cells)
        found.append([EpisodeKey(task=task, embodiment=arm, seed=seed + i) for i in range(AT_A_CELL)])
        seed += AT_A_CELL
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--policy", default="learned")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    policy = PolicySpec.parse(flags.policy)
    contract = None if policy.is_bound else contract_of(policy.build())
    config = EvalConfig(
        policy=flags.policy,
        batch=flags.batch,
        image_size=64 if contract is None else contract.image_size,
        execution_horizon=2 if contract is None else contract.execution_horizon,
        failure_videos_per_cell=1,
    )
    rss_mib: list[float] = []
    with tempfile.TemporaryDirectory() as out:
        worker = start_worker(0, config, Path(out))
        process, steps, errors = psutil.Process(worker.process.pid), 0, 0
        assert worker.pipe.recv()[0] == "ready"
        for keys in visits(flags.episodes):
            worker.give(grouped(keys, keys, batch=flags.batch, first_seed=keys[0].seed))
            while (told := worker.pipe.recv())[0] != "ready":
                kind, record = told
                assert kind == "record", record
                steps, errors = steps + record.steps, errors + bool(record.error)
                rss_mib.append(process.memory_info().rss / 2**20)
        worker.dismiss()
    half = rss_mib[len(rss_mib) // 2 :]
    fifth = max(1, len(half) // 5)
    growth = statistics.median(half[-fifth:]) - statistics.median(half[:fifth])
    places = [round(k * (len(rss_mib) - 1) / 10) for k in range(11)]
    print(text_table(["episodes", "resident MiB"], [[str(i + 1), f"{rss_mib[i]:.0f}"] for i in places]))
    met = growth <= TARGET and not errors
    row = {
        "claim": f"memory of an evaluation worker (tabletop, {flags.policy}, batch {flags.batch}; 8 cells, "
        "envs built anew all the time): growth over the second half of the run",
        "target": f"<= {TARGET:g} MiB",
        "measured": f"{growth:+.1f} MiB over {len(half)} episodes (n={len(rss_mib)}, {steps} steps; "
        f"{rss_mib[0]:.0f} MiB after the first, {max(rss_mib):.0f} MiB at most)",
        "command": f"python scripts/study_memory.py --episodes {flags.episodes} --check",
        "met": met,
        "rss_mib": [round(value, 1) for value in rss_mib],
    }
    if flags.out:
        flags.out.write_text(json.dumps(row, indent=None) + "\n")
    print(json.dumps({key: value for key, value in row.items() if key != "rss_mib"}))
    return int(flags.check and not met)


if __name__ == "__main__":
    sys.exit(main())
