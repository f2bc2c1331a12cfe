"""Finding suites, policies and robots by name through Python entry points.

``vla`` never imports ``vla_envs`` or ``vla_policies``: they, and third parties, register themselves.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from inspect import signature
from typing import Any, cast

from vla.errors import ConfigError, UnknownNameError
from vla.interfaces import Suite

SUITES = "vla.suites"
POLICIES = "vla.policies"
ROBOTS = "vla.robots"


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


def suite(name: str, *, season: int | str | None = None) -> Suite:
    """The registered suite of that name; ``tabletop@7`` is season 7 of it, as is ``season=7``.

    What stands behind the @ of a suite that has no seasons and is of several sorts says which:
    ``gymnasium@fetch``.

    Raises:
        ConfigError: two seasons are named, or the suite has none.
    """
    base, at, named = name.partition("@")
    if at and season is not None:
        raise ConfigError(f"The suite {name!r} names its season: leave out season={season!r}.")
    factory, season = load(SUITES, base, "suite"), named if at else season
    if season is None:
        return cast(Suite, factory())
    if at and "which" in signature(factory).parameters:
        return cast(Suite, factory(which=named))
    if "season" not in signature(factory).parameters:
        raise ConfigError(f"The suite {base!r} has no seasons: leave out {season!r}.")
    return cast(Suite, factory(season=season))


def policy_factory(name: str) -> Any:
    """The registered policy factory of that name: ``factory(**kwargs) -> Policy``."""
    return load(POLICIES, name, "policy")


def robot_factory(name: str) -> Any:
    """What makes robots of that name, or at ``module:function``: ``factory(ArmSettings) -> Robot``.

    Raises:
        UnknownNameError: nothing of that name.
        ConfigError: the module is there and cannot be imported, or has no such function.
    """
    module = name.partition(":")[0]
    if ":" in name and find_spec(module.partition(".")[0]) is None:
        raise UnknownNameError("kind of robot", module, ["sim", *names(ROBOTS)])
    try:
        return load(ROBOTS, name, "kind of robot")
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"Robot {name!r}: {error}.") from error
