"""The fake benchmark as a suite: what ``vla eval`` and ``vla demo`` meet, without any package of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla.embodiment import Embodiment
from vla_envs.metaworld.suite import ACTION_SCALE, EMBODIMENT
from vla_envs.remote.env import RemoteEnv, RemoteExpert
from vla_envs.remote.process import BenchmarkProcess
from vla_envs.remote.suite import check_cell, with_image_size

WORLDS = str(Path(__file__).with_name("fake_worlds.py"))


class FakeRemoteSuite:
    """Two tasks in one group; ``broken`` ones are for tests of what goes wrong."""

    name = "fake_remote"
    tasks = ("point", "point_again")
    broken = ("raises", "dies", "hangs", "unbuildable")
    embodiments = ("sawyer",)
    camera_roles = ("front",)
    variants, wordings = RemoteEnv.variants, RemoteEnv.wordings
    groups = {"both": tasks, "easy": ("point",), "hard": ("point_again",)}  # noqa: RUF012
    levels = ("easy", "hard")

    def __init__(self, *, timeout_s: float = 60) -> None:
        self.process = BenchmarkProcess("here", WORLDS, timeout_s=timeout_s)

    def make(self, task: str, embodiment: str, *, image_size: int = 16, render: bool = True) -> RemoteEnv:
        check_cell(self, "point" if task in self.broken else task, embodiment, detailed=False)
        settings = {"task": task, "size": image_size}
        arm = with_image_size(Embodiment.load(EMBODIMENT), image_size)
        return RemoteEnv(self.process, arm, settings, render=render, action_scale=ACTION_SCALE)

    def expert(self, env: Any) -> RemoteExpert:
        return RemoteExpert(env)
