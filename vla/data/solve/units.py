"""Change a step or speed: the (mode, unit) that the gain of an action fits, at the control rate.

The gain says how far the arm goes (m, rad) for an action of 1. A speed in one unit and a change in another
may be the same number: 1 cm/s at 10 Hz is 1 mm/step, 1 rad/s at 57 Hz is 1 deg/step. Such twins fit alike,
and the gain alone settles nothing: what else moves in the same mode does, or a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

ANGLES: Mapping[str, float] = {"rad": 1.0, "deg": float(np.pi / 180)}
UNFIT = "the gain fits no unit: scaled numbers?"
#: By which a gain may differ from that of its unit, for servos fall behind: 0.85 to 1.09 on the suite's arms.
#: More would take a scale of somebody's own for a unit ...
FACTOR = 1.25
#: ... by which readings differ that are alike ...
TWINS = 1.8
#: ... and the gain of what settles twins, which is no surer than this: a scale may lie near a unit by chance.
SETTLES, SETTLED = 1.1, 0.8
#: Numbers whose largest lies here were scaled to -1..1, and are no metres or radians.
_ONE = (0.98, 1.0 + 1e-6)
#: Control rates of robots, from slow commands of a pose (RT-1: 3 Hz) to loops at the motors.
USUAL_HZ = (3.0, 1000.0)


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Steps a second, as far as they are known, and how sure that is (0..1)."""

    hz: float | None = None
    sure: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """One reading of a change: its mode and unit, and the rate (Hz) that a speed takes to fit."""

    mode: str  # "delta" or "velocity"; "absolute" for a target
    unit: str
    hz: float | None = None

    def __str__(self) -> str:
        return f"{self.mode} in {self.unit}" + (f" at {self.hz:.3g} Hz" if self.hz else "")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The readings that fit a gain alike, best first; none: ``why`` no unit has an answer.

    ``sure`` is the confidence at most: that of the rate, where another rate would make another reading.
    ``off`` is the factor by which the gain differs from that of the best reading.
    """

    alike: tuple[Meaning, ...]
    said: str
    sure: float = 1.0
    why: str = ""
    off: float = 1.0

    @property
    def only(self) -> Meaning | None:
        """The reading, where it has no twin."""
        return self.alike[0] if len(self.alike) == 1 else None

    def settled(self, other: Fit | None) -> Fit:
        """Twins told apart by what moves in the same mode and has no twin itself; else the same."""
        if other is None or other.only is None or other.off > SETTLES:
            return self
        left = [meaning for meaning in self.alike if meaning.mode == other.only.mode]
        if len(self.alike) < 2 or len(left) != 1:
            return self
        said = f"{self.said}; {_listed(self.alike)} fit alike, but {other.said}: {other.only.unit}"
        sure = min(self.sure, other.sure) if left[0].mode == "velocity" else other.sure
        return replace(self, alike=tuple(left), said=said, sure=min(sure, SETTLED))

    def twins(self, question: str, follows: str) -> str:
        """Why ``question``, which asks for the unit, and ``follows``, which has the mode, are refused."""
        ways = " or ".join(f'{{"{question}": "{meaning.unit}"}}' for meaning in self.alike)
        return f"{_listed(self.alike)} fit alike: say which, {ways} with --answers; {follows} follows from it"


def fit_units(
    gain: float,
    units: Mapping[str, float],
    rate: Rate,
    said: str,
    mode: str | None = None,
    *,
    largest: float = 0.0,
) -> Fit:
    """The readings of a gain among changes a step and speeds.

    Args:
        gain: m or rad for an action of 1.
        units: name -> m or rad.
        rate: without it a speed is never found, but it is a twin of a change at any of :data:`USUAL_HZ`.
        said: the gain, for people.
        mode: "delta" or "velocity", where it is known.
        largest: size of the largest number of the action.
    """
    gain = max(gain, 1e-9)
    speeds = {name: size / gain for name, size in units.items() if mode != "delta"}  # rates that fit
    off = {Meaning(mode="delta", unit=f"{n}/step"): _log(gain / s) for n, s in units.items()}
    if mode == "velocity":
        off = {}
    if rate.hz:
        off |= {_speed(name, rate.hz): _log(hz / rate.hz) for name, hz in speeds.items()}
    if not off:
        return Fit(alike=(), said=said, why="the unit of a speed cannot be seen without control_hz")
    best = min(off, key=lambda meaning: off[meaning])
    if off[best] > np.log(FACTOR):
        far = f"{said}; nearest {best.unit}, off by a factor {np.exp(off[best]):.2f}"
        return Fit(alike=(), said=far, why=UNFIT)
    if _ONE[0] <= largest <= _ONE[1] and units[best.unit.partition("/")[0]] == 1.0:
        return Fit(alike=(), said=f"{said}; its numbers end at {largest:.3g}", why=UNFIT)
    near = off[best] + np.log(TWINS)
    alike = [best, *sorted((m for m in off if m != best and off[m] < near), key=lambda m: off[m])]
    possible = [_speed(name, hz) for name, hz in speeds.items() if USUAL_HZ[0] <= hz <= USUAL_HZ[1]]
    if not rate.hz:
        alike += possible
    leans = best.mode == "velocity" or bool(possible)
    sure = rate.sure if rate.hz and leans else 1.0
    return Fit(alike=tuple(alike), said=said, sure=sure, off=float(np.exp(off[best])))


def _speed(name: str, hz: float) -> Meaning:
    return Meaning(mode="velocity", unit=f"{name}/s", hz=hz)


def _log(ratio: float) -> float:
    return float(abs(np.log(ratio)))


def _listed(meanings: tuple[Meaning, ...]) -> str:
    return " and ".join(str(meaning) for meaning in meanings)
