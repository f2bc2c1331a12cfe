"""The arms of the tabletop suite: four of our own, detailed skins for them, and arms from foreign files."""

from __future__ import annotations

from collections.abc import Callable

from vla.errors import UnknownNameError
from vla_envs.tabletop.arms import panda, so101, ur5e, xarm7
from vla_envs.tabletop.arms.model import ArmModel

__all__ = ["ARM_NAMES", "ArmModel", "load_arm"]

_BUILDERS: dict[str, Callable[[], ArmModel]] = {
    "panda": panda.build,
    "ur5e": ur5e.build,
    "xarm7": xarm7.build,
    "so101": so101.build,
}

ARM_NAMES: tuple[str, ...] = tuple(_BUILDERS)


def load_arm(name: str, *, detailed: bool = False) -> ArmModel:
    """A fresh arm by name.

    Args:
        name: one of ``ARM_NAMES``.
        detailed: wear the MuJoCo Menagerie meshes, where the user has them; the physics stays the same.

    Raises:
        UnknownNameError: no arm of that name.
    """
    if name not in _BUILDERS:
        raise UnknownNameError("arm", name, _BUILDERS)
    return _BUILDERS[name]()
