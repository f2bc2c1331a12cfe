"""LIBERO's task suites as evaluation sees them: ``--suite libero@libero_goal``, ``libero@libero_goal_swap``.

There are no demonstrations and no scripted policies: it is for evaluation. Seed s is init state s of the task
(50 are stored), so ``--episodes 50`` is the published protocol.
"""

from __future__ import annotations

from pathlib import Path

from vla.embodiment import Embodiment
from vla.errors import UnknownNameError
from vla.interfaces import Env, Policy, Variant, Wording
from vla_envs.remote.env import RemoteEnv
from vla_envs.remote.process import BenchmarkProcess
from vla_envs.remote.suite import check_cell, scripted, with_image_size

_EMBODIMENT = Path(__file__).with_name("panda.json")
#: Of LIBERO, by number of tasks.
SUITES = {"libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10, "libero_90": 90}
#: Of LIBERO-PRO: other sentences, other-looking objects, swapped places, another task.
PERTURBED = ("lan", "object", "swap", "task")
#: What the controller makes of an action of 1: m, rad; the gripper as it is.
ACTION_SCALE = (0.05, 0.05, 0.05, 0.5, 0.5, 0.5, 1.0)


def suite_sizes() -> dict[str, int]:
    """Every suite whose resources are whole, with its number of tasks."""
    perturbed = {f"{name}_{how}": 10 for name in SUITES if name != "libero_90" for how in PERTURBED}
    return {**SUITES, **perturbed}


class LiberoSuite:
    """See :class:`vla.interfaces.Suite`; ``which``: one of :func:`suite_sizes`."""

    embodiments = ("libero_panda",)
    camera_roles = ("front", "wrist")
    variants: tuple[Variant, ...] = RemoteEnv.variants
    wordings: tuple[Wording, ...] = RemoteEnv.wordings

    def __init__(self, which: str = "libero_spatial") -> None:
        sizes = suite_sizes()
        if which not in sizes:
            raise UnknownNameError("LIBERO suite", which, sizes)
        self._which, self.name = which, f"libero@{which}"
        self.tasks = tuple(f"task{number:02d}" for number in range(sizes[which]))
        self._process = BenchmarkProcess("libero", "serving.libero_worlds")

    def make(
        self,
        task: str,
        embodiment: str,
        *,
        image_size: int = 128,
        render: bool = True,
        detailed: bool = False,
    ) -> RemoteEnv:
        """Build an env (about 10 s); the first one starts the benchmark."""
        check_cell(self, task, embodiment, detailed=detailed)
        settings = {"suite": self._which, "task": self.tasks.index(task), "image_size": image_size}
        arm = with_image_size(Embodiment.load(_EMBODIMENT), image_size)
        return RemoteEnv(self._process, arm, settings, render=render, action_scale=ACTION_SCALE)

    def expert(self, env: Env) -> Policy:
        """There is none: asking it for an action raises."""
        return scripted(self, env)
