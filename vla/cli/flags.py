"""How a verb reads its flags: a dataclass becomes flags, help and typo hints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, TypeVar

import tyro

from vla.errors import UnknownNameError
from vla.interfaces import Cell, Suite

T = TypeVar("T")

#: Names of arms; ``--embodiments`` means the same.
Arms = Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--embodiments"])]


def parse(flags: type[T], verb: str, argv: Sequence[str]) -> T:
    """``argv`` -> ``flags``; a wrong flag prints a hint and exits with code 2."""
    return tyro.cli(flags, prog=f"vla {verb}", args=list(argv), config=(tyro.conf.FlagCreatePairsOff,))


def choose(kind: str, given: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """``given`` in order without repetition, all of ``known`` where nothing is given; unknown names raise."""
    known = tuple(known)
    chosen = tuple(dict.fromkeys(given)) or known
    for name in chosen:
        if name not in known:
            raise UnknownNameError(kind, name, known)
    return chosen


def cells(suite: Suite, tasks: Iterable[str], arms: Iterable[str]) -> tuple[Cell, ...]:
    """Every chosen task with every chosen arm; nothing chosen means all."""
    chosen_arms = choose("arm", arms, suite.embodiments)
    return tuple(
        Cell(task=task, embodiment=arm) for task in choose("task", tasks, suite.tasks) for arm in chosen_arms
    )
