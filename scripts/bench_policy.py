"""How often a policy can replan on this CPU: torch, ONNX Runtime and int8, interleaved in one run.

usage: python scripts/bench_policy.py [--policy default] [--export DIR] [--seconds 6] [--check] [--out FILE]

A replan is everything between an observation (two 64-pixel cameras, state, sentence) and a chunk in the arm's
units. ``torch`` is the network as it loads, ``torch static`` its head's fixed graphs, ``onnx`` and
``onnx-int8`` what ``vla export --int8`` wrote; without --export an export is made in a temporary folder, int8
kept whatever it loses, and its action error is printed. Wall time, and CPU time beside it: on a busy machine
the second is the repeatable one.

Prints a table and, as its last line, everything as JSON, also to --out. ``--check`` exits with 1 unless ONNX
Runtime, the default engine, replans at 20 Hz at least on one or two threads, by the median of wall times.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from vla import registry
from vla.cli.parity import policy_directory
from vla.contract import PolicyContract
from vla.export.manifest import Manifest
from vla.export.quantise import action_error, first_observations, judge, quantise
from vla.export.writing import export_policy
from vla.files import write_json
from vla.models.fused import fuse_policy
from vla.provenance import package_versions, usable_cores
from vla.text import text_table

TARGET_HZ = 20.0


@dataclass(frozen=True, kw_only=True)
class BenchPolicy:
    """What and how long.

    Args:
        policy: a policy directory, or default.
        export: a folder that vla export --int8 wrote; left out: one is made.
        seconds: for all engines together, at each number of threads.
        observations: the first ones of as many episodes, on which int8 is judged and all are timed.
        check: exit with 1 where the default engine misses the target.
        out: also write the result there.
    """

    policy: str = "default"
    export: Path | None = None
    seconds: float = 6.0
    observations: int = 12
    check: bool = False
    out: Path | None = None


def engines(policy: Path, folder: Path, threads: int) -> dict[str, Any]:
    """Each way to run the policy."""
    make = registry.policy_factory("learned")
    found = {"torch": make(policy, engine="torch", threads=threads)}
    found["torch static"] = make(policy, engine="torch", threads=threads)
    fuse_policy(found["torch static"].net, path="static")
    found["onnx"] = make(policy, engine="onnx", export=folder, threads=threads)
    if (Manifest.load(folder, found["onnx"].contract).int8 or {}).get("accepted"):
        found["onnx-int8"] = make(policy, engine="onnx-int8", export=folder, threads=threads)
    return found


def measure(ways: dict[str, Any], seen: list[Any], seconds: float) -> dict[str, dict[str, float]]:
    """Milliseconds of a replan, in rounds in which every engine sees the same observation."""
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for policy in ways.values():
        policy.act(seen[:1])
    end, turn = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or turn < 5:
        for name, policy in ways.items():
            busy, start = time.process_time(), time.perf_counter()
            policy.act([seen[turn % len(seen)]])
            wall[name].append(1e3 * (time.perf_counter() - start))
            cpu[name].append(1e3 * (time.process_time() - busy))
        turn += 1
    return {name: row(wall[name], cpu[name]) for name in ways}


def row(wall: list[float], cpu: list[float]) -> dict[str, float]:
    median = statistics.median(wall)
    return {
        "best_ms": min(wall),
        "median_ms": median,
        "p99_ms": sorted(wall)[int(0.99 * (len(wall) - 1))],
        "cpu_ms": statistics.median(cpu),
        "hz": 1e3 / median,
        "rounds": len(wall),
    }


def judge_int8(policy: Path, folder: Path, contract: PolicyContract, seen: list[Any]) -> None:
    """Keep the int8 files with their report, whatever they lose."""
    make = registry.policy_factory("learned")
    small = make(policy, engine="onnx-int8", export=folder)
    report = action_error(make(policy, engine="torch"), small, seen, contract.embodiments)
    judge(folder, contract, report, accept=True)


def run(flags: BenchPolicy, folder: Path) -> dict[str, Any]:
    policy = policy_directory(flags.policy)
    contract = PolicyContract.load(policy)
    if flags.export is None:
        export_policy(policy, folder)
        quantise(folder, contract)
    seen = list(first_observations(registry.suite("tabletop"), contract, flags.observations))
    if flags.export is None:
        judge_int8(policy, folder, contract, seen)
    result = {
        str(threads): measure(engines(policy, folder, threads), seen, flags.seconds)
        for threads in sorted({1, min(2, usable_cores())})
    }
    manifest = Manifest.load(folder, contract)
    return {
        "policy": flags.policy,
        "cameras": len(contract.camera_roles),
        "image_size": contract.image_size,
        "num_flow_steps": contract.num_flow_steps,
        "threads": result,
        "replanning_hz": max(rows["onnx"]["hz"] for rows in result.values()),
        "parity": manifest.parity,
        "int8": manifest.int8,
        "cores": usable_cores(),
        "load": os.getloadavg()[0],
        "machine": platform.processor() or platform.machine(),
        "versions": package_versions(("torch", "onnx", "onnxruntime")),
    }


def claim(result: dict[str, Any]) -> dict[str, str]:
    """The line of the README's table."""
    by_threads = ", ".join(
        f"{rows['onnx']['hz']:.0f} Hz on {n} thread(s) (torch {rows['torch']['hz']:.0f})"
        for n, rows in result["threads"].items()
    )
    return {
        "claim": f"replanning of the {result['policy']} policy with {result['cameras']} cameras on "
        f"{result['cores']} CPU cores",
        "target": f">= {TARGET_HZ:g} Hz",
        "measured": by_threads,
        "command": "python scripts/bench_policy.py --check",
    }


def main(flags: BenchPolicy) -> int:
    with tempfile.TemporaryDirectory() as temporary:
        result = run(flags, flags.export or Path(temporary) / "onnx")
    for threads, rows in result["threads"].items():
        print(f"\n{threads} thread(s), {result['cameras']} cameras of {result['image_size']} px")
        names = ("best_ms", "median_ms", "p99_ms", "cpu_ms", "hz")
        table = [
            [
                name,
                *(f"{found[key]:.1f}" for key in names),
                f"{rows['torch']['cpu_ms'] / found['cpu_ms']:.2f}x",
            ]
            for name, found in rows.items()
        ]
        print(text_table(["engine", "best ms", "median", "p99", "cpu ms", "Hz", "over torch"], table))
    if result["int8"]:
        print(f"\nint8: {result['int8']['largest']:.1e} of the action range at most")
    missed = not result["replanning_hz"] >= TARGET_HZ
    state = "MISSED" if missed else "ok"
    print(f"replanning with onnx: {result['replanning_hz']:.0f} Hz (target >= {TARGET_HZ:g}) {state}")
    if flags.out is not None:
        write_json(flags.out, {**claim(result), **result})
    print(json.dumps(result))
    return int(flags.check and missed)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(BenchPolicy)))
