"""Two evaluations episode by episode: the same scene, instruction and start, met by two policies."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vla.errors import ConfigError
from vla.eval.evaluate import load_summary
from vla.eval.grid import EvalConfig
from vla.eval.intervals import Rate
from vla.eval.paired import Pairs, bootstrap_difference, holm
from vla.eval.records import EpisodeKey, EpisodeRecord
from vla.text import text_table, wrapped

ALPHA = 0.05
#: What may differ between two evaluations that are compared: the policy, and what changes no episode.
_MAY_DIFFER = {
    *(
        "policy",
        "execution_horizon",
        "execution",
        "latency_s",
        "image_size",
        "workers",
        "max_errors",
        "record",
    ),
    *("tasks", "embodiments", "first_seed", "num_seeds", "variants", "wordings", "ablations"),
    *("videos_per_cell", "failure_videos_per_cell"),
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A and B on the episodes that both ran.

    Args:
        a, b: the policies, as they were named.
        conditions: by condition (``base``, ``swapped``, ``base blank`` ...), over all cells.
        tasks: by task, under the first condition.
        holm: by task, its p-value corrected for their number.
        cells_mean: mean over cells of the difference with its bootstrap interval, first condition.
        left_out: episodes that only one of them ran.
    """

    a: str
    b: str
    conditions: Mapping[str, Pairs]
    tasks: Mapping[str, Pairs]
    holm: Mapping[str, float]
    cells_mean: tuple[float, float, float]
    left_out: int

    @property
    def b_is_worse(self) -> bool:
        """Significantly, over all cells under the first condition, or in a task (corrected)."""
        first = next(iter(self.conditions.values()))
        return (first.difference > 0 and first.p_value <= ALPHA) or any(
            pairs.difference > 0 and self.holm[name] <= ALPHA for name, pairs in self.tasks.items()
        )

    def text(self) -> str:
        """Tables and a verdict."""
        head = ["", "n", "A", "B", "A - B, points", "only A", "only B", "p"]
        rows = [_row(name, pairs, pairs.p_value) for name, pairs in self.conditions.items()]
        tasks = [_row(name, pairs, self.holm[name]) for name, pairs in self.tasks.items()]
        mean, low, high = self.cells_mean
        condition, pairs = next(iter(self.conditions.items()))
        lines = [f"A: {self.a}", f"B: {self.b}", "", text_table(["condition", *head[1:]], rows), ""]
        lines += [text_table([f"task ({condition})", *head[1:-1], "p, Holm"], tasks), ""]
        lines += [
            wrapped(
                f"Mean over cells, A - B: {100 * mean:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]."
            )
        ]
        lines += [wrapped(_verdict(pairs))]
        if self.left_out:
            lines += [wrapped(f"{self.left_out} episodes that only one of them ran are not counted.")]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        mean, low, high = self.cells_mean
        return {
            "a": self.a,
            "b": self.b,
            "conditions": {name: pairs.to_json() for name, pairs in self.conditions.items()},
            "tasks": {
                name: {**pairs.to_json(), "p_holm": self.holm[name]} for name, pairs in self.tasks.items()
            },
            "mean_over_cells": {"difference": mean, "low": low, "high": high},
            "left_out": self.left_out,
        }


def compare_runs(a: str | Path, b: str | Path) -> Comparison:
    """Compare what ``vla eval`` wrote to two directories.

    Raises:
        EnvError: a directory that holds no evaluation.
        ConfigError: they judged different things, or have no episode in common.
    """
    (config_a, of_a, _), (config_b, of_b, _) = load_summary(a), load_summary(b)
    _check_alike(config_a, config_b)
    return compare_records(of_a, of_b, a=config_a.policy, b=config_b.policy)


def compare_records(
    of_a: Sequence[EpisodeRecord], of_b: Sequence[EpisodeRecord], *, a: str, b: str
) -> Comparison:
    """Pair records by scene, instruction and condition; crashed episodes count as failures.

    Raises:
        ConfigError: no episode in common, or two records of one episode heard different instructions.
    """
    left, right = ({record.key: record for record in records} for records in (of_a, of_b))
    shared = [key for key in left if key in right]
    if not shared:
        raise ConfigError("The two evaluations have no episode in common: same tasks, arms and --first-seed?")
    for key in shared:
        heard = left[key].instruction, right[key].instruction
        if heard[0] != heard[1] and not (left[key].error or right[key].error):
            raise ConfigError(
                f"{key.label}: A was told {heard[0]!r}, B {heard[1]!r}: the suite has changed in between."
            )

    def pairs(keys: Sequence[EpisodeKey]) -> Pairs:
        return Pairs.of([left[key].success for key in keys], [right[key].success for key in keys])

    conditions = {name: pairs(keys) for name, keys in _grouped(shared, lambda key: key.condition).items()}
    first = next(iter(conditions))
    plain = [key for key in shared if key.condition == first]
    tasks = {name: pairs(keys) for name, keys in _grouped(plain, lambda key: key.task).items()}
    cells = {
        cell: ([left[key].success for key in keys], [right[key].success for key in keys])
        for cell, keys in _grouped(plain, lambda key: (key.task, key.embodiment)).items()
    }
    return Comparison(
        a=a,
        b=b,
        conditions=conditions,
        tasks=tasks,
        holm=holm({name: found.p_value for name, found in tasks.items()}),
        cells_mean=bootstrap_difference(cells),
        left_out=len(left) + len(right) - 2 * len(shared),
    )


def overall_rates(runs: Sequence[str | Path]) -> dict[Path, Rate]:
    """Success under the first condition of each run directory; they must have judged the same.

    Raises:
        ConfigError: they judged different things.
    """
    found: dict[Path, Rate] = {}
    first: EvalConfig | None = None
    for run in runs:
        config, _, summary = load_summary(run)
        first = first or config
        _check_alike(first, config)
        found[Path(run)] = next(iter(summary.overall.values())).success
    return found


def _check_alike(a: EvalConfig, b: EvalConfig) -> None:
    left, right = asdict(a), asdict(b)
    other = [
        f"{k}: {left[k]!r} and {right[k]!r}" for k in left if k not in _MAY_DIFFER and left[k] != right[k]
    ]
    if other:
        raise ConfigError(
            "The two evaluations judged different things:" + "".join(f"\n  - {x}" for x in other)
        )


def _grouped(keys: Sequence[EpisodeKey], of: Callable[[EpisodeKey], Hashable]) -> dict[Any, list[EpisodeKey]]:
    groups: dict[Any, list[EpisodeKey]] = {}
    for key in keys:
        groups.setdefault(of(key), []).append(key)
    return groups


def _row(name: str, pairs: Pairs, p_value: float) -> list[str]:
    low, high = pairs.interval
    rates = [f"{100 * (pairs.both + only) / pairs.n:.1f} %" for only in (pairs.only_a, pairs.only_b)]
    gap = f"{100 * pairs.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return [name, str(pairs.n), *rates, gap, str(pairs.only_a), str(pairs.only_b), f"{p_value:.3g}"]


def _verdict(pairs: Pairs) -> str:
    low, high = pairs.interval
    if pairs.p_value <= ALPHA:
        better, worse = ("A", "B") if pairs.difference > 0 else ("B", "A")
        return (
            f"{better} is better than {worse} (McNemar's exact test, p = {pairs.p_value:.2g}, n = {pairs.n})."
        )
    return (
        f"They cannot be told apart on these {pairs.n} episodes (p = {pairs.p_value:.2g}): the difference "
        f"may lie anywhere from {100 * low:+.1f} to {100 * high:+.1f} points. 'vla eval power' says how many "
        "more it takes."
    )
