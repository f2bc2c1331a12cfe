"""Ranges of fields, measured: no file of numbers says how far an arm may go, only how far it went."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vla.data.description import DatasetDescription
from vla.data.mapped import MappedSource
from vla.data.source import RawDataset
from vla.data.statistics import VectorStatistics, compute_statistics
from vla.embodiment import Field

_WIDEST = 3.0  # times the 1 % to 99 % distance beyond these quantiles: what lies farther is an outlier
_MARGIN = 0.05  # of the measured width, at either end
_NARROWEST = 0.1  # of the widest entry of the same quantity: an entry that only carries noise keeps some room
_ROOM = 1e-3  # m, rad: of a quantity that never changes at all


def with_measured_ranges(raw: RawDataset, draft: DatasetDescription) -> DatasetDescription:
    """The description with ranges of the data in place of those drafted, and ``ranges="measured"``.

    Grippers and rotation matrices keep theirs: these follow from how they are written. Reads the numbers of
    every episode once.

    Raises:
        DatasetError: numbers that are not finite.
    """
    source = MappedSource(raw, replace(draft, instruction=draft.instruction or "-"))
    arm = draft.embodiment
    statistics = compute_statistics(source)[arm.name]
    return replace(
        draft,
        ranges="measured",
        embodiment=replace(
            arm,
            state=_measured(arm.state, statistics.state),
            action=_measured(arm.action, statistics.action),
        ),
    )


def _measured(fields: tuple[Field, ...], statistics: VectorStatistics) -> tuple[Field, ...]:
    bounds, start = [], 0
    for field in fields:
        rows = (np.array(getattr(statistics, key)[start : start + field.size]) for key in _KEYS)
        bounds.append(_bounds(*rows))
        start += field.size
    widest: dict[str, float] = {}
    for field, (low, high) in zip(fields, bounds, strict=True):
        widest[field.slot] = max(widest.get(field.slot, 0.0), float((high - low).max()))
    return tuple(
        field if _known(field) else _ranged(field, low, high, widest[field.slot])
        for field, (low, high) in zip(fields, bounds, strict=True)
    )


_KEYS = ("min", "max", "q01", "q99")


def _known(field: Field) -> bool:
    return field.rotation_format == "matrix_6d" or "gripper" in field.slot


def _bounds(
    low: np.ndarray, high: np.ndarray, q01: np.ndarray, q99: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest value of each entry, outliers left out."""
    spread = q99 - q01
    reach = np.where(spread > 1e-3 * (high - low), _WIDEST * spread, np.inf)
    return np.maximum(low, q01 - reach), np.minimum(high, q99 + reach)


def _ranged(field: Field, low: np.ndarray, high: np.ndarray, widest: float) -> Field:
    least = max(_NARROWEST * widest, _ROOM)
    pad = np.maximum(_MARGIN * (high - low), (least - (high - low)) / 2)
    low, high = low - pad, high + pad
    if field.mode != "absolute":  # no motion lies in the middle
        high = np.maximum(np.abs(low), np.abs(high))
        low = -high
    return replace(
        field, low=tuple(float(f"{x:.6g}") for x in low), high=tuple(float(f"{x:.6g}") for x in high)
    )
