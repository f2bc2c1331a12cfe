"""What suites of benchmarks have in common."""

from __future__ import annotations

import dataclasses
from typing import Any

from vla.embodiment import Embodiment
from vla.errors import EnvError, UnknownNameError
from vla.interfaces import Env, Policy
from vla_envs.remote.env import RemoteEnv, RemoteExpert


def check_cell(suite: Any, task: str, embodiment: str, *, detailed: bool) -> None:
    """Raise for a task or arm that the suite does not have, and for another look of the arm: there is one."""
    for kind, given, known in (("task", task, suite.tasks), ("arm", embodiment, suite.embodiments)):
        if given not in known:
            raise UnknownNameError(f"{kind} of suite {suite.name!r}", given, known)
    if detailed:
        raise EnvError(f"{suite.name} has one look of its arm only: leave out detailed (--detailed).")


def with_image_size(embodiment: Embodiment, image_size: int) -> Embodiment:
    """The same arm with square pictures of that many pixels a side from every camera."""
    cameras = (dataclasses.replace(c, height=image_size, width=image_size) for c in embodiment.cameras)
    return dataclasses.replace(embodiment, cameras=tuple(cameras))


def scripted(suite: Any, env: Env) -> Policy:
    """The benchmark's scripted policy; where it has none, asking for an action raises."""
    bare: Any = getattr(env, "unwrapped", env)
    if not isinstance(bare, RemoteEnv):
        raise EnvError(
            f"Scripted policies of {suite.name} act in its own envs, not in {type(bare).__name__}."
        )
    return RemoteExpert(bare)
