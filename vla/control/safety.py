"""The safety envelope between every policy and every robot, simulated or not; on by default.

An action passes five stages, in this order, and whatever a stage changes, however little, is counted by
its name (and by ``NAME_material`` where it is more than ``report_tolerance``):

    state       the arm does not know where it is (a non-finite state)       -> hold
    non_finite  the action holds a NaN or an infinity                        -> hold
    range       each entry into its field's declared range
    change      each entry within reach of the last one (delta and velocity fields: acceleration;
                absolute fields: speed); coming to rest is always allowed
    workspace   the commanded tool centre stays in the embodiment's box; outside of it, it may come
                back or stay, never go farther out

*Hold* means zero for delta and velocity fields and the last command for absolute ones, so the arm
stops where it is and the gripper keeps what it has. Zero (or the last command) satisfies every
stage, and each stage only moves an entry towards it or into an interval that contains it: that is
why the last stage cannot undo an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vla.embodiment import Embodiment, Field
from vla.errors import ActionError, ConfigError

#: Event names, in the order in which the stages run.
EVENTS = ("state", "non_finite", "range", "change", "workspace")

#: Counted besides: the steps at which a limiting stage changed an entry by more than a little.
MATERIAL = ("range_material", "change_material", "workspace_material")


@dataclass(frozen=True, kw_only=True)
class SafetyConfig:
    """What the envelope allows.

    Args:
        max_delta_change: largest change of a delta or velocity entry from one step to the next, as a
            fraction of its field's range (1.0 allows a full reversal in one step).
        max_absolute_change: largest change of an absolute entry in one step, as a fraction of its
            field's range. Grippers are exempt: opening and closing is a step by nature.
        workspace: keep the commanded tool centre inside the embodiment's box.
        workspace_margin_m: how far inside the box's faces.
        report_tolerance: a change of more than this fraction of an entry's range counts as material, besides
            being counted as every change is: a regressed action that ought to lie on its limit overshoots
            it by a little half of the time.
    """

    max_delta_change: float = 0.75
    max_absolute_change: float = 0.1
    workspace: bool = True
    workspace_margin_m: float = 0.0
    report_tolerance: float = 0.01

    def __post_init__(self) -> None:
        for name in ("max_delta_change", "max_absolute_change"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"SafetyConfig.{name} is {getattr(self, name)}; expected 0 < value <= 1.")
        if not 0 <= self.report_tolerance <= 0.05:
            raise ConfigError(f"SafetyConfig.report_tolerance is {self.report_tolerance}; expected 0..0.05.")
        if self.workspace_margin_m < 0:
            raise ConfigError(f"SafetyConfig.workspace_margin_m is {self.workspace_margin_m}; expected >= 0.")


@dataclass(frozen=True, eq=False)
class SafeAction:
    """An action that may be executed, float32 [action_dim], and the names of the stages that changed it."""

    action: np.ndarray
    events: tuple[str, ...]


class SafetyEnvelope:
    """Turns any action into one inside the embodiment's limits; remembers the last one.

    Args:
        embodiment: whose fields, ranges and workspace apply.
        config: see :class:`SafetyConfig`.

    Raises:
        ConfigError: the workspace is to be kept, but no action field moves the tool along its axes, or one
            that does is not in world frame.
    """

    def __init__(self, embodiment: Embodiment, config: SafetyConfig | None = None) -> None:
        self.embodiment = embodiment
        self.config = config or SafetyConfig()
        self._low = embodiment.action_low.astype(np.float64)
        self._high = embodiment.action_high.astype(np.float64)
        self._absolute = np.concatenate([np.full(f.size, f.mode == "absolute") for f in embodiment.action])
        self._reach = np.concatenate([self._field_reach(f) for f in embodiment.action])
        self._box = _workspace_axes(embodiment, self.config)
        self._measured = _measured_counterparts(embodiment)
        self._tolerance = self.config.report_tolerance * (self._high - self._low)
        self.counts: dict[str, int] = {}
        self._last: np.ndarray | None = None
        self.reset()

    def reset(self) -> None:
        """Begin an episode: the arm is at rest, nothing counted."""
        self.counts = dict.fromkeys((*EVENTS, *MATERIAL), 0)
        self._last = None

    def hold(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """The action that stops: zero deltas and velocities, last absolute commands; float32 [action_dim]."""
        return self._as_action(np.clip(self._reference(state), self._low, self._high))

    def __call__(self, action: np.ndarray, state: Mapping[str, np.ndarray]) -> SafeAction:
        """The nearest action the limits allow.

        Args:
            action: [action_dim] in the embodiment's units; any numbers, NaN and infinity included.
            state: the state it answers (``Observation.state``).

        Raises:
            ActionError: the action has another shape (a wiring fault, not a dangerous motion).
        """
        wanted = np.asarray(action, np.float64)
        if wanted.shape != (self.embodiment.action_dim,):
            raise ActionError(
                f"Action for {self.embodiment.name!r}: shape {wanted.shape}, expected one action of shape "
                f"({self.embodiment.action_dim},)."
            )
        events: list[str] = []
        reference = self._reference(state)
        if not all(np.isfinite(np.asarray(value)).all() for value in state.values()):
            events.append("state")
            safe = np.clip(reference, self._low, self._high)
        else:
            if not np.isfinite(wanted).all():
                events.append("non_finite")
                wanted = reference
            safe = self._limited(wanted, reference, state, events)
        for event in events:
            self.counts[event] += 1
        out = self._as_action(safe)
        self._last = out.astype(np.float64)
        return SafeAction(out, tuple(events))

    def _limited(
        self, wanted: np.ndarray, reference: np.ndarray, state: Mapping[str, np.ndarray], events: list[str]
    ) -> np.ndarray:
        """Range, change and workspace stages; appends the names of those that bind."""
        value = np.clip(wanted, self._low, self._high)
        self._note("range", wanted, value, events)
        last = reference if self._last is None else self._last
        low, high = last - self._reach, last + self._reach
        low, high = (
            np.minimum(low, reference),
            np.maximum(high, reference),
        )  # coming to rest is always allowed
        limited = np.clip(np.clip(value, low, high), self._low, self._high)
        self._note("change", value, limited, events)
        boxed = self._in_box(limited, state)
        self._note("workspace", limited, boxed, events)
        return boxed

    def _in_box(self, value: np.ndarray, state: Mapping[str, np.ndarray]) -> np.ndarray:
        value = value.copy()
        for axis in self._box:
            commanded = float(state[axis.position][axis.component])
            if axis.error is not None:
                commanded += float(state[axis.error][axis.component])
            origin = commanded if axis.delta else 0.0  # absolute: the entry is the position itself
            low, high = min(axis.low, commanded) - origin, max(axis.high, commanded) - origin
            bounded = min(max(value[axis.entry], low), high)
            value[axis.entry] = min(max(bounded, self._low[axis.entry]), self._high[axis.entry])
        return value

    def _reference(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Where the arm rests: zero, or for absolute entries the last command (first: the measured value)."""
        rest = np.zeros(self.embodiment.action_dim)
        for entry in np.flatnonzero(self._absolute):
            rest[entry] = self._rest_of(int(entry), state)
        return rest

    def _rest_of(self, entry: int, state: Mapping[str, np.ndarray]) -> float:
        if self._last is not None:
            return float(self._last[entry])
        name, component, otherwise = self._measured[entry]
        measured = float(state[name][component]) if name else otherwise
        return measured if np.isfinite(measured) else otherwise

    def _field_reach(self, field: Field) -> np.ndarray:
        span = np.array(field.high) - np.array(field.low)
        if field.gripper_sign != "none":
            return span
        fraction = (
            self.config.max_absolute_change if field.mode == "absolute" else self.config.max_delta_change
        )
        return fraction * span

    def _note(self, event: str, before: np.ndarray, after: np.ndarray, events: list[str]) -> None:
        with np.errstate(over="ignore"):  # compared as executed: rounding to float32 is no clamp
            changed = before.astype(np.float32) != after.astype(np.float32)
        if changed.any():
            events.append(event)
            self.counts[f"{event}_material"] += int((np.abs(before - after) > self._tolerance).any())

    def _as_action(self, value: np.ndarray) -> np.ndarray:
        """float32, with rounding kept inside the float32 range."""
        return np.clip(value.astype(np.float32), self.embodiment.action_low, self.embodiment.action_high)


@dataclass(frozen=True)
class _BoxAxis:
    """One action entry that moves the tool along one world axis between two faces of the box."""

    entry: int
    component: int
    delta: bool
    position: str
    error: str | None
    low: float
    high: float


def _state_field(embodiment: Embodiment, slot: str) -> Field | None:
    return next((f for f in embodiment.state if f.slot == slot), None)


def _workspace_axes(embodiment: Embodiment, config: SafetyConfig) -> tuple[_BoxAxis, ...]:
    if not config.workspace or not embodiment.workspace_low:
        return ()
    axes = []
    for field in embodiment.action:
        arm, _, quantity = field.slot.partition(".")
        if quantity not in ("tcp_position_delta", "tcp_position"):
            continue
        if field.frame != "world":
            raise ConfigError(
                f"The workspace of {embodiment.name!r} is a box in world frame, but action field "
                f"{field.name!r} is in {field.frame!r} frame. Convert it, or turn the box off with "
                "SafetyConfig(workspace=False)."
            )
        position = _state_field(embodiment, f"{arm}.tcp_position")
        if position is None or position.size != 3:
            raise ConfigError(
                f"Keeping {embodiment.name!r} in its workspace needs a state field of 3 numbers in slot "
                f"'{arm}.tcp_position'; its state fields are {[f.name for f in embodiment.state]}."
            )
        error = _state_field(embodiment, f"{arm}.tcp_error")
        start = embodiment.field_slice(field.name, of="action").start
        for i in range(field.size):
            k = field.slot_start + i
            low = embodiment.workspace_low[k] + config.workspace_margin_m
            high = embodiment.workspace_high[k] - config.workspace_margin_m
            delta = quantity == "tcp_position_delta"
            axes.append(
                _BoxAxis(start + i, k, delta, position.name, error.name if error else None, low, high)
            )
    if not axes:
        raise ConfigError(
            f"{embodiment.name!r} has a workspace, but none of its action fields "
            f"({[f.name for f in embodiment.action]}) moves the tool along the axes of the world, so the "
            "box cannot be kept. Give it a field in slot 'arm0.tcp_position_delta' or 'arm0.tcp_position', "
            "or turn the box off with SafetyConfig(workspace=False)."
        )
    return tuple(axes)


def _measured_counterparts(embodiment: Embodiment) -> list[tuple[str | None, int, float]]:
    """For each action entry: the state entry that says where it stands, and a value where there is none.

    An absolute field is compared with the state field in the slot of the same name; a gripper with
    ``gripper_command``, and opens where nothing is known.
    """
    out: list[tuple[str | None, int, float]] = []
    for field in embodiment.action:
        arm, _, quantity = field.slot.partition(".")
        slot = f"{arm}.gripper_command" if quantity == "gripper" else field.slot
        source = _state_field(embodiment, slot)
        for i in range(field.size):
            middle = (field.low[i] + field.high[i]) / 2
            otherwise = {"positive_closes": field.low[i], "positive_opens": field.high[i]}.get(
                field.gripper_sign, middle
            )
            component = field.slot_start + i - (source.slot_start if source else 0)
            inside = source is not None and 0 <= component < source.size
            out.append((source.name if source and inside else None, component if inside else 0, otherwise))
    return out
