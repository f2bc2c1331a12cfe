"""What a policy with history remembers of the episodes that it serves."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from vla.errors import ObservationError


@dataclass(frozen=True, eq=False)
class Moment:
    """A decision: when (s), state [STATE_DIM] and the chunk's first action [ACTION_DIM], both normalised."""

    time_s: float
    state: np.ndarray
    action: np.ndarray


class EpisodeMemory:
    """Earlier decisions of each running episode, found by time.

    Args:
        length: moments to go back (0: remembers nothing).
        gap: control steps between them, as in training.
    """

    def __init__(self, length: int, gap: int) -> None:
        self.length, self.gap = length, gap
        self.reset()

    def reset(self) -> None:
        """Forget all episodes."""
        self._moments: dict[int, list[Moment]] = {}

    def forget(self, episodes: Collection[int]) -> None:
        """Forget these episodes."""
        for episode in episodes:
            self._moments.pop(episode, None)

    def add(self, episode: int, moment: Moment) -> None:
        """Remember a decision; what lies too far back is forgotten."""
        if self.length:
            kept = self._moments.setdefault(episode, [])
            kept.append(moment)
            del kept[: -(self.length * self.gap + 1)]

    def before(self, episode: int, time_s: float, control_hz: float) -> list[Moment | None]:
        """For each of ``length`` moments, newest first, the decision made then; None before the first one.

        Raises:
            ObservationError: time does not go on, or no decision was made when the policy needs one.
        """
        kept = self._moments.get(episode, [])
        if kept and time_s <= kept[-1].time_s:
            raise ObservationError(
                f"Episode {episode}: an observation at {time_s:g} s follows one at {kept[-1].time_s:g} s. "
                "A policy with history needs time_s, and reset() between episodes."
            )
        gap_s = self.gap / control_hz
        found: list[Moment | None] = []
        for k in range(1, self.length + 1):
            then = time_s - k * gap_s
            near = min(kept, key=lambda moment: abs(moment.time_s - then), default=None)
            if near is not None and abs(near.time_s - then) <= gap_s / 2 + 1e-6:
                found.append(near)
            elif k == 1 and kept:
                raise ObservationError(
                    f"Episode {episode}: no decision near {then:g} s; this policy was trained with one "
                    f"every {self.gap} steps ({gap_s:g} s). Run it with execution_horizon {self.gap}."
                )
            else:
                found.append(None)
        return found
