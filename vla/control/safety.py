"""The safety envelope between every policy and every robot, simulated or not; on by default.

An action passes these checks, in this order, and whatever a check changes, however little, is counted by its
name (and by ``NAME_material`` where it is more than ``report_tolerance``):

    contract    not one action of this embodiment: a fault                             -> raises
    state       the arm does not know where it is (a non-finite state)                 -> hold
    non_finite  the action holds a NaN or an infinity                                  -> hold
    range       each entry into its field's declared range
    change      each entry within reach of the last one (delta and velocity fields: acceleration;
                absolute fields: speed); coming to rest is always allowed
    workspace   the commanded tool centre stays in the embodiment's box; outside of it, it may come back or
                stay, never go farther out
    joint       so do joints that deltas, speeds or the tool move, between their ends
    motion      velocity, acceleration and jerk of the fields that declare them (``vla.control.motion``)
    collision   the way to the pose and, where motion is limited, the stop after it touch nothing   -> hold

``stale`` and ``stalled``, of a live robot, are in ``vla.control.watchdog``; they stop it.

*Hold* means zero for delta and velocity fields and the last command for absolute ones (the quickest stop,
where motion is limited), so the arm stops where it is and the gripper keeps what it has. Zero (or the last
command) satisfies every check, and each check only moves an entry towards it or into an interval that
contains it: that is why the last check cannot undo an earlier one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from vla.control.boxes import joint_axes, measured_counterparts, workspace_axes
from vla.control.gate import pose_gate
from vla.control.geometry import ArmGeometry, Predict, Predicting, Shaped
from vla.control.motion import limited_entries, limiter_of
from vla.control.safety_config import CAN_BE_DISABLED, EVENTS, MATERIAL, SafetyConfig
from vla.embodiment import Embodiment, Field
from vla.errors import ActionError, ObservationError, UnknownNameError
from vla.robots import Robot

__all__ = ["CAN_BE_DISABLED", "EVENTS", "MATERIAL", "SafeAction", "SafetyConfig", "SafetyEnvelope"]

LOG = logging.getLogger(__name__)

_ALWAYS = ("state", "non_finite", "range")


@dataclass(frozen=True, eq=False)
class SafeAction:
    """An action that may be executed, float32 [action_dim], and the names of the checks that changed it."""

    action: np.ndarray
    events: tuple[str, ...]


class SafetyEnvelope:
    """Turns any action into one inside the embodiment's limits; remembers the last one.

    Args:
        embodiment: whose fields, ranges, limits and workspace apply.
        config: see :class:`SafetyConfig`.
        geometry: of the arm, for collisions and the box of joint-space arms; None: not checked.
        predict: joint angles that a tool-space action leads to; None: not known.

    Attributes:
        checks: names of those in force, in order.
        counts: name -> how often, since the last :meth:`reset`.

    Raises:
        ConfigError: a limit that is declared cannot be kept; says how to keep it or turn it off.
        MissingExtraError: limits of motion are declared, and ruckig is not installed.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        config: SafetyConfig | None = None,
        *,
        geometry: ArmGeometry | None = None,
        predict: Predict | None = None,
    ) -> None:
        self.embodiment = embodiment
        self.config = config or SafetyConfig()
        self._low = embodiment.action_low.astype(np.float64)
        self._high = embodiment.action_high.astype(np.float64)
        self._absolute = np.concatenate([np.full(f.size, f.mode == "absolute") for f in embodiment.action])
        self._grips = np.concatenate([np.full(f.size, f.gripper_sign != "none") for f in embodiment.action])
        self._reach = np.concatenate([self._field_reach(f) for f in embodiment.action])
        self._box = (
            workspace_axes(
                embodiment,
                self.config.workspace_margin_m,
                kept_otherwise=geometry is not None and bool(geometry.tcp_site),
            )
            if self._on("workspace")
            else ()
        )
        self._joints = joint_axes(embodiment) if self._on("joint") else ()
        self._limited = limited_entries(embodiment)
        free = self._reach if self._on("change") else np.full(len(self._reach), np.inf)
        self._limiter = limiter_of(embodiment, free) if self._on("motion") else None
        self._gate = pose_gate(embodiment, geometry, predict, self.config.disabled, boxed=bool(self._box))
        self._measured = measured_counterparts(embodiment)
        self._tolerance = self.config.report_tolerance * (self._high - self._low)
        self.checks = self._in_force()
        self.counts: dict[str, int] = {}
        self._last: np.ndarray | None = None
        if self.config.disabled:
            LOG.warning("%s: %s", embodiment.name, self.config.warning())
        self.reset()

    @classmethod
    def holding(cls, embodiment: Embodiment) -> SafetyEnvelope:
        """Only to be asked :meth:`hold`, by a policy that rests: what it answers passes the loop's own."""
        return cls(replace(embodiment, workspace_low=(), workspace_high=()))

    @classmethod
    def of(cls, robot: Robot, config: SafetyConfig | None = None) -> SafetyEnvelope:
        """For a robot, with whatever it says of its geometry and of where actions lead."""
        return cls(
            robot.embodiment,
            config,
            geometry=robot.geometry if isinstance(robot, Shaped) else None,
            predict=robot.predict_joints if isinstance(robot, Predicting) else None,
        )

    def reset(self) -> None:
        """Begin an episode: the arm is at rest, nothing counted."""
        material = [name for name in MATERIAL if name.removesuffix("_material") in self.checks]
        self.counts = dict.fromkeys((*self.checks, *material), 0)
        self._last = None
        if self._gate is not None:
            self._gate.reset()

    def count(self, event: str) -> None:
        """Count what somebody else saw (a watchdog)."""
        if event not in EVENTS:
            raise UnknownNameError("safety event", event, EVENTS)
        self.counts[event] = self.counts.get(event, 0) + 1

    def hold(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """The action that stops: zero deltas and velocities, last absolute commands; float32 [action_dim].

        Raises:
            ObservationError: nothing has been commanded, and an absolute entry does not know where it is.
        """
        return self._as_action(np.clip(self._reference(state), self._low, self._high))

    def __call__(self, action: np.ndarray, state: Mapping[str, np.ndarray]) -> SafeAction:
        """The nearest action the limits allow.

        Args:
            action: [action_dim] in the embodiment's units; any numbers, NaN and infinity included.
            state: the state it answers (``Observation.state``).

        Raises:
            ActionError: the action has another shape (a wiring fault, not a dangerous motion).
            ObservationError: as :meth:`hold`.
        """
        wanted = np.asarray(action, np.float64)
        if wanted.shape != (self.embodiment.action_dim,):
            self.count("contract")
            raise ActionError(
                f"Action for {self.embodiment.name!r}: shape {wanted.shape}, expected one action of shape "
                f"({self.embodiment.action_dim},)."
            )
        events: list[str] = []
        reference = self._reference(state)
        known = all(np.isfinite(np.asarray(value)).all() for value in state.values())
        if not known:
            events.append("state")
            wanted = reference
        elif not np.isfinite(wanted).all():
            events.append("non_finite")
            wanted = reference
        value = np.clip(wanted, self._low, self._high)
        if known:
            value = self._bounded(wanted, reference, state, events)
        safe = self._moved(value, reference, state, events, known=known)
        for event in events:
            self.count(event)
        out = self._as_action(safe)
        self._last = out.astype(np.float64)
        return SafeAction(out, tuple(events))

    # --- limits of single entries

    def _bounded(
        self, wanted: np.ndarray, reference: np.ndarray, state: Mapping[str, np.ndarray], events: list[str]
    ) -> np.ndarray:
        """Range, change, workspace and joint ends; appends the names of those that bind."""
        value = np.clip(wanted, self._low, self._high)
        self._note("range", wanted, value, events)
        if self._on("change"):
            last = reference if self._last is None else self._last
            # coming to rest is always allowed
            low, high = np.minimum(last - self._reach, reference), np.maximum(last + self._reach, reference)
            limited = np.clip(np.clip(value, low, high), self._low, self._high)
            self._note("change", value, limited, events)
            value = limited
        for event, axes in (("workspace", self._box), ("joint", self._joints)):
            boxed = value.copy()
            for axis in axes:
                bounded = axis.bound(value[axis.entry], state)
                boxed[axis.entry] = min(max(bounded, self._low[axis.entry]), self._high[axis.entry])
            self._note(event, value, boxed, events)
            value = boxed
        return value

    # --- motion and pose

    def _moved(
        self,
        value: np.ndarray,
        reference: np.ndarray,
        state: Mapping[str, np.ndarray],
        events: list[str],
        *,
        known: bool,
    ) -> np.ndarray:
        """Motion, then the look at the pose; a pose that breaks a check is not gone to."""
        wanted, ways = value, []
        if self._limiter is not None:
            value = self._with_limited(value, self._limiter.towards(value[self._limited]))
            self._note("motion", wanted, value, events)
            if self._gate is not None:
                ways = [self._with_limited(value, entries) for entries in self._limiter.stop_after_next()]
        if self._gate is not None and known:
            broken = self._gate.first_breach([value, *ways], state)
            if broken is not None:
                events.append(broken)
                value = reference
                if self._limiter is not None:
                    value = self._with_limited(value, self._limiter.braking())
            self._gate.went(value, state)
        if self._limiter is not None:
            self._limiter.accept()
        return value

    def _with_limited(self, value: np.ndarray, entries: np.ndarray) -> np.ndarray:
        value = value.copy()
        value[self._limited] = entries
        return value

    # --- rest

    def _reference(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Where the arm rests: zero, or for absolute entries the last command (first: the measured value)."""
        rest = np.zeros(self.embodiment.action_dim)
        for entry in np.flatnonzero(self._absolute):
            rest[entry] = self._rest_of(int(entry), state)
        if self._limiter is not None:
            if self._last is None:
                self._limiter.start(np.clip(rest, self._low, self._high)[self._limited])
            rest[self._limited] = self._limiter.rest()
        return rest

    def _rest_of(self, entry: int, state: Mapping[str, np.ndarray]) -> float:
        if self._last is not None:
            return float(self._last[entry])
        name, component, otherwise = self._measured[entry]
        if name is None:
            return otherwise
        measured = float(state[name][component])
        if np.isfinite(measured):
            return measured
        if self._grips[entry]:
            return otherwise
        raise ObservationError(
            f"State {name!r} of {self.embodiment.name!r} is {measured} before anything was commanded: nobody "
            "knows where the arm is, so it cannot even be held. Look at its encoders and connect again."
        )

    # --- set-up

    def _on(self, check: str) -> bool:
        return check not in self.config.disabled

    def _in_force(self) -> tuple[str, ...]:
        seen = () if self._gate is None else self._gate.poses.checks
        there = {
            *_ALWAYS,
            *(("change",) if self._on("change") else ()),
            *(("workspace",) if self._box else ()),
            *(("joint",) if self._joints else ()),
            *(("motion",) if self._limiter is not None else ()),
            *seen,
        }
        return tuple(name for name in EVENTS if name in there)

    def _field_reach(self, field: Field) -> np.ndarray:
        span = np.array(field.high) - np.array(field.low)
        if field.gripper_sign != "none":
            return span
        fraction = (
            self.config.max_absolute_change if field.mode == "absolute" else self.config.max_delta_change
        )
        return fraction * span

    def _note(self, event: str, before: np.ndarray, after: np.ndarray, events: list[str]) -> None:
        if np.array_equal(before, after):
            return
        with np.errstate(over="ignore"):  # compared as executed: rounding to float32 is no clamp
            changed = before.astype(np.float32) != after.astype(np.float32)
        if changed.any():
            events.append(event)
            self.counts[f"{event}_material"] += int((np.abs(before - after) > self._tolerance).any())

    def _as_action(self, value: np.ndarray) -> np.ndarray:
        """float32, with rounding kept inside the float32 range."""
        return np.clip(value.astype(np.float32), self.embodiment.action_low, self.embodiment.action_high)
