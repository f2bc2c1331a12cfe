"""Policies that know nothing: the floor every other policy is compared with."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from vla.control.safety import SafetyEnvelope
from vla.embodiment import Embodiment
from vla.types import ActionChunk, Observation


class ZeroPolicy:
    """Stays where it is: zero deltas and velocities, the absolute targets it stands at."""

    contract: None = None  # any arm will do

    def __init__(self, embodiment: Embodiment, horizon: int = 1) -> None:
        self._embodiment, self._horizon = embodiment, horizon
        self._envelope = SafetyEnvelope.holding(embodiment)

    def reset(self) -> None:
        self._envelope.reset()

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        return [self._chunk(self._envelope.hold(observation.state)) for observation in observations]

    def _chunk(self, action: np.ndarray) -> ActionChunk:
        actions = np.repeat(action[None], self._horizon, axis=0)
        return ActionChunk(actions=actions, control_hz=self._embodiment.control_hz)


class RandomPolicy:
    """Uniform actions over the whole range.

    The stream of an episode starts from ``seed`` and the first thing seen in it, so that an episode is
    reproducible whatever ran before it, and two scenes are not given the same motion.
    """

    contract: None = None  # any arm will do

    def __init__(self, embodiment: Embodiment, seed: int = 0, horizon: int = 1) -> None:
        self._embodiment, self._horizon, self._seed = embodiment, horizon, seed
        self._rng: np.random.Generator | None = None

    def reset(self) -> None:
        self._rng = None

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        if not observations:
            return []
        if self._rng is None:
            self._rng = np.random.default_rng([self._seed, _fingerprint(observations[0])])
        low, high = self._embodiment.action_low, self._embodiment.action_high
        shape = (len(observations), self._horizon, len(low))
        actions = self._rng.uniform(low, high, shape).astype(np.float32)
        return [ActionChunk(actions=a, control_hz=self._embodiment.control_hz) for a in actions]


def _fingerprint(observation: Observation) -> int:
    """A number that follows from what is seen, state and instruction included."""
    crc = zlib.crc32(observation.instruction.encode())
    for values in (observation.images, observation.state):
        for name in sorted(values):
            crc = zlib.crc32(np.ascontiguousarray(values[name]).tobytes(), crc)
    return crc


def make_zero(*, embodiment: Embodiment, horizon: int = 1) -> ZeroPolicy:
    """A policy that does nothing, ``horizon`` steps at a time."""
    return ZeroPolicy(embodiment, horizon)


def make_random(*, embodiment: Embodiment, seed: int = 0, horizon: int = 1) -> RandomPolicy:
    """A policy that acts at random, reproducibly from ``seed``."""
    return RandomPolicy(embodiment, seed, horizon)
