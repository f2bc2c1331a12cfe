"""Plays the executed actions of a stored episode: the check that data, units and env agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla.control.safety import SafetyEnvelope
from vla.data.store import EpisodeStore
from vla.embodiment import Embodiment, compatible
from vla.errors import ConfigError, IncompatibleError
from vla.types import ActionChunk, Observation


class ReplayPolicy:
    """One stored action a step from the first on; holds still when the episode is over."""

    contract: None = None  # made for one arm, which :func:`make` compares with the recorded one

    def __init__(self, actions: np.ndarray, embodiment: Embodiment) -> None:
        self._actions, self._embodiment = embodiment.check_action(actions), embodiment
        if not len(self._actions):
            raise ConfigError("There is nothing to replay: the episode has no actions.")
        self._envelope = SafetyEnvelope.holding(embodiment)
        self._next = 0

    def reset(self) -> None:
        self._envelope.reset()
        self._next = 0

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        t = self._next
        self._next += 1
        return [self._chunk(t, observation) for observation in observations]

    def _chunk(self, t: int, observation: Observation) -> ActionChunk:
        over = t >= len(self._actions)
        action = self._envelope.hold(observation.state) if over else self._actions[t]
        return ActionChunk(actions=action[None], control_hz=self._embodiment.control_hz)


def make(*, path: str, embodiment: Embodiment, episode: int = 0) -> ReplayPolicy:
    """Replay ``episode`` of the store at ``path`` on an arm with the same conventions."""
    store = EpisodeStore.open(path)
    try:
        if not 0 <= episode < len(store.episodes):
            raise ConfigError(f"Store {path!r} has episodes 0 .. {len(store.episodes) - 1}, not {episode}.")
        recorded = store.embodiments[store.episodes[episode].embodiment]
        answer = compatible(recorded, embodiment)
        if not answer:
            raise IncompatibleError(
                f"episode {episode} of {recorded.name!r}", repr(embodiment.name), answer.reasons
            )
        return ReplayPolicy(store.column(episode, "executed"), embodiment)
    finally:
        store.close()
