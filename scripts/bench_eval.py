"""Episodes a minute of an evaluation of Meta-World: lerobot 0.6.1's own against ours, in one run.

usage: python scripts/bench_eval.py [--tasks reach-v3] [--episodes 2] [--horizon 1] [--rounds 1]
           [--image-size 480] [--check] [--out docs/results/eval_speed.json]

Both run the same network (scripts/bench_eval_net.py) on the same tasks, camera and picture size (lerobot's:
480), as many episodes, and use all cores: lerobot one process for each of its vector environments (its
default here would be fewer) with one forward pass for all of them, ours as many workers. lerobot makes no
films, runs no processors, and its clock starts when everything is imported; ours starts with the call, so
that it counts the start of its workers. The network succeeds at nothing: every episode has Meta-World's 500
steps on both sides, which is checked. --horizon is how many actions of each chunk are run before the network
is asked again; at 1 it is asked, and a picture drawn, in every step on both sides.

lerobot lives in a Python of its own (scripts/lerobot_peer.py makes it), our Meta-World in another
(scripts/setup_benchmark metaworld); both have MuJoCo 3.3.0. Prints a table and, as its last line, everything
as JSON; --check exits with 1 below the target.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for name, value in (("MUJOCO_GL", "egl"), ("LP_NUM_THREADS", "0")):
    os.environ.setdefault(name, value)

from lerobot_peer import lerobot_python, metaworld_folder, peer_environment

from vla.eval.evaluate import evaluate
from vla.eval.grid import EvalConfig
from vla.eval.records import read_records
from vla.provenance import usable_cores
from vla.text import text_table

TARGET, STEPS = 3.0, 500
HERE = Path(__file__).parent


def register_policy(folder: Path) -> None:
    """Make ``bench_eval`` a policy that evaluations find, here and in their workers."""
    info = folder / "bench_eval-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-eval\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vla.policies]\nbench_eval = bench_eval_policy:make\n")
    sys.path[:0] = [str(folder), str(HERE)]


def run_lerobot(flags: argparse.Namespace) -> dict[str, Any]:
    batch = min(usable_cores(), flags.episodes)
    asked = {"tasks": flags.tasks, "episodes": flags.episodes, "batch": batch, "horizon": flags.horizon}
    environment = {**peer_environment(), "PYTHONPATH": str(metaworld_folder())}
    command = [str(lerobot_python()), str(HERE / "bench_eval_peer.py"), json.dumps(asked)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"lerobot's side failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_ours(flags: argparse.Namespace, out: Path) -> dict[str, Any]:
    config = EvalConfig(
        suite="metaworld",
        policy=f"bench_eval,horizon={flags.horizon}",
        tasks=tuple(flags.tasks),
        num_seeds=flags.episodes,
        execution_horizon=flags.horizon,
        image_size=flags.image_size,
        workers=usable_cores(),
        failure_videos_per_cell=0,
    )
    began = time.perf_counter()
    evaluate(config, out, progress=False)
    wall_s = time.perf_counter() - began
    records = read_records(out / "records.jsonl")
    assert not any(record.error for record in records), records[0].error
    return {"wall_s": wall_s, "episodes": len(records), "steps": [record.steps for record in records]}


def measured(run: Any, *given: Any) -> dict[str, Any]:
    """What a side says of itself, and its rate."""
    result = run(*given)
    return {**result, "episodes_per_minute": 60 * result["episodes"] / result["wall_s"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["reach-v3"])
    parser.add_argument("--episodes", type=int, default=2, help="of each task")
    parser.add_argument("--horizon", type=int, default=1)
    parser.add_argument("--image-size", type=int, default=480, help="ours; lerobot's is always 480")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    lerobot_python(), metaworld_folder()  # made before any clock runs
    sides: dict[str, list[dict[str, Any]]] = {"lerobot": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        register_policy(Path(folder))
        for i in range(flags.rounds):
            sides["lerobot"].append(measured(run_lerobot, flags))
            sides["ours"].append(measured(run_ours, flags, Path(folder) / f"run{i}"))
    for side, runs in sides.items():
        for run in runs:
            assert run["episodes"] == len(flags.tasks) * flags.episodes, f"{side}: {run}"
            assert set(run["steps"]) == {STEPS}, f"{side}: episodes of other lengths: {run['steps']}"
    rates = {side: max(run["episodes_per_minute"] for run in runs) for side, runs in sides.items()}
    ratio = rates["ours"] / rates["lerobot"]
    header = ["whose", "episodes a minute", "episodes"]
    rows = [
        [side, f"{rates[side]:.2f}", str(sum(run["episodes"] for run in runs))]
        for side, runs in sides.items()
    ]
    print(text_table(header, rows))
    met = ratio >= TARGET
    row = {
        "claim": f"Meta-World evaluation ({', '.join(flags.tasks)}; {STEPS} steps, one camera of "
        f"{flags.image_size} pixels, asked again after {flags.horizon} step(s), {usable_cores()} cores): "
        "episodes a minute, ours over lerobot 0.6.1",
        "target": f">= {TARGET:g}x",
        "measured": f"{ratio:.1f}x ({rates['ours']:.2f} against {rates['lerobot']:.2f} a minute, "
        f"n={len(flags.tasks) * flags.episodes * flags.rounds} episodes each); {'met' if met else 'missed'}",
        "command": "python scripts/bench_eval.py --check",
        "met": met,
        "ratio": ratio,
        "sides": sides,
        "cores": usable_cores(),
    }
    if flags.out:
        flags.out.write_text(json.dumps(row, indent=1) + "\n")
    print(json.dumps(row))
    return int(flags.check and not met)


if __name__ == "__main__":
    sys.exit(main())
