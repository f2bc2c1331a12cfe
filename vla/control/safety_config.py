"""What the safety envelope allows, the names of its checks, and which of them can be turned off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla.errors import ConfigError, UnknownNameError

#: Event names, in the order in which the checks run; the last two are ``vla.control.watchdog``'s.
EVENTS = (
    "contract",
    "state",
    "non_finite",
    "range",
    "change",
    "workspace",
    "joint",
    "motion",
    "collision",
    "stale",
    "stalled",
)

#: Counted besides: the steps at which a limiting check changed an entry by more than a little.
MATERIAL = ("range_material", "change_material", "workspace_material", "joint_material", "motion_material")

#: Checks that can be turned off, by name, in ``SafetyConfig.disabled``; the others cannot.
CAN_BE_DISABLED = ("change", "workspace", "joint", "motion", "collision", "stale", "stalled")


@dataclass(frozen=True, kw_only=True)
class SafetyConfig:
    """What the envelope allows.

    Args:
        max_delta_change: largest change of a delta or velocity entry from one step to the next, as a
            fraction of its field's range (1.0 allows a full reversal in one step).
        max_absolute_change: largest change of an absolute entry in one step, as a fraction of its
            field's range. Grippers are exempt: opening and closing is a step by nature.
        workspace_margin_m: how far inside the faces of the embodiment's box the tool is kept.
        report_tolerance: a change of more than this fraction of an entry's range counts as material, besides
            being counted as every change is: a regressed action that ought to lie on its limit overshoots
            it by a little half of the time.
        max_observation_age_s: an observation older than this, in real time, stops the robot.
        max_policy_silence_s: so does a question that the policy has not answered for so long.
        disabled: checks that are turned off, by name (``CAN_BE_DISABLED``); said by whoever runs it, and
            stored with the configuration.
    """

    max_delta_change: float = 0.75
    max_absolute_change: float = 0.1
    workspace_margin_m: float = 0.0
    report_tolerance: float = 0.01
    max_observation_age_s: float = 0.5
    max_policy_silence_s: float = 2.0
    disabled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_delta_change", "max_absolute_change"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"SafetyConfig.{name} is {getattr(self, name)}; expected 0 < value <= 1.")
        if not 0 <= self.report_tolerance <= 0.05:
            raise ConfigError(f"SafetyConfig.report_tolerance is {self.report_tolerance}; expected 0..0.05.")
        if not 0 <= self.workspace_margin_m < np.inf:
            raise ConfigError(f"SafetyConfig.workspace_margin_m is {self.workspace_margin_m}; expected >= 0.")
        for name in ("max_observation_age_s", "max_policy_silence_s"):
            if not 0 < getattr(self, name) <= 60:
                raise ConfigError(f"SafetyConfig.{name} is {getattr(self, name)}; expected 0 < value <= 60.")
        if isinstance(self.disabled, str):
            raise ConfigError(f"SafetyConfig.disabled is {self.disabled!r}; expected a tuple of names.")
        object.__setattr__(self, "disabled", tuple(self.disabled))
        for name in self.disabled:
            if name not in CAN_BE_DISABLED:
                raise UnknownNameError("safety check that can be turned off", str(name), CAN_BE_DISABLED)

    def warning(self) -> str:
        """What a person must be told; empty where every check is on."""
        return f"SAFETY CHECKS TURNED OFF: {', '.join(self.disabled)}" if self.disabled else ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SafetyConfig:
        """From ``dataclasses.asdict``, strictly (TypeError); knows ``workspace`` of earlier versions."""
        values = dict(data)
        if not values.pop("workspace", True):
            values["disabled"] = (*values.get("disabled", ()), "workspace")
        return cls(**values)
