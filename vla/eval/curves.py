"""Success against time: what a time limit would have made of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla.eval.intervals import Rate
from vla.eval.records import EpisodeRecord


@dataclass(frozen=True)
class TimedRate:
    """Share of the episodes that had succeeded by a time, seconds."""

    time_s: float
    rate: Rate


def time_to_success(records: Sequence[EpisodeRecord], *, points: int = 60) -> list[TimedRate]:
    """Success rate as a function of the time allowed, from 0 to the last success, each with its interval.

    Failed and crashed episodes count at all times, as not yet succeeded. Empty without records.
    """
    if not records:
        return []
    times = np.array([r.time_to_success_s for r in records if r.success and r.time_to_success_s is not None])
    grid = np.linspace(0.0, float(times.max()) if len(times) else 0.0, points if len(times) else 1)
    return [TimedRate(float(at), Rate(int((times <= at + 1e-9).sum()), len(records))) for at in grid]
