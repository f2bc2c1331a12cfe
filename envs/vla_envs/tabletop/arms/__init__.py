"""The arms of the tabletop suite: six of our own, detailed looks for them, and arms from foreign files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vla.errors import EnvError, UnknownNameError
from vla_envs.tabletop.arms import gen3, iiwa14, panda, so101, ur5e, xarm7
from vla_envs.tabletop.arms.detailed import dress
from vla_envs.tabletop.arms.foreign import foreign_arm_files, load_foreign_arm
from vla_envs.tabletop.arms.model import ArmModel, open_gripper

__all__ = ["ARM_NAMES", "ArmModel", "arm_names", "load_arm", "load_foreign_arm", "open_gripper"]

_BUILDERS: dict[str, Callable[[], ArmModel]] = {
    "panda": panda.build,
    "ur5e": ur5e.build,
    "xarm7": xarm7.build,
    "so101": so101.build,
    "gen3": gen3.build,
    "iiwa14": iiwa14.build,
}

ARM_NAMES: tuple[str, ...] = tuple(_BUILDERS)


def arm_names() -> tuple[str, ...]:
    """Our arms, then the foreign ones found through ``VLA_ARM_PATH``."""
    return (*ARM_NAMES, *_foreign())


def load_arm(name: str, *, detailed: bool = False) -> ArmModel:
    """A fresh arm by name.

    Args:
        name: one of :func:`arm_names`.
        detailed: wear the MuJoCo Menagerie meshes, where the user has them; the physics stays the same.

    Raises:
        UnknownNameError: no arm of that name.
        EnvError: the detailed model files, or a foreign arm's files, are missing or unusable.
    """
    if name in _BUILDERS:
        arm = _BUILDERS[name]()
        return dress(arm) if detailed else arm
    foreign = _foreign()
    if name not in foreign:
        raise UnknownNameError("arm", name, (*ARM_NAMES, *foreign))
    if detailed:
        raise EnvError(f"the arm {name!r} comes from {foreign[name]}: it has no detailed looks but its own")
    return load_foreign_arm(foreign[name])


def _foreign() -> dict[str, Path]:
    found = foreign_arm_files()
    for name in found:
        if name in _BUILDERS:
            raise EnvError(f"{found[name]} calls its arm {name!r}, which is one of ours; rename it")
    return found
