"""``vla eval latency``: success against the time that the policy takes, for each way of executing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from vla.cli.flags import Arms, parse, policy_spec
from vla.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LatencyFlags:
    """Judge a policy on a clock that goes on while it thinks; the same command runs what is missing.

    Args:
        policy: as for vla eval --policy.
        head: which of the policy's action heads decides; its default if not given.
        out: folder of the evaluations (one for each execution and latency), latency.json and report.html.
        latencies: seconds that the policy takes for each chunk.
        traces: files of measured latencies besides: a JSON list of seconds, or the records of an evaluation.
        execution: while it thinks: hold still (sync), execute the last chunk on (async), average all chunks
            (ensemble), have the chunk continue the last one (rtc; flow and diffusion heads).
        suite: registered suite.
        tasks: empty for all of the suite's.
        arms: empty for all of the suite's.
        episodes: held-out seeds of each task with each arm.
        first_seed: the first of them.
        execution_horizon: steps of each chunk to run before asking again; the policy's own if not given.
        workers: processes; 0 runs in this one.
        quiet: no progress bar.
    """

    policy: tyro.conf.Positional[str] = "default"
    head: str | None = None
    out: Path = Path("runs/latency")
    latencies: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4)
    traces: tuple[Path, ...] = ()
    execution: tuple[Literal["sync", "async", "ensemble", "rtc"], ...] = ("sync", "async", "ensemble", "rtc")
    suite: str = "tabletop"
    tasks: tuple[str, ...] = ()
    arms: Arms = ()
    episodes: int = 25
    first_seed: int = 0
    execution_horizon: int | None = None
    workers: int = 2
    quiet: bool = False


def run_latency(argv: Sequence[str]) -> int:
    flags = parse(LatencyFlags, "eval latency", argv)
    from vla.control.latency import load_trace
    from vla.eval.grid import EvalConfig
    from vla.eval.latency import study_latency
    from vla.report.latency import write_latency_report

    traces: dict[str, tuple[float, ...]] = {f"{seconds:g}": (seconds,) for seconds in flags.latencies}
    for path in flags.traces:
        name = (
            path.stem
            if path.suffix == ".json"
            else path.resolve().name
            if path.is_dir()
            else path.parent.name
        )
        if name in traces:
            raise ConfigError(f"Two latencies are called {name!r}: rename {path}.")
        traces[name] = load_trace(path)
    config = EvalConfig(
        suite=flags.suite,
        policy=policy_spec(flags.policy, flags.head),
        tasks=flags.tasks,
        embodiments=flags.arms,
        first_seed=flags.first_seed,
        num_seeds=flags.episodes,
        execution_horizon=flags.execution_horizon,
        workers=flags.workers,
        failure_videos_per_cell=0,
    )
    study = study_latency(
        config, flags.out, executions=flags.execution, traces=traces, progress=not flags.quiet
    )
    print(study.text())
    print(f"\nnumbers: {flags.out / 'latency.json'}\nreport:  {write_latency_report(flags.out)}")
    return 0
