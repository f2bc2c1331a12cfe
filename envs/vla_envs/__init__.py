"""Simulated worlds for ``vla``: MuJoCo tabletop suites behind the gymnasium API.

Importing this package chooses the renderer and registers the environments, so both
``gymnasium.register_envs(vla_envs)`` and ``gymnasium.make("vla_envs:vla/tabletop-place-panda-v0")`` work.
(Gymnasium 1.x no longer reads an entry point group of its own.)
"""

from vla_envs.registration import register
from vla_envs.rendering import choose_backend

choose_backend()
register()
