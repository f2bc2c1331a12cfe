"""What the controller's motion commands do to its joint targets, one cycle after the other.

Each motion has ``advance(state, dt)``, which writes the next joint target into the state and says whether it
is over. Sources: Universal Robots, "The URScript programming language" (e-Series, 5.x), and for the servo law
the description of ``servoj``: proportional gain on the target, position projected forward by the lookahead
time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from vla.robots.kinematics import Kinematics, rotation_error, rotation_matrix

_IK_TOLERANCE = (2e-3, 1e-2)  # m, rad: farther off is no solution


class NoSolutionError(Exception):
    """Inverse kinematics found no joint angles for a pose: a run-time error of the script."""


@dataclass
class JointState:
    """Joint targets of the controller: [6] rad and rad/s."""

    q: np.ndarray
    qd: np.ndarray = field(default_factory=lambda: np.zeros(6))


class Motion(Protocol):
    def advance(self, state: JointState, dt: float) -> bool: ...


Pose = tuple[np.ndarray, np.ndarray]  # position [3] m and rotation [3, 3] of the tcp in the model's world


def solve(kinematics: Kinematics, q_near: np.ndarray, pose: Pose, iterations: int = 60) -> np.ndarray:
    """Joint angles for a pose; raises :class:`NoSolutionError`."""
    q = kinematics.solve(q_near, *pose, iterations=iterations)
    metres, radians = kinematics.error(q, *pose)
    if metres > _IK_TOLERANCE[0] or radians > _IK_TOLERANCE[1]:
        raise NoSolutionError(f"nearest joint angles miss the pose by {metres:.4f} m and {radians:.3f} rad")
    return q


class Stop:
    """stopj: decelerate along the present motion, rad/s^2."""

    def __init__(self, deceleration: float) -> None:
        self._deceleration = max(deceleration, 0.1)

    def advance(self, state: JointState, dt: float) -> bool:
        speed = float(np.abs(state.qd).max())
        if speed < 1e-9:
            state.qd = np.zeros(6)
            return True
        state.qd = state.qd * max(0.0, 1.0 - self._deceleration * dt / speed)
        state.q = state.q + state.qd * dt
        return False


class Servo:
    """servoj: ``qdd = gain (target - (q + lookahead qd))``."""

    def __init__(self, target: np.ndarray, lookahead_s: float, gain: float) -> None:
        self.retarget(target, lookahead_s, gain)

    def retarget(self, target: np.ndarray, lookahead_s: float, gain: float) -> None:
        self._target = target
        self._lookahead = float(np.clip(lookahead_s, 0.03, 0.2))
        self._gain = float(np.clip(gain, 100.0, 2000.0))

    def advance(self, state: JointState, dt: float) -> bool:
        state.qd = state.qd + dt * self._gain * (self._target - state.q - self._lookahead * state.qd)
        state.q = state.q + state.qd * dt
        return False


class Speed:
    """speedj and speedl: ramp to a velocity and keep it; ``velocity`` gives joint speeds at joint angles."""

    def __init__(
        self, velocity: Callable[[np.ndarray], np.ndarray], acceleration: float, duration_s: float
    ) -> None:
        self._velocity, self._acceleration = velocity, max(acceleration, 0.01)
        self._left = duration_s if duration_s > 0 else math.inf

    def advance(self, state: JointState, dt: float) -> bool:
        wanted = self._velocity(state.q)
        change = wanted - state.qd
        largest = float(np.abs(change).max())
        state.qd = state.qd + change * min(1.0, self._acceleration * dt / max(largest, 1e-12))
        state.q = state.q + state.qd * dt
        self._left -= dt
        return self._left <= 0


class Path:
    """movej and movel: a trapezoid of speed along a path of ``length`` (rad or m) from 0 to 1.

    Args:
        at: joint angles at a share of the path, given those of the last cycle.
    """

    def __init__(
        self, at: Callable[[float, np.ndarray], np.ndarray], length: float, speed: float, acceleration: float
    ) -> None:
        self._at, self._length = at, max(length, 1e-9)
        self._speed, self._acceleration = max(speed, 1e-3), max(acceleration, 1e-3)
        self._done = self._rate = 0.0

    def advance(self, state: JointState, dt: float) -> bool:
        left = self._length - self._done
        limit = min(self._speed, math.sqrt(2.0 * self._acceleration * max(left, 0.0)))
        self._rate = min(self._rate + self._acceleration * dt, limit)
        self._done = min(self._length, self._done + max(self._rate, 1e-6) * dt)
        q = self._at(self._done / self._length, state.q)
        over = self._length - self._done < 1e-6
        state.qd = np.zeros(6) if over else (q - state.q) / dt
        state.q = q
        return over


def move_joints(start: np.ndarray, goal: np.ndarray, speed: float, acceleration: float) -> Path:
    """movej: straight in joint space, speed and acceleration of the leading axis."""
    return Path(
        lambda share, _: start + share * (goal - start),
        float(np.abs(goal - start).max()),
        speed,
        acceleration,
    )


def move_line(
    kinematics: Kinematics, start: np.ndarray, pose: Pose, speed: float, acceleration: float
) -> Path:
    """movel: the tcp straight to a pose, turning at an even rate; m/s and m/s^2 (rad/s for a pure turn)."""
    here, turned = kinematics.pose(start)
    turn = rotation_error(pose[1] @ turned.T)

    def at(share: float, q_last: np.ndarray) -> np.ndarray:
        there = here + share * (pose[0] - here), rotation_matrix(share * turn) @ turned
        return solve(kinematics, q_last, there, iterations=8)

    length = float(np.linalg.norm(pose[0] - here))
    return Path(at, length if length > 1e-4 else float(np.linalg.norm(turn)), speed, acceleration)
