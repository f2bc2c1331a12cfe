"""A recorded episode in an arm's place: a policy sees what was seen then, and what it would do is compared.

Nothing moves, and time goes on by one recorded step with every command: what a policy does with real pictures
and states can be looked at before it drives the arm that they are of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.store import EpisodeStore
from vla.embodiment import Embodiment, compatible
from vla.errors import ConfigError, IncompatibleError, RobotError
from vla.robots import Reading, one_action
from vla.robots.named import ArmSettings
from vla.types import Observation


class ReplayRobot:
    """An episode of a store as a robot; see :class:`vla.robots.Robot`.

    ``info`` says how a command differed from what was executed then, as a share of half of each entry's
    range: ``difference`` of the last command (mean over its entries), ``mean_difference`` and
    ``largest_difference`` over all, ``largest_entry`` and ``largest_step`` where that was; and ``recorded``
    [A], the action executed then. ``success`` is not said: nothing that a policy does here leads anywhere.

    Args:
        path: of the store.
        episode: number in it.
        embodiment: whom the policy knows; None: the arm as it was recorded.

    Raises:
        ConfigError: no such episode, or an empty one.
        IncompatibleError: the recorded arm has other fields, units, cameras or rates.
    """

    deadman_s: float | None = None  # time stands still between commands

    def __init__(self, path: str | Path, episode: int = 0, embodiment: Embodiment | None = None) -> None:
        with EpisodeStore.open(path) as store:
            if not 0 <= episode < len(store):
                raise ConfigError(f"Store {path} has episodes 0 .. {len(store) - 1}, not {episode}.")
            info = store.episodes[episode]
            recorded = store.embodiments[info.embodiment]
            self.embodiment = embodiment or recorded
            if not (answer := compatible(recorded, self.embodiment)):
                raise IncompatibleError(
                    f"episode {episode} of {recorded.name!r}", repr(self.embodiment.name), answer.reasons
                )
            self._state = store.column(episode, "state")
            self._executed = store.column(episode, "executed")
            steps = range(len(self._executed))
            self._pictures = {
                camera.name: store.frames(episode, camera.name, steps) for camera in self.embodiment.cameras
            }
        if not steps:
            raise ConfigError(f"Episode {episode} of {path} has no steps.")
        self._name = f"episode {episode} of {path}"
        self._recorded_instruction, self._instruction = info.instruction, info.instruction
        self._step, self._connected = 0, False
        self._differences: list[np.ndarray] = []

    def connect(self) -> Reading:
        """The first step of the episode again."""
        self._step, self._connected, self._differences = 0, True, []
        self._instruction = self._recorded_instruction
        return self.read()

    def read(self) -> Reading:
        """What was seen and measured at this step of the episode."""
        t = self._at
        observation = Observation(
            images={name: frames[t] for name, frames in self._pictures.items()},
            state=self.embodiment.unpack_state(self._state[t]),
            instruction=self._instruction,
            embodiment=self.embodiment.name,
            time_s=self._step / self.embodiment.control_hz,
        )
        return Reading(observation=observation, info=self._info(t), done=self._over)

    def command(self, action: np.ndarray) -> Reading:
        """Compare with what was executed at this step, and go on to the next.

        Raises:
            ActionError: not one finite action of this arm.
            RobotError: stopped, or the episode is over: connect() begins it again.
        """
        wanted = one_action(self.embodiment, action)
        if not self._connected or self._over:
            why = "is over" if self._over else "is stopped"
            raise RobotError(f"{self._name} {why}: connect() begins it again.")
        half = (self.embodiment.action_high - self.embodiment.action_low) / 2
        self._differences.append(np.abs(wanted - self._executed[self._step]) / half)
        self._step += 1
        return self.read()

    def set_instruction(self, text: str) -> Reading:
        """Any sentence; the episode stays what it is."""
        self._instruction = text
        return self.read()

    def stop(self) -> None:
        self._connected = False

    def close(self) -> None:
        self._connected = False

    @property
    def _over(self) -> bool:
        return self._step >= len(self._executed)

    @property
    def _at(self) -> int:
        return min(self._step, len(self._executed) - 1)

    def _info(self, t: int) -> Mapping[str, Any]:
        info: dict[str, Any] = {"recorded": self._executed[t], "step": self._step, "of": len(self._executed)}
        if not self._differences:
            return info
        told = np.stack(self._differences)
        where = np.unravel_index(int(told.argmax()), told.shape)
        entries = [f"{field.name}[{i}]" for field in self.embodiment.action for i in range(field.size)]
        return {
            **info,
            "difference": float(told[-1].mean()),
            "mean_difference": float(told.mean()),
            "largest_difference": float(told.max()),
            "largest_step": int(where[0]),
            "largest_entry": entries[int(where[1])],
        }


def named(settings: ArmSettings) -> ReplayRobot:
    """``--robot replay --arm-file demos.zarr#3``: the first episode where no number is given."""
    settings.need("arm_file")
    if settings.cameras:
        raise ConfigError("A replay shows the recorded pictures: leave --cameras out.")
    path, _, number = settings.arm_file.partition("#")
    if number and not number.isdecimal():
        raise ConfigError(f"--arm-file {settings.arm_file!r}: expected STORE or STORE#NUMBER.")
    return ReplayRobot(path, int(number or 0), settings.embodiment)
