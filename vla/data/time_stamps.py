"""Whether the time stamps of an episode can be: they rise, leave no step out and are seconds."""

from __future__ import annotations

import numpy as np

from vla.errors import DatasetError

#: Times the usual one, above which the time from one step to the next is a gap: steps are missing.
GAP_FACTOR = 1.6
#: Share of the stated rate that time stamps may differ from it.
RATE_TOLERANCE = 0.1
_STRANGE_RATE = 100.0  # times the stated rate, that nobody means: milliseconds read as seconds are 1000


def check_rising(time_s: np.ndarray, where: str) -> None:
    """Raise :class:`~vla.errors.DatasetError` where time stamps [T] are not finite and rising."""
    time_s = np.asarray(time_s, np.float64)
    wrong = np.flatnonzero(~np.isfinite(time_s))
    if len(wrong):
        raise DatasetError(
            f"{where}: the time stamp of step {wrong[0]} is {time_s[wrong[0]]}. "
            "'vla data fix --drop not_finite' writes a store without such episodes."
        )
    wrong = np.flatnonzero(np.diff(time_s) <= 0)
    if len(wrong):
        step = int(wrong[0]) + 1
        raise DatasetError(
            f"{where}: time goes from {time_s[step - 1]:.4f} s to {time_s[step]:.4f} s at step {step}, it "
            "must rise. 'vla data fix --restamp' writes a store in which such episodes have even time "
            "stamps, '--drop time_backwards' one without them."
        )


def unsteady(time_s: np.ndarray, control_hz: float) -> tuple[float, int]:
    """Rate by the median of rising time stamps [T], or ``control_hz`` where that is within a tenth of it, and
    how many gaps there are."""
    gaps = np.diff(time_s)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    if usual <= 0:
        return control_hz, 0
    near = abs(usual * control_hz - 1) <= RATE_TOLERANCE
    return control_hz if near else 1 / usual, int((gaps > GAP_FACTOR * usual).sum())


def check_steady(time_s: np.ndarray, control_hz: float, where: str) -> None:
    """Raise :class:`DatasetError` where time stamps leave steps out, or cannot be seconds.

    Args:
        time_s: rising.
        control_hz: steps a second, as the embodiment says.
        where: what to call the episode.
    """
    gaps = np.diff(time_s)
    if not len(gaps):
        return
    usual = float(np.median(gaps))
    long = np.flatnonzero(gaps > GAP_FACTOR * usual)
    if len(long):
        step = int(long[0])
        raise DatasetError(
            f"{where}: {gaps[step]:.4g} s from step {step} to step {step + 1}, usually {usual:.4g} s: "
            "what happened in between is not known. 'vla data fix --cut time_gap' writes a store with "
            "the longest stretch without a gap of such episodes, '--drop time_gap' one without them."
        )
    if not 1 / _STRANGE_RATE < usual * control_hz < _STRANGE_RATE:
        raise DatasetError(
            f"{where}: steps are {usual:.4g} s apart by the time stamps, at {control_hz:g} Hz they are "
            f"{1 / control_hz:.4g} s: are the time stamps in another unit? Correct them or control_hz, or "
            "leave time_column out of the embodiment file."
        )
