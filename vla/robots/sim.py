"""A simulated arm behind the robot interface: the same loop drives it as drives hardware."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vla.errors import ConfigError, EnvError, UnknownNameError
from vla.interfaces import Env, Suite, observation_from_gym
from vla.robots import Reading, one_action


@runtime_checkable
class Instructable(Protocol):
    """An env that can be told to do something else in the same scene."""

    def set_instruction(self, text: str) -> None: ...


@runtime_checkable
class Reporting(Protocol):
    """An env that can say how things stand without a step."""

    def current_info(self) -> Mapping[str, Any]:
        """What ``info`` would say now."""
        ...


@runtime_checkable
class Describing(Protocol):
    """An env that can say what is there and what it can be asked to do."""

    def scene(self) -> str:
        """What sort of scene it is, e.g. the name of its task."""
        ...

    def things(self) -> list[str]:
        """What stands before the arm, by the names a person gives it."""
        ...

    def sentences(self) -> list[str]:
        """One sentence for each thing that can be asked of the scene as it is now."""
        ...


@runtime_checkable
class InstructableSuite(Protocol):
    """A suite that finds a scene in which an instruction can be followed."""

    def env_for_instruction(
        self, text: str, embodiment: str, seed: int, **make_kwargs: Any
    ) -> tuple[Env, int]:
        """An env and the first seed from ``seed`` on whose scene can do what ``text`` asks."""
        ...


class SimRobot:
    """An env as a robot.

    Args:
        env: owned from here on; ``close`` closes it.
        seed, options: what ``connect`` resets it to, exactly.
        instruction: said after each reset in place of the episode's own.
        state: what ``connect`` restores instead of a reset, as the env saved it.
    """

    def __init__(
        self,
        env: Env,
        *,
        seed: int,
        options: Mapping[str, Any] | None = None,
        instruction: str | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.env = env
        self.embodiment = env.embodiment
        self.deadman_s: float | None = None
        self.seed, self._options, self._instruction = seed, dict(options or {}), instruction
        self._state = state
        self._reading: Reading | None = None
        self._steps = 0
        self._stopped = True

    def connect(self) -> Reading:
        if self._state is None:
            obs, info = self.env.reset(seed=self.seed, options=dict(self._options))
        else:
            obs = self.env.restore_state(self._state)
            info = self._current_info(obs["instruction"])
        self._steps, self._stopped = 0, False
        reading = self._take(obs, info, done=False)
        return reading if self._instruction is None else self.set_instruction(self._instruction)

    def read(self) -> Reading:
        if self._reading is None:
            raise EnvError(f"Simulated {self.embodiment.name!r} is not connected: call connect() first.")
        return self._reading

    def command(self, action: np.ndarray) -> Reading:
        if self._stopped:
            raise EnvError(f"Simulated {self.embodiment.name!r} is stopped: call connect() to start again.")
        obs, _, terminated, truncated, info = self.env.step(one_action(self.embodiment, action))
        self._steps += 1
        return self._take(obs, info, done=bool(terminated or truncated))

    def set_instruction(self, text: str) -> Reading:
        if not isinstance(self.env, Instructable):
            raise ConfigError(
                f"The env of simulated {self.embodiment.name!r} takes no new instructions while it runs "
                "(it has no set_instruction)."
            )
        before = self.read()
        self.env.set_instruction(text)
        info = self._current_info(text)
        observation = replace(before.observation, instruction=text, aux=info["aux"])
        self._reading = Reading(observation=observation, info=info, done=False)
        return self._reading

    def _current_info(self, instruction: str) -> Mapping[str, Any]:
        if isinstance(self.env, Reporting):  # otherwise nothing is known of the goal before the next step
            return self.env.current_info()
        return {"success": False, "wrong": False, "instruction": instruction, "aux": {}}

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        self.stop()
        self.env.close()

    def _take(self, obs: Mapping[str, Any], info: Mapping[str, Any], *, done: bool) -> Reading:
        time_s = self._steps / self.embodiment.control_hz
        observation = observation_from_gym(obs, self.embodiment, time_s=time_s, aux=info["aux"])
        self._reading = Reading(observation=observation, info=info, done=done)
        return self._reading


def sim_robot(suite: Suite, embodiment: str, instruction: str, *, seed: int, **make_kwargs: Any) -> SimRobot:
    """A simulated arm in a scene where ``instruction`` can be followed.

    Args:
        suite: must find scenes by instruction (:class:`InstructableSuite`).
        embodiment: one of the suite's arms.
        instruction: what the person says.
        seed: where the search for a scene starts.
        make_kwargs: passed on to the suite's ``make`` (image_size, render ...).

    Raises:
        UnknownNameError: the suite has no such arm.
        VlaError: no scene of the suite can follow the instruction.
    """
    if embodiment not in suite.embodiments:
        raise UnknownNameError(f"arm of suite {suite.name!r}", embodiment, suite.embodiments)
    if not isinstance(suite, InstructableSuite):
        raise ConfigError(
            f"Suite {suite.name!r} cannot look for a scene by instruction (no env_for_instruction)."
        )
    env, found = suite.env_for_instruction(instruction, embodiment, seed, **make_kwargs)
    return SimRobot(env, seed=found, instruction=instruction)
