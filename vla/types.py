"""The values that flow through the package, with shapes, dtypes and units stated once.

name        dtype    shape     unit
images[c]   uint8    [h w 3]   RGB, top row first
state[f]    float32  [size]    the state field's own unit and frame (see ``vla.embodiment``)
actions     float32  [horizon action_dim]  the embodiment's action fields, concatenated in order
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, eq=False)
class Promise:
    """What is under way when a policy is asked: the rest of its last chunk, some of which will be executed.

    Args:
        actions: float32 [n, action_dim], in the embodiment's units; the first belongs to the moment of the
            observation.
        frozen: how many of them are executed before the answer is there, 0 .. n.
    """

    actions: np.ndarray
    frozen: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """What a policy sees at one instant.

    Args:
        images: camera name -> uint8 [h, w, 3], RGB.
        state: state field name -> float32 [size], in the embodiment's units.
        instruction: what the person says, verbatim.
        embodiment: name of the embodiment that made it.
        time_s: seconds since the episode began (monotonic).
        episode: number of the episode among those that a policy serves at once.
        aux: privileged quantities known to a simulator only (training labels, diagnostics); a
            policy that is to run on hardware must not read them.
        promise: what the chunk shall continue (real-time chunking); only for policies that say they can.
    """

    images: Mapping[str, np.ndarray]
    state: Mapping[str, np.ndarray]
    instruction: str
    embodiment: str
    time_s: float = 0.0
    episode: int = 0
    aux: Mapping[str, np.ndarray] = field(default_factory=lambda: _EMPTY)
    promise: Promise | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ActionChunk:
    """The next actions, in the embodiment's own units.

    Args:
        actions: float32 [horizon, action_dim].
        control_hz: rate at which they are meant to be executed.
        info: what the policy wants to say about them (latency, localisation, phase ...).
    """

    actions: np.ndarray
    control_hz: float
    info: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)

    @property
    def horizon(self) -> int:
        return int(self.actions.shape[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One control step of a demonstration or rollout.

    Args:
        observation: what was seen before acting.
        action: float32 [action_dim], the label: what the demonstrator wanted to do here.
        executed: float32 [action_dim], what was sent to the arm (differs from ``action`` under
            injected noise or safety clamps).
    """

    observation: Observation
    action: np.ndarray
    executed: np.ndarray

    @property
    def perturbed(self) -> bool:
        """True where the executed action is not the label, so later labels answer another state."""
        return not np.array_equal(self.action, self.executed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """A finished demonstration or rollout.

    Args:
        steps: in order of time.
        instruction: what the person said (of the first step).
        embodiment: name of the embodiment.
        success: whether the task was fulfilled at the end; None where nobody knows: no predicate, no verdict.
        provenance: JSON-able origin: suite, task, seed, source, versions.
    """

    steps: tuple[Step, ...]
    instruction: str
    embodiment: str
    success: bool | None
    provenance: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.steps)
