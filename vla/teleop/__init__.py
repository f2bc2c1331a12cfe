"""A person moves the arm: alone, or taking over from a policy and handing back.

::

    keyboard, gamepad, leader arm ─► Teleoperator ─► action, or None ─┐
                                                                      ├─► Takeover ─► envelope ─► robot
                                        policy ─► ChunkExecutor ──────┘

What a person sends goes through the same safety envelope, watchdogs and recorder as what a policy sends; each
episode of a recording is either the policy's or the person's (``provenance["actor"]``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from vla.control.chunks import ChunkExecutor
from vla.control.policies import Contract
from vla.embodiment import Embodiment
from vla.types import ActionChunk, Observation

#: Who acted, in ``ActionChunk.info["actor"]`` and an episode's provenance.
POLICY, HUMAN = "policy", "human"


class Teleoperator(Protocol):
    """Something that a person moves an arm with."""

    def connect(self, arm: Embodiment) -> None:
        """Start, for this arm.

        Raises:
            ConfigError: the arm cannot be moved with it, and why.
            RobotError: it is not there, or does not answer.
        """
        ...

    def read(self, state: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """What the person wants now, without waiting.

        Args:
            state: of the arm, by field.

        Returns:
            One action, float32 [action_dim], in the arm's units; None while the person leaves it alone.

        Raises:
            RobotError: the device was lost: the loop stops the arm.
        """
        ...

    def close(self) -> None: ...


class Takeover:
    """A policy that a person can take over from at any step, and hand back to; or a person alone.

    A takeover drops what is left of the policy's chunk, and what is being thought about.

    Args:
        policy: None: the arm is held while the person leaves it alone.
        device: connected here; close it with :meth:`close`.
        arm: to be moved.
        hold: the action that holds an arm in this state.
        say: tells the person who moves the arm now.
    """

    def __init__(
        self,
        policy: ChunkExecutor | None,
        device: Teleoperator,
        arm: Embodiment,
        hold: Callable[[Observation], ActionChunk],
        say: Callable[[str], None],
    ) -> None:
        self._policy, self._device, self._arm, self._hold, self._say = policy, device, arm, hold, say
        self._human = self._begun = False
        device.connect(arm)

    @property
    def contract(self) -> Contract | None:
        return None if self._policy is None else self._policy.contract

    def check(self, embodiment: Embodiment) -> None:
        """As the policy's own."""
        if self._policy is not None:
            self._policy.check(embodiment)

    def reset(self) -> None:
        self._human = self._begun = False
        if self._policy is not None:
            self._policy.reset()

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """The person's action, else the policy's, else holding still."""
        (seen,) = observations
        wanted = self._device.read(seen.state)
        if (wanted is not None) != self._human:
            self._changed()
        if wanted is not None:
            action = np.asarray(wanted, np.float32)[None]
            return [ActionChunk(actions=action, control_hz=self._arm.control_hz, info={"actor": HUMAN})]
        if self._policy is not None:
            chunk = self._policy.act(observations)[0]
            return [replace(chunk, info={**chunk.info, "actor": POLICY})]
        still = self._hold(seen)  # a pause is a part of what the person shows
        return [replace(still, info={"actor": HUMAN, "held": True, "idle": not self._begun})]

    def close(self) -> None:
        self._device.close()

    def _changed(self) -> None:
        self._human = not self._human
        self._begun = True
        if self._policy is not None:
            self._policy.reset()
            self._say("you have the arm." if self._human else "the policy has the arm.")
