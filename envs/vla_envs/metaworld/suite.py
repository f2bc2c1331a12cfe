"""Meta-World as evaluation and data generation see it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vla.embodiment import Embodiment
from vla.interfaces import Env, Policy, Variant, Wording
from vla_envs.metaworld.tasks import INSTRUCTIONS, LEVELS, MT10
from vla_envs.remote.env import RemoteEnv
from vla_envs.remote.process import BenchmarkProcess
from vla_envs.remote.suite import check_cell, scripted, with_image_size

#: The arm as Meta-World drives it: the hand moves along x, y, z, the gripper opens and closes.
EMBODIMENT = Path(__file__).with_name("sawyer.json")
#: What an action of 1 moves the hand by, m per step (Meta-World's ``action_scale``); the gripper as it is.
ACTION_SCALE = (0.01, 0.01, 0.01, 1.0)


class MetaWorldSuite:
    """See :class:`vla.interfaces.Suite`. The benchmark's process starts with the first env and is shared."""

    name = "metaworld"
    tasks = tuple(INSTRUCTIONS)
    embodiments = ("sawyer",)
    camera_roles = ("front",)
    variants: tuple[Variant, ...] = RemoteEnv.variants
    wordings: tuple[Wording, ...] = RemoteEnv.wordings
    #: What may be said in place of task names.
    groups: Mapping[str, tuple[str, ...]] = {"mt10": MT10, "mt50": tuple(INSTRUCTIONS), **LEVELS}
    #: Groups that results are given by, and averaged over.
    levels = tuple(LEVELS)

    def __init__(self) -> None:
        self._process = BenchmarkProcess("metaworld", "serving.metaworld_worlds")

    def make(
        self,
        task: str,
        embodiment: str,
        *,
        image_size: int = 64,
        render: bool = True,
        detailed: bool = False,
    ) -> RemoteEnv:
        """Build an env; the first one starts the benchmark (about 2 s)."""
        check_cell(self, task, embodiment, detailed=detailed)
        settings = {"task": task, "instruction": INSTRUCTIONS[task], "image_size": image_size}
        arm = with_image_size(Embodiment.load(EMBODIMENT), image_size)
        return RemoteEnv(self._process, arm, settings, render=render, action_scale=ACTION_SCALE)

    def expert(self, env: Env) -> Policy:
        """Meta-World's own scripted policy of the task."""
        return scripted(self, env)
