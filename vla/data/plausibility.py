"""Statistics that no data of an arm can have, and states that its data never came near."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Literal

import numpy as np

from vla.data.statistics import Statistics, VectorStatistics
from vla.embodiment import Embodiment
from vla.errors import StatisticsError

_FAR = 0.5  # of an entry's width in the data: further out than this it never was, nor near it
_NARROW = 0.05  # least width that is credited to an entry, as a share of its declared range
#: Size of a rotation format whose entries' squares have a fixed sum, and that sum.
_SQUARES: Mapping[str, tuple[int, float]] = {
    "cos_sin_2yaw": (2, 1.0),
    "quat_wxyz": (4, 1.0),
    "matrix_6d": (6, 2.0),
}
_ROUGH = 0.1  # rotations in real data are not normalised to the last digit


def check_statistics(embodiment: Embodiment, statistics: Statistics) -> None:
    """Refuse numbers that no data of this arm can have: mixed up, or of another rotation format.

    In every data set min <= q01 <= q99 <= max, the mean lies between min and max, and the deviation is at
    most half their distance (Popoviciu). The mean squares of a rotation's entries (mean^2 + std^2) sum to
    what its format says: 1 for a quaternion or (cos, sin), 2 for two columns of a matrix.

    Raises:
        StatisticsError: with the entries.
    """
    _check_order(embodiment, "state", statistics.state)
    _check_order(embodiment, "action", statistics.action)
    _check_rotations(embodiment, "state", statistics.state)
    _check_rotations(embodiment, "action", statistics.action)


def _check_order(embodiment: Embodiment, kind: Literal["state", "action"], values: VectorStatistics) -> None:
    given = {f.name: np.array(getattr(values, f.name), float) for f in fields(values)}
    low, high = given["min"], given["max"]
    slack = 1e-3 * np.abs(high - low) + 1e-6 * np.maximum(np.abs(low), np.abs(high)) + 1e-9
    for what, holds in (
        ("min <= q01", low <= given["q01"] + slack),
        ("q01 <= q99", given["q01"] <= given["q99"] + slack),
        ("q99 <= max", given["q99"] <= high + slack),
        ("min <= mean", low <= given["mean"] + slack),
        ("mean <= max", given["mean"] <= high + slack),
        ("0 <= std", given["std"] >= 0),
        ("std <= (max - min) / 2", given["std"] <= (high - low) / 2 + slack),
    ):
        if not np.all(holds):
            names = _names(embodiment, kind)
            wrong = ", ".join(name for name, fine in zip(names, holds, strict=True) if not fine)
            raise StatisticsError(
                f"Statistics of {embodiment.name!r} contradict themselves: {what} does not hold for {kind} "
                f"{wrong}. They were mixed up after they were computed: restore policy.json, or train again."
            )


def _check_rotations(
    embodiment: Embodiment, kind: Literal["state", "action"], values: VectorStatistics
) -> None:
    squares = np.square(values.mean) + np.square(values.std)
    for member in embodiment.state if kind == "state" else embodiment.action:
        size, expected = _SQUARES.get(member.rotation_format, (0, 0.0))
        if member.size != size or member.mode != "absolute":
            continue
        found = float(squares[embodiment.field_slice(member.name, of=kind)].sum())
        if abs(found - expected) > _ROUGH * expected:
            raise StatisticsError(
                f"{kind} field {member.name!r} of {embodiment.name!r} is said to be "
                f"{member.rotation_format}, whose squares sum to {expected:g}; in the data they sum to "
                f"{found:.3g}. The data hold another rotation format, or the statistics are of another arm: "
                "mend the embodiment, and train again."
            )


def unfamiliar_entries(embodiment: Embodiment, statistics: Statistics, state: np.ndarray) -> tuple[str, ...]:
    """Names (``field[i]``) of state entries that lie far outside all that the statistics saw.

    Far: by more than half the distance of min and max, which counts as at least 5 % of the declared range.

    Args:
        state: float32 [state_dim], packed, in units.
    """
    low, high = np.array(statistics.state.min), np.array(statistics.state.max)
    declared = np.array([b - a for f in embodiment.state for a, b in zip(f.low, f.high, strict=True)])
    width = np.maximum(high - low, _NARROW * np.where(np.isfinite(declared), declared, 0.0))
    outside = (state < low - _FAR * width) | (state > high + _FAR * width)
    if not outside.any():
        return ()
    names = _names(embodiment, "state")
    return tuple(names[i] for i in np.flatnonzero(outside))


def _names(embodiment: Embodiment, kind: Literal["state", "action"]) -> list[str]:
    members = embodiment.state if kind == "state" else embodiment.action
    return [f"{member.name}[{i}]" for member in members for i in range(member.size)]
