"""Gymnasium registration: ``gymnasium.make("vla_envs:vla/tabletop-place-panda-v0")``."""

from __future__ import annotations

import gymnasium


def register() -> None:
    """Register every task and arm; light (no MuJoCo import) and safe to call twice."""
    from vla_envs.tabletop.names import ARMS, TASKS

    for task in TASKS:
        for arm in ARMS:
            name = f"vla/tabletop-{task}-{arm}-v0"
            if name in gymnasium.registry:
                continue
            gymnasium.register(
                id=name,
                entry_point="vla_envs.tabletop.env:make_env",
                kwargs={"task": task, "embodiment": arm},
                disable_env_checker=True,
                order_enforce=False,
            )
