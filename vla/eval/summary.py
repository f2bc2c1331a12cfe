"""From records to numbers: rates with n and interval, by cell, task, arm and condition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla.control.safety import EVENTS, MATERIAL
from vla.eval.audit import Audit, audit
from vla.eval.intervals import Rate
from vla.eval.records import ENV_CLIPPED, EpisodeRecord

#: Counts of ``EpisodeRecord.safety`` in the order of the tables: the material ones first.
SAFETY_COUNTS = (*MATERIAL, *EVENTS, ENV_CLIPPED)


@dataclass(frozen=True, kw_only=True)
class Group:
    """What a set of episodes has in common.

    Args:
        success, wrong: rates over all episodes, crashed ones included (as failures).
        errors: episodes that crashed.
        time_to_success_s: median over successes; None without any.
        latency_mean_s, latency_p95_s: mean over episodes of the policy's mean latency; worst p95.
        safety: by count of ``SAFETY_COUNTS``, share of the steps of the episodes that have the count; those
            that no episode has are left out.
        target_error_t0_m, goal_error_t0_m: median over episodes; None where the policy does not say.
        target_error_m: by phase, mean over episodes.
    """

    success: Rate
    wrong: Rate
    errors: int
    time_to_success_s: float | None
    latency_mean_s: float
    latency_p95_s: float
    safety: Mapping[str, float]
    target_error_t0_m: float | None
    goal_error_t0_m: float | None
    target_error_m: Mapping[str, float]

    @classmethod
    def of(cls, records: Sequence[EpisodeRecord]) -> Group:
        ran = [record for record in records if not record.error]
        phases = sorted({phase for record in ran for phase in record.target_error_m})
        return cls(
            success=Rate.of(record.success for record in records),
            wrong=Rate.of(record.wrong for record in records),
            errors=len(records) - len(ran),
            time_to_success_s=_median(record.time_to_success_s for record in ran),
            latency_mean_s=float(np.mean([r.latency_mean_s for r in ran])) if ran else 0.0,
            latency_p95_s=max((r.latency_p95_s for r in ran), default=0.0),
            safety=_safety(ran),
            target_error_t0_m=_median(record.target_error_t0_m for record in ran),
            goal_error_t0_m=_median(record.goal_error_t0_m for record in ran),
            target_error_m={
                phase: float(np.mean([r.target_error_m[phase] for r in ran if phase in r.target_error_m]))
                for phase in phases
            },
        )

    def to_json(self) -> dict[str, Any]:
        data = dict(self.__dict__)
        return {**data, "success": self.success.to_json(), "wrong": self.wrong.to_json()}


def _safety(records: Sequence[EpisodeRecord]) -> dict[str, float]:
    shares = {}
    for count in SAFETY_COUNTS:
        if knowing := [record for record in records if count in record.safety]:
            steps = sum(record.steps for record in knowing)
            shares[count] = sum(record.safety[count] for record in knowing) / max(steps, 1)
    return shares


#: condition -> group
Row = Mapping[str, Group]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Groups of episodes: by condition, and by condition for each task, arm and cell (task, arm).

    ``code_versions`` names each program that a session ran with; more than one is worth a warning. ``audit``:
    whether the policy looks and listens, where arms of an audit were run (``vla.eval.audit``). ``by_level``:
    by the groups of tasks that the suite gives results by, those that were run. ``heldout_arms``: those that
    were run and that the suite keeps out of training.
    """

    suite: str
    policy: str
    num_planned: int
    code_versions: tuple[str, ...]
    overall: Row
    by_task: Mapping[str, Row]
    by_arm: Mapping[str, Row]
    by_cell: Mapping[tuple[str, str], Row]
    audit: Audit | None = None
    by_level: Mapping[str, Row] = field(default_factory=dict)
    heldout_arms: tuple[str, ...] = ()

    @property
    def conditions(self) -> tuple[str, ...]:
        """``base``, ``swapped``, other wordings, ablations."""
        return tuple(self.overall)

    @property
    def num_episodes(self) -> int:
        return sum(group.success.n for group in self.overall.values())

    def worst_cell(self, condition: str) -> tuple[tuple[str, str], Group] | None:
        """The cell with the lowest success rate under a condition."""
        cells = [(cell, row[condition]) for cell, row in self.by_cell.items() if condition in row]
        return min(cells, key=lambda item: item[1].success.value, default=None)

    def mean_of_cells(self, condition: str) -> float | None:
        """Mean success rate over cells, each counted alike."""
        return _mean_rate(self.by_cell.values(), condition)

    def mean_of_levels(self, condition: str) -> float | None:
        """Mean success rate over levels, each counted alike; None without any."""
        return _mean_rate(self.by_level.values(), condition)

    def to_json(self) -> dict[str, Any]:
        return {
            "suite": self.suite,
            "policy": self.policy,
            "num_planned": self.num_planned,
            "num_episodes": self.num_episodes,
            "code_versions": list(self.code_versions),
            "overall": _row_json(self.overall),
            "by_task": {name: _row_json(row) for name, row in self.by_task.items()},
            "by_arm": {name: _row_json(row) for name, row in self.by_arm.items()},
            "by_cell": [
                {"task": task, "embodiment": arm, **_row_json(row)}
                for (task, arm), row in self.by_cell.items()
            ],
            "heldout_arms": list(self.heldout_arms),
            "audit": None if self.audit is None else self.audit.to_json(),
            "by_level": {name: _row_json(row) for name, row in self.by_level.items()},
            "mean_of_levels": {c: self.mean_of_levels(c) for c in self.conditions} if self.by_level else {},
        }


def summarise(
    records: Sequence[EpisodeRecord],
    *,
    suite: str,
    policy: str,
    num_planned: int,
    code_versions: tuple[str, ...] = (),
    levels: Mapping[str, Sequence[str]] | None = None,
    heldout_arms: Sequence[str] = (),
) -> Summary:
    """Group the records of one evaluation.

    Args:
        records: of it.
        suite, policy, num_planned, code_versions: see :class:`Summary`.
        levels: groups of tasks that results are given by.
        heldout_arms: that the suite keeps out of training.
    """
    ordered = sorted(
        records, key=lambda r: (r.key.ablation != "none", r.key.wording != "train", r.key.variant)
    )
    return Summary(
        suite=suite,
        policy=policy,
        num_planned=num_planned,
        code_versions=code_versions,
        overall=_row(ordered),
        by_task={name: _row(g) for name, g in _grouped(ordered, lambda r: r.key.task).items()},
        by_arm={name: _row(g) for name, g in _grouped(ordered, lambda r: r.key.embodiment).items()},
        by_cell={
            cell: _row(g) for cell, g in _grouped(ordered, lambda r: (r.key.task, r.key.embodiment)).items()
        },
        audit=audit(ordered),
        by_level={
            name: _row(members)
            for name, tasks in (levels or {}).items()
            if (members := [r for r in ordered if r.key.task in tasks])
        },
        heldout_arms=tuple(arm for arm in heldout_arms if any(r.key.embodiment == arm for r in records)),
    )


def _grouped(
    records: Sequence[EpisodeRecord], of: Callable[[EpisodeRecord], Any]
) -> dict[Any, list[EpisodeRecord]]:
    groups: dict[Any, list[EpisodeRecord]] = {}
    for record in records:
        groups.setdefault(of(record), []).append(record)
    return groups


def _row(records: Sequence[EpisodeRecord]) -> dict[str, Group]:
    return {name: Group.of(group) for name, group in _grouped(records, lambda r: r.key.condition).items()}


def _mean_rate(rows: Iterable[Row], condition: str) -> float | None:
    rates = [row[condition].success.value for row in rows if condition in row]
    return float(np.mean(rates)) if rates else None


def _row_json(row: Row) -> dict[str, Any]:
    return {condition: group.to_json() for condition, group in row.items()}


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
