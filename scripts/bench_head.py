"""How fast the action head's paths are on this CPU, and how exact: ratios, interleaved in one run.

usage: python scripts/bench_head.py [--block parallel] [--seconds 12] [--no-compile] [--check] [--out FILE]

The head has 6 layers of width 384, a chunk of 16 actions, a prefix of 160 tokens and 10 steps. ``naive``
projects the prefix again in each step, as much code does; ``eager`` is the stock head; ``static`` the fixed
graphs of ``vla.models.static_graphs``; ``compiled`` the same graphs through torch.compile; ``onnx`` and
``onnx-int8`` what ``vla export`` writes of a head, run by ONNX Runtime. The rows of ``prefix + head`` add the
vision-language prefix of ``bench_head_model.py``. One thread is compared by CPU time (other work on the
machine then counts for little), all threads by wall time; best and median are over rounds in which every way
runs once. The error is against the float64 formulas; that of int8 counts as a share of the chunk's range.

Prints a table and, as its last line, everything as JSON, also to --out. ``--check`` exits with 1 where a
target is missed. The Triton path is compiled and interpreted, not timed: that takes a GPU.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from bench_head_model import PREFIX, STEPS, Inputs, VisionPrefix, build
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vla.export.engine import make_session
from vla.export.quantise import quantise_file
from vla.export.steps import ExportedSteps
from vla.export.writing import trace
from vla.files import write_json
from vla.kernels.machine import gemm_flops
from vla.kernels.parity import Case, exact
from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.flow import FlowHead
from vla.models.static_graphs import PrefixGraph, StaticHead
from vla.provenance import package_versions, usable_cores
from vla.text import text_table

WHOLE = "prefix + head"
TARGETS = {
    "onnx over naive": (">=", 3.5),
    "onnx over torch.compile": (">=", 1.5),
    "error of onnx": ("<=", 1e-5),
    "onnx-int8 over naive": (">=", 6.0),
    "error of onnx-int8, share of the range": ("<=", 1e-2),
    "prefix + head by onnx: share of the GEMM peak": (">=", 0.6),
}
Ways = dict[str, Callable[[], Tensor]]


@dataclass(frozen=True, kw_only=True)
class BenchHead:
    """Sizes and how long.

    Args:
        block: parallel (the fast preset's) or sequential.
        seconds: for all ways together, at each number of threads.
        compile: time torch.compile too (its set-up takes half a minute).
        check: exit with 1 where a target is missed.
        out: also write the result there.
    """

    block: str = "parallel"
    seconds: float = 12.0
    compile: bool = True
    check: bool = False
    out: Path | None = None


def torch_ways(head: FlowHead, vision: VisionPrefix, given: Inputs, compiled: bool) -> Iterator[tuple]:
    """Each way of torch's to make the chunk of these inputs."""

    def loop(prefix: PrefixFeatures, once: bool) -> Tensor:
        x, memory = given.noise, head.encode_prefix(prefix, given.state)
        for i in range(STEPS):
            if i and not once:
                memory = head.encode_prefix(prefix, given.state)
            x = x + head.velocity(memory, x, torch.full((1,), i / STEPS)) / STEPS
        return x

    def whole() -> Tensor:
        return loop(PrefixFeatures(vision(given.pictures, given.words), given.prefix.mask), once=True)

    yield "naive", lambda: loop(given.prefix, once=False)
    yield "eager", lambda: loop(given.prefix, once=True)
    static = StaticHead(head, num_steps=STEPS, capacity=PREFIX)
    yield "static", lambda: static(given.prefix, given.state, given.noise)
    if compiled:
        torch.compiler.reset()  # what was compiled for another number of threads keeps it
        made = StaticHead(head, num_steps=STEPS, capacity=PREFIX, compiled=True)
        yield "compiled", lambda: made(given.prefix, given.state, given.noise)
    yield f"{WHOLE}, eager", whole


def write_graphs(head: FlowHead, vision: VisionPrefix, given: Inputs, folder: Path) -> None:
    """The head's two graphs as ``vla export`` lays them out, in float32 and int8, and the vision prefix."""
    prefix = PrefixGraph(head.decoder, torch.float32).eval()
    assert given.prefix.mask is not None
    inputs = (given.prefix.features, given.prefix.mask, given.state)
    memory, mask = prefix(*inputs)
    trace(prefix, inputs, folder / "prefix.onnx", ("features", "mask", "state"), ("memory", "memory_mask"))
    names = ("x", "memory", "memory_mask")
    loop = ExportedSteps(head, STEPS).eval()
    trace(loop, (given.noise, memory, mask), folder / "steps.onnx", names, ("actions",))
    pictures = (given.pictures, given.words)
    trace(vision, pictures, folder / "vision.onnx", ("pictures", "words"), ("features",))
    for name in ("prefix", "steps"):
        quantise_file(folder / f"{name}.onnx", folder / f"{name}.int8.onnx")


def onnx_ways(given: Inputs, folder: Path, threads: int) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """ONNX Runtime with so many threads, as :class:`vla.export.engine.OnnxEngine` sets it up."""
    assert given.prefix.mask is not None
    features, mask = given.prefix.features.numpy(), given.prefix.mask.numpy()
    state, noise = given.state.numpy(), given.noise.numpy()

    def head(suffix: str) -> Callable[..., Tensor]:
        first, loop = (make_session(folder / f"{name}{suffix}", threads) for name in ("prefix", "steps"))

        def run(seen: Any = features) -> Tensor:
            memory, there = first.run(None, {"features": seen, "mask": mask, "state": state})
            fed = {"x": noise, "memory": memory, "memory_mask": there}
            return torch.from_numpy(loop.run(None, fed)[0])

        return run

    plain, vision = head(".onnx"), make_session(folder / "vision.onnx", threads)
    pictures = {"pictures": given.pictures.numpy(), "words": given.words.numpy()}
    yield "onnx", plain
    yield "onnx-int8", head(".int8.onnx")
    yield f"{WHOLE}, onnx", lambda: plain(vision.run(None, pictures)[0])


def measure(routes: Ways, seconds: float, cpu: bool) -> dict[str, list[float]]:
    """Seconds of each call, in rounds of one call each."""
    clock = time.process_time if cpu else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in routes}
    for call in routes.values():
        call()
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["naive"]) < 3:
        for name, call in routes.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return times


@torch.no_grad()
def truths(head: FlowHead, vision: VisionPrefix, given: Inputs) -> dict[bool, Tensor]:
    """The chunk in float64, of the given features and (True) of the pictures."""
    found, plain = {}, given.prefix.features.double()
    seen = vision.double()(given.pictures.double(), given.words.double())
    vision.float()
    for whole, features in ((False, plain), (True, seen)):
        prefix = PrefixFeatures(features, given.prefix.mask)
        case = Case("bench", prefix, given.state.double(), given.noise.double())
        found[whole] = exact(head, case, STEPS)
    return found


@torch.no_grad()
def run(flags: BenchHead, folder: Path) -> dict[str, Any]:
    head, vision, given = build(flags.block)
    truth, result = truths(head, vision, given), {}
    write_graphs(head, vision, given, folder)
    flops: dict[bool, float] = {}
    for threads in sorted({1, usable_cores()}):
        torch.set_num_threads(threads)
        routes: Ways = dict(torch_ways(head, vision, given, flags.compile))
        for whole, name in ((False, "static"), (True, f"{WHOLE}, eager")):
            if whole not in flops:
                counter = FlopCounterMode(display=False)
                with counter:
                    routes[name]()
                flops[whole] = counter.get_total_flops()
        routes.update(onnx_ways(given, folder, threads))
        peak = gemm_flops()
        times = measure(routes, flags.seconds, cpu=threads == 1)
        peak = max(peak, gemm_flops())
        rows = {}
        for name, taken in times.items():
            whole = name.startswith(WHOLE)
            missed = float((routes[name]().double() - truth[whole]).abs().max())
            span = float(truth[whole].max() - truth[whole].min())
            rows[name] = {
                **row(taken, times["naive"]),
                "peak_share": flops[whole] / min(taken) / peak,
                "error": missed,
                "error_share_of_range": missed / span,
            }
        clock = "cpu" if threads == 1 else "wall"
        result[str(threads)] = {"gemm_peak_gflops": peak / 1e9, "clock": clock, "rows": rows}
    return {
        "block": flags.block,
        "parameters": sum(p.numel() for p in head.parameters()),
        "gflop": {"head": flops[False] / 1e9, WHOLE: flops[True] / 1e9},
        "threads": result,
        "cores": usable_cores(),
        "load": os.getloadavg()[0],
        "machine": platform.processor() or platform.machine(),
        "versions": package_versions(("torch", "triton", "onnx", "onnxruntime")),
        "gpu": "compiled and interpreted, not timed",
    }


def row(times: list[float], naive: list[float]) -> dict[str, float]:
    best, median = min(times), statistics.median(times)
    return {
        "best_ms": 1e3 * best,
        "median_ms": 1e3 * median,
        "over_naive": min(naive) / best,
        "over_naive_by_median": statistics.median(naive) / median,
        "rounds": len(times),
    }


def judge(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Each target's value; ratios are of best times."""
    values = {
        "onnx over naive": rows["onnx"]["over_naive"],
        "error of onnx": rows["onnx"]["error"],
        "onnx-int8 over naive": rows["onnx-int8"]["over_naive"],
        "error of onnx-int8, share of the range": rows["onnx-int8"]["error_share_of_range"],
        "prefix + head by onnx: share of the GEMM peak": rows[f"{WHOLE}, onnx"]["peak_share"],
    }
    if "compiled" in rows:
        values["onnx over torch.compile"] = rows["compiled"]["best_ms"] / rows["onnx"]["best_ms"]
    return values


def claim(values: dict[str, float], rows: dict[str, dict[str, float]]) -> dict[str, str]:
    """The line of the README's table."""
    compiled = f", {values['onnx over torch.compile']:.1f}x torch.compile" if "compiled" in rows else ""
    return {
        "claim": "action head of 6 layers of width 384 on one CPU thread, by ONNX Runtime, "
        "over the naive loop",
        "target": "float32 >= 3.5x, >= 1.5x torch.compile, error < 1e-5; int8 >= 6x, < 1 % of the range; "
        "prefix + head >= 60 % of the GEMM peak",
        "measured": f"float32 {values['onnx over naive']:.1f}x{compiled}, "
        f"error {values['error of onnx']:.0e}; "
        f"int8 {values['onnx-int8 over naive']:.1f}x, "
        f"{100 * values['error of onnx-int8, share of the range']:.2f} %; prefix + head "
        f"{100 * values['prefix + head by onnx: share of the GEMM peak']:.0f} %",
        "command": "python scripts/bench_head.py --check",
    }


def meets(name: str, value: float) -> bool:
    sign, target = TARGETS[name]
    return value >= target if sign == ">=" else value <= target


def main(flags: BenchHead) -> int:
    with tempfile.TemporaryDirectory() as folder:
        result = run(flags, Path(folder))
    for threads, part in result["threads"].items():
        peak = f"sgemm peak {part['gemm_peak_gflops']:.0f} GFLOP/s"
        print(f"\n{threads} thread(s), {part['clock']} time, {peak}")
        rows = [
            [name, *(f"{r[k]:.1f}" for k in ("best_ms", "median_ms")), f"{r['over_naive']:.2f}x",
             f"{100 * r['peak_share']:.0f} %", f"{r['error']:.0e}"]
            for name, r in part["rows"].items()
        ]  # fmt: skip
        print(text_table(["way", "best ms", "median ms", "over naive", "of peak", "error"], rows))
    print("\ntriton on a GPU: compiled and interpreted, not timed")
    result["targets"] = {threads: judge(part["rows"]) for threads, part in result["threads"].items()}
    values = result["targets"]["1"]
    result["missed"] = missed = [name for name, value in values.items() if not meets(name, value)]
    for name, value in values.items():
        sign, target = TARGETS[name]
        print(f"{name}: {value:.3g} (target {sign} {target:g}) {'MISSED' if name in missed else 'ok'}")
    if flags.out is not None:
        write_json(flags.out, {**claim(values, result["threads"]["1"]["rows"]), **result})
    print(json.dumps(result))
    return int(flags.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(BenchHead)))
