"""How a verb reads its flags: a dataclass becomes flags, help and typo hints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")

#: Names of arms; ``--embodiments`` means the same.
Arms = Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--embodiments"])]


def parse(flags: type[T], verb: str, argv: Sequence[str]) -> T:
    """``argv`` -> ``flags``; a wrong flag prints a hint and exits with code 2."""
    return tyro.cli(flags, prog=f"vla {verb}", args=list(argv), config=(tyro.conf.FlagCreatePairsOff,))
