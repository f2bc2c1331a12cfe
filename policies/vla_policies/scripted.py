"""The suite's scripted expert as a policy: reads the simulator's state, so it runs in simulation only."""

from __future__ import annotations

from vla.interfaces import Env, Policy, Suite


def make(*, suite: Suite, env: Env) -> Policy:
    """The expert of ``suite`` for ``env``: acts on what is in that env now, whatever it is shown."""
    return suite.expert(env)
