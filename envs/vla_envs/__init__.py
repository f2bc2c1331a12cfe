"""Simulated worlds for ``vla``: MuJoCo tabletop suites behind the gymnasium API."""

from vla_envs.rendering import choose_backend

choose_backend()
