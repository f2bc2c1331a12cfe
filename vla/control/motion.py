"""Velocity, acceleration and jerk of absolute commands, kept by ruckig's online generator.

Every turn moves each entry from where it was commanded to be, with the speed and acceleration it has there,
towards the target, one period long, as fast as its limits allow and so that it can always come to rest at the
target (target velocity zero, one target, entries independent of each other). An entry that always moves like
this never leaves an interval that held all its targets: wherever it is, it could have stopped at the last.

Berscheid and Kroeger 2021, arXiv:2105.04830. Only single targets are used: ruckig computes trajectories
through several of them on somebody else's machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vla.embodiment import Embodiment
from vla.errors import ActionError, MissingExtraError

#: A stop is looked at once a period, and no oftener than this, s: between two looks it is off the straight
#: line by at most a t^2 / 8, at 10 rad/s^2 0.03 mrad.
STOP_SPACING_S = 0.005
#: Relative changes of velocity and acceleration with which a state is tried that ruckig finds no profile for:
#: where a joint comes to rest just as its acceleration does, rounding can leave it between two.
NUDGES = (0.0, 1e-12, 1e-10, 1e-8, 1e-6)


class MotionLimiter:
    """Moves the entries that declare limits of motion; float64, in the entry's unit, per s.

    Args:
        max_velocity, max_acceleration, max_jerk: of each entry; jerk may be infinite.
        period_s: time from one command to the next.

    Raises:
        MissingExtraError: ruckig is not installed.
    """

    def __init__(
        self,
        max_velocity: np.ndarray,
        max_acceleration: np.ndarray,
        max_jerk: np.ndarray,
        period_s: float,
    ) -> None:
        try:
            import ruckig
        except ImportError as error:
            raise MissingExtraError("ruckig", "control", "Limiting acceleration and jerk") from error
        dofs = len(max_velocity)
        self.period_s = period_s
        self._error = ruckig.RuckigError
        self._otg = ruckig.Ruckig(dofs, period_s)
        self._trajectory = ruckig.Trajectory(dofs)
        self._towards = _parameters(ruckig, dofs, max_velocity, max_acceleration, max_jerk)
        self._stopping = _parameters(ruckig, dofs, max_velocity, max_acceleration, max_jerk)
        self._stopping.control_interface = ruckig.ControlInterface.Velocity
        self._out = ruckig.OutputParameter(dofs)
        self._now = self._next = (np.zeros(dofs), np.zeros(dofs), np.zeros(dofs))

    @property
    def position(self) -> np.ndarray:
        """Where the entries were last commanded to be; float64 [dofs]."""
        return self._now[0]

    def start(self, position: np.ndarray) -> None:
        """At rest, there."""
        self._now = (np.array(position, np.float64), np.zeros(len(position)), np.zeros(len(position)))
        self._next = self._now

    def towards(self, target: np.ndarray) -> np.ndarray:
        """One period towards a target; nothing has moved until :meth:`accept`."""
        self._towards.target_position = np.asarray(target, np.float64)
        return self._update(self._towards)

    def braking(self) -> np.ndarray:
        """One period of the quickest stop the limits allow; nothing has moved until :meth:`accept`."""
        return self._update(self._stopping)

    def accept(self) -> None:
        """What :meth:`towards` or :meth:`braking` said last has been commanded."""
        self._now = self._next

    def rest(self) -> np.ndarray:
        """Where the quickest stop from the last command ends."""
        if not (self._now[1].any() or self._now[2].any()):
            return self._now[0]
        self._solved(self._stopping, self._now, self._plan)
        return np.array(self._trajectory.at_time(self._trajectory.duration)[0])

    def stop_after_next(self) -> np.ndarray:
        """The way of the quickest stop after what was said last: float64 [n dofs], its end last."""
        if not (self._next[1].any() or self._next[2].any()):
            return self._next[0][None]
        self._solved(self._stopping, self._next, self._plan)
        duration_s = self._trajectory.duration
        spacing_s = self.period_s * max(1, round(STOP_SPACING_S / self.period_s))
        times = [*np.arange(spacing_s, duration_s, spacing_s), duration_s]
        return np.array([self._trajectory.at_time(moment)[0] for moment in times])

    def _update(self, parameters: Any) -> np.ndarray:
        self._solved(parameters, self._now, lambda given: self._otg.update(given, self._out))
        self._next = tuple(
            np.array(x) for x in (self._out.new_position, self._out.new_velocity, self._out.new_acceleration)
        )
        return self._next[0]

    def _plan(self, parameters: Any) -> Any:
        return self._otg.calculate(parameters, self._trajectory)

    def _solved(self, parameters: Any, state: tuple[np.ndarray, ...], solve: Callable[[Any], Any]) -> None:
        """Have ruckig solve from a state; on the edge between two profiles, from beside it."""
        for nudge in NUDGES:
            parameters.current_position = state[0]
            parameters.current_velocity = state[1] * (1 - nudge)
            parameters.current_acceleration = state[2] * (1 - nudge)
            try:
                if solve(parameters).value >= 0:
                    return
            except self._error:
                continue
        raise ActionError(
            f"No way on within the limits of motion was found from position {state[0]}, velocity {state[1]}, "
            f"acceleration {state[2]}: stop the robot and connect again."
        )


def limited_entries(embodiment: Embodiment) -> np.ndarray:
    """int64 [n]: the action entries whose field declares limits of motion."""
    declared = np.concatenate([np.full(f.size, bool(f.max_velocity)) for f in embodiment.action])
    return np.flatnonzero(declared)


def limiter_of(embodiment: Embodiment, reach: np.ndarray) -> MotionLimiter | None:
    """For the entries of :func:`limited_entries`, once a control period; None where there are none.

    Args:
        reach: largest change of each action entry in a step besides, [action_dim].
    """
    entries = limited_entries(embodiment)
    if not len(entries):
        return None
    velocity, acceleration, jerk = limits_of(embodiment)
    period_s = 1.0 / embodiment.control_hz
    return MotionLimiter(np.minimum(velocity, reach[entries] / period_s), acceleration, jerk, period_s)


def limits_of(embodiment: Embodiment) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float64 [n] each: velocity, acceleration and jerk of the entries of :func:`limited_entries`."""
    fields = [f for f in embodiment.action if f.max_velocity]
    jerks = [f.max_jerk or (np.inf,) * f.size for f in fields]
    return (
        np.array([x for f in fields for x in f.max_velocity]),
        np.array([x for f in fields for x in f.max_acceleration]),
        np.array([x for jerk in jerks for x in jerk]),
    )


def _parameters(
    ruckig: Any, dofs: int, velocity: np.ndarray, acceleration: np.ndarray, jerk: np.ndarray
) -> Any:
    parameters = ruckig.InputParameter(dofs)
    parameters.synchronization = ruckig.Synchronization.No
    parameters.max_velocity = list(velocity)
    parameters.max_acceleration = list(acceleration)
    parameters.max_jerk = list(jerk)
    parameters.target_velocity = parameters.target_acceleration = [0.0] * dofs
    return parameters
