"""Steps of a loop collected into one episode, that outlives the buffers that it was seen through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from vla.embodiment import Embodiment
from vla.interfaces import AUX_KEYS
from vla.types import Episode, Observation, Step


class EpisodeRecorder:
    """Collects steps into one episode; what was seen must outlive the env's buffers (:func:`copied`).

    The label of a step is what was wanted, inside the fields' ranges; where that is not finite, what was
    executed.

    Args:
        embodiment: whose actions.
        provenance: facts stored with the episode.
    """

    def __init__(self, embodiment: Embodiment, provenance: Mapping[str, Any]) -> None:
        self._embodiment, self._provenance = embodiment, dict(provenance)
        self._steps: list[Step] = []
        self._safety: Counter[str] = Counter()
        self._success: bool | None = None

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def instruction(self) -> str:
        return self._steps[0].observation.instruction if self._steps else ""

    def add(
        self,
        seen: Observation,
        wanted: np.ndarray,
        executed: np.ndarray,
        *,
        success: bool | None,
        events: Iterable[str] = (),
    ) -> None:
        """One step.

        Args:
            seen: before acting.
            wanted: what the policy asked for.
            executed: what was sent to the arm.
            success: whether the task is fulfilled after it; None where nobody knows.
            events: stages of the safety envelope that changed the action.
        """
        arm, executed = self._embodiment, np.array(executed, np.float32)
        finite = np.isfinite(wanted).all()
        label = np.clip(arm.check_action(wanted), arm.action_low, arm.action_high) if finite else executed
        self._steps.append(Step(observation=seen, action=label, executed=executed))
        self._safety.update(events)
        self._success = success

    def episode(self) -> Episode:
        """What was added so far."""
        safety = {"safety": dict(self._safety)} if self._safety else {}
        return Episode(
            steps=_with_all_aux(self._steps),
            instruction=self.instruction,
            embodiment=self._embodiment.name,
            success=self._success,
            provenance={**self._provenance, **safety},
        )


def scene_facts(info: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What the info of a reset says of the scene and auxiliary quantities point into, for the provenance."""
    return {key: list(info[key]) for key in ("other_instructions", "things") if info.get(key)}


def _with_all_aux(steps: list[Step]) -> tuple[Step, ...]:
    """Every step with the same auxiliary quantities: NaN where one was not known."""
    sizes = {key: np.shape(value) for step in steps for key, value in step.observation.aux.items()}
    if all(step.observation.aux.keys() == sizes.keys() for step in steps):
        return tuple(steps)
    unknown = {
        key: np.full(shape or (AUX_KEYS.get(key, 1),), np.nan, np.float32) for key, shape in sizes.items()
    }
    return tuple(
        replace(step, observation=replace(step.observation, aux={**unknown, **step.observation.aux}))
        for step in steps
    )


def copied(seen: Observation) -> Observation:
    """An observation that outlives the env's buffers."""
    return replace(
        seen,
        images={name: np.array(image) for name, image in seen.images.items()},
        state={name: np.array(value, np.float32) for name, value in seen.state.items()},
        aux={name: np.array(value, np.float32) for name, value in seen.aux.items()},
    )
