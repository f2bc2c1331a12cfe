"""How a verb reads its flags: a dataclass becomes flags, help and typo hints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from vla.errors import CheckpointError

T = TypeVar("T")

#: Names of arms; ``--embodiments`` means the same.
Arms = Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--embodiments"])]


def explained(default: str) -> Any:
    """For a flag whose default is None: what that means, in place of ``(default: None)``."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {default})")


def parse(flags: type[T], verb: str, argv: Sequence[str]) -> T:
    """``argv`` -> ``flags``; a wrong flag prints a hint and exits with code 2."""
    return tyro.cli(flags, prog=f"vla {verb}", args=list(argv), config=(tyro.conf.FlagCreatePairsOff,))


def policy_spec(text: str, head: str | None = None) -> str:
    """What a person writes after ``--policy``, as a policy spec (see ``vla.control.policies.PolicySpec``).

    Args:
        text: ``default`` (shipped), a directory that ``vla train`` wrote, or a spec such as ``expert``.
        head: which of its action heads shall decide; None leaves it to the policy.

    Raises:
        CheckpointError: a path at which there is nothing.
    """
    choice = "" if head is None else f",head={head}"
    if text == "default":
        return f"learned{choice}"
    if Path(text).is_dir():
        return f"learned:{text}{choice}"
    if "/" in text.partition(":")[0]:
        raise CheckpointError(
            f"No policy at {text}. Give a directory that 'vla train' wrote, or default, expert, random, zero."
        )
    return text + choice
