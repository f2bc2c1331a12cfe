"""Success against latency: the same scenes under each way of executing and each time that thinking takes.

A study is a directory of ordinary evaluations, one for each execution and latency (``async-0.2`` ...), and
``latency.json``, what they say together. The same call on the same directory runs what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

from vla.control.chunks import EXECUTIONS, Execution
from vla.control.latency import checked_trace
from vla.control.policies import PolicySpec, check_continues
from vla.errors import ConfigError, IncompatibleError, UnknownNameError
from vla.eval.curves import TimedRate
from vla.eval.evaluate import evaluate, load_summary
from vla.eval.grid import EvalConfig
from vla.eval.intervals import Rate
from vla.eval.paired import Pairs, holm
from vla.eval.records import EpisodeRecord
from vla.files import read_json, write_json
from vla.text import text_table, wrapped

LATENCY = "latency.json"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One execution at one latency.

    Args:
        execution: see ``vla.control.chunks.EXECUTIONS``.
        latency: as it was named: seconds, or the name of a trace.
        mean_s: of the trace.
        success: over all cells under the first condition; crashes count as failures.
        time_to_success_s: mean over successes, the waiting included; None without any.
        pairs: A this, B synchronous at the same latency in the same scenes; None where that was not run.
        p_holm: of the pairs, corrected for the number of comparisons in the study.
    """

    execution: Execution
    latency: str
    mean_s: float
    success: Rate
    time_to_success_s: float | None
    pairs: Pairs | None = None
    p_holm: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "execution": self.execution,
            "latency": self.latency,
            "mean_latency_s": self.mean_s,
            "success": self.success.to_json(),
            "time_to_success_s": self.time_to_success_s,
            "against_sync": None if self.pairs is None else self.pairs.to_json(),
            "p_holm": self.p_holm,
        }


@dataclass(frozen=True, kw_only=True)
class LatencyStudy:
    """What the evaluations of a study say together."""

    policy: str
    suite: str
    execution_horizon: int
    points: tuple[Point, ...]

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and one row a point, as the console and the page show them."""
        header = ["execution", "latency", "success", "time to success", "minus sync, points", "p, Holm"]
        return header, [_row(point) for point in self.points]

    def text(self) -> str:
        """The table, and what its names mean."""
        meant = "; ".join(
            f"{name}: {EXECUTIONS[name]}" for name in dict.fromkeys(p.execution for p in self.points)
        )
        note = (
            f"While the policy thinks: {meant}. Rates with 95 % Wilson intervals; differences to sync at the "
            "same latency in the same scenes, with Tango's interval and McNemar's exact test."
        )
        title = f"{self.policy} on {self.suite}, asked again after {self.execution_horizon} steps"
        return f"{title}\n\n{text_table(*self.rows())}\n\n{wrapped(note)}"

    def curves(self) -> list[tuple[str, list[TimedRate]]]:
        """Success against mean latency for each execution, in order of latency."""
        found: dict[str, list[TimedRate]] = {}
        for point in sorted(self.points, key=lambda point: point.mean_s):
            found.setdefault(point.execution, []).append(TimedRate(point.mean_s, point.success))
        return list(found.items())

    def to_json(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "suite": self.suite,
            "execution_horizon": self.execution_horizon,
            "points": [point.to_json() for point in self.points],
        }


def study_latency(
    config: EvalConfig,
    out: str | Path,
    *,
    executions: Sequence[Execution],
    traces: Mapping[str, Sequence[float]],
    progress: bool = True,
) -> LatencyStudy:
    """Run what is missing of a study in ``out`` and write ``latency.json``.

    Args:
        config: of each evaluation; its execution and latency are set here.
        executions: ways to execute.
        traces: name -> latencies, s, as in ``EvalConfig.latency_s``.

    Raises:
        IncompatibleError: ``rtc`` with a policy that cannot continue a chunk; nothing was run.
        ConfigError: nothing to study, or two traces under one name; what ``evaluate`` raises.
    """
    if not executions or not traces:
        raise ConfigError(f"{len(executions)} executions and {len(traces)} latencies: expected one of each.")
    for name in executions:
        if name not in get_args(Execution):
            raise UnknownNameError("execution", name, get_args(Execution))
    if "rtc" in executions:
        _check_rtc(config.policy)
    plan = [(how, name) for name in traces for how in dict.fromkeys(executions)]
    for how, name in plan:
        latency_s = checked_trace(traces[name])
        one = replace(config, execution=how, latency_s=latency_s)
        evaluate(one, Path(out) / f"{how}-{name}", progress=progress)
    content = {"runs": [{"execution": how, "latency": name} for how, name in plan]}
    write_json(Path(out) / LATENCY, content)
    study = load_study(out)
    write_json(Path(out) / LATENCY, {**content, **study.to_json()})
    return study


def is_study(out: str | Path) -> bool:
    """Whether a directory holds a study."""
    return (Path(out) / LATENCY).is_file()


def load_study(out: str | Path) -> LatencyStudy:
    """A study from the records of its evaluations.

    Raises:
        ConfigError: ``latency.json`` is missing or damaged.
        EnvError: one of its evaluations is not there.
    """
    out = Path(out)
    remedy = "Run 'vla eval latency' again in this directory: finished episodes are kept."
    content = read_json(out / LATENCY, ConfigError, remedy)
    found: dict[tuple[str, str], tuple[EvalConfig, list[EpisodeRecord]]] = {}
    try:
        for run in content["runs"]:
            config, records, _ = load_summary(out / f"{run['execution']}-{run['latency']}")
            first = next((record.key.condition for record in records), "")
            found[run["execution"], run["latency"]] = (
                config,
                [record for record in records if record.key.condition == first],
            )
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{out / LATENCY} is damaged: {error!r}. {remedy}") from error
    if not found:
        raise ConfigError(f"{out / LATENCY} names no evaluation. {remedy}")
    points = [_point(name, *content, found.get(("sync", name[1]))) for name, content in found.items()]
    tested = {i: point.pairs.p_value for i, point in enumerate(points) if point.pairs is not None}
    corrected = holm(tested)
    config, _ = next(iter(found.values()))
    return LatencyStudy(
        policy=config.policy,
        suite=config.suite,
        execution_horizon=config.execution_horizon or 0,
        points=tuple(replace(point, p_holm=corrected.get(i)) for i, point in enumerate(points)),
    )


def _check_rtc(policy: str) -> None:
    spec = PolicySpec.parse(policy)
    if spec.is_bound:
        raise IncompatibleError(
            f"policy {policy!r}",
            "real-time chunking",
            ["it is made for one scene and plans no chunk; leave rtc out of --execution"],
        )
    check_continues(spec.build())


def _point(
    name: tuple[str, str],
    config: EvalConfig,
    records: Sequence[EpisodeRecord],
    sync: tuple[EvalConfig, Sequence[EpisodeRecord]] | None,
) -> Point:
    pairs = None
    if sync is not None and config.execution != "sync":
        other = {record.key: record.success for record in sync[1]}
        shared = [record for record in records if record.key in other]
        pairs = Pairs.of([record.success for record in shared], [other[record.key] for record in shared])
    times = [record.time_to_success_s for record in records if record.time_to_success_s is not None]
    return Point(
        execution=config.execution,
        latency=name[1],
        mean_s=fmean(config.latency_s) if config.latency_s else 0.0,
        success=Rate.of(record.success for record in records),
        time_to_success_s=fmean(times) if times else None,
        pairs=pairs,
    )


def _row(point: Point) -> list[str]:
    time = "-" if point.time_to_success_s is None else f"{point.time_to_success_s:.1f} s"
    unit = " s" if point.latency.replace(".", "", 1).isdigit() else f" (mean {point.mean_s:.3f} s)"
    row = [point.execution, f"{point.latency}{unit}", str(point.success), time]
    if point.pairs is None or point.p_holm is None:
        return [*row, "-", "-"]
    low, high = point.pairs.interval
    gap = f"{100 * point.pairs.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return [*row, gap, f"{point.p_holm:.2g}"]
