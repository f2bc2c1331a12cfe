"""Gymnasium registration: ``gymnasium.make("vla/tabletop-place-panda-v0")``."""

from __future__ import annotations

import gymnasium


def register() -> None:
    """Called by gymnasium through its entry point; must stay light (no MuJoCo import)."""
    from vla_envs.tabletop.names import ARMS, TASKS

    for task in TASKS:
        for arm in ARMS:
            gymnasium.register(
                id=f"vla/tabletop-{task}-{arm}-v0",
                entry_point="vla_envs.tabletop.env:make_env",
                kwargs={"task": task, "embodiment": arm},
                disable_env_checker=True,
                order_enforce=False,
            )
