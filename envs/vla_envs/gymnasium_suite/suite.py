"""Described gymnasium environments as evaluation sees them: ``gymnasium@fetch``, ``gymnasium@FILE.json``."""

from __future__ import annotations

from pathlib import Path

from vla.errors import ConfigError
from vla.interfaces import Env, Policy, Variant, Wording
from vla_envs.gymnasium_suite.description import load_description
from vla_envs.remote.env import RemoteEnv
from vla_envs.remote.process import BenchmarkProcess
from vla_envs.remote.suite import check_cell, scripted, with_image_size


class GymnasiumSuite:
    """See :class:`vla.interfaces.Suite`.

    Args:
        which: name of a description that comes with the package, or path of a file.

    Raises:
        UnknownNameError, ConfigError: there is none, or it is wrong.
    """

    variants: tuple[Variant, ...] = RemoteEnv.variants
    wordings: tuple[Wording, ...] = RemoteEnv.wordings

    def __init__(self, which: str = "fetch") -> None:
        if which.endswith(".json"):
            which = str(Path(which).resolve())  # workers and later commands may stand elsewhere
        self._description = load_description(which)
        self.name = f"gymnasium@{which}"
        self.tasks = tuple(self._description.tasks)
        self.embodiments = (self._description.embodiment.name,)
        self.camera_roles = tuple(camera.role for camera in self._description.embodiment.cameras)
        self._process = BenchmarkProcess(self._description.benchmark, "serving.gymnasium_worlds")

    def make(
        self, task: str, embodiment: str, *, image_size: int = 64, render: bool = True, detailed: bool = False
    ) -> RemoteEnv:
        """Build an env; the first one starts the process."""
        check_cell(self, task, embodiment, detailed=detailed)
        described = self._description
        env = RemoteEnv(
            self._process,
            with_image_size(described.embodiment, image_size),
            described.settings(task, image_size),
            render=render,
            action_scale=described.action_scale or None,
        )
        dim = env.facts["action_dim"]
        if dim != described.embodiment.action_dim:
            env.close()
            raise ConfigError(
                f"{self.name}: {described.tasks[task]['id']} takes {dim} numbers as action, the embodiment "
                f"that it is described with has {described.embodiment.action_dim}."
            )
        return env

    def expert(self, env: Env) -> Policy:
        """There is none: asking it for an action raises."""
        return scripted(self, env)
