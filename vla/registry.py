"""Finding suites, policies and backends by name through Python entry points.

``vla`` never imports ``vla_envs`` or ``vla_policies``: they, and third parties, register themselves.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from vla.errors import UnknownNameError
from vla.interfaces import Suite

SUITES = "vla.suites"
POLICIES = "vla.policies"


def names(group: str) -> list[str]:
    """Names registered in an entry point group, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: str, name: str, kind: str) -> Any:
    """The object registered under ``name``, or at ``module:attribute``; an unknown name raises."""
    if ":" in name:
        return EntryPoint(name=name, value=name, group=group).load()
    for point in entry_points(group=group):
        if point.name == name:
            return point.load()
    raise UnknownNameError(kind, name, names(group))


def suite(name: str) -> Suite:
    """The registered suite of that name."""
    return cast(Suite, load(SUITES, name, "suite")())


def policy_factory(name: str) -> Any:
    """The registered policy factory of that name: ``factory(**kwargs) -> Policy``."""
    return load(POLICIES, name, "policy")
