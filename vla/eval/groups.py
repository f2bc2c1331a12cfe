"""Episodes that are run side by side off one policy, and who runs them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from vla.eval.records import EpisodeKey
from vla.interfaces import Cell


@dataclass(frozen=True, kw_only=True)
class Group:
    """Episodes of one cell and condition whose observations a policy is shown in one batch.

    The last bit of what a batch computes may depend on what else is in it (a matrix product of four rows is
    not four of one row), so who runs with whom follows from the plan alone: not from the number of workers,
    nor from what a killed run has left. A group that is half there is run again as a whole.

    Args:
        keys: all of them, in order of their seeds.
        wanted: those whose record is missing; the others are company.
    """

    keys: tuple[EpisodeKey, ...]
    wanted: frozenset[EpisodeKey]

    @classmethod
    def alone(cls, key: EpisodeKey) -> Self:
        return cls(keys=(key,), wanted=frozenset({key}))

    @property
    def cell(self) -> Cell:
        return Cell(task=self.keys[0].task, embodiment=self.keys[0].embodiment)

    @property
    def label(self) -> str:
        """A name for messages."""
        return self.keys[0].label + ("" if len(self.keys) == 1 else f" .. {self.keys[-1].seed}")

    def without(self, key: EpisodeKey) -> Self:
        """The same, once a record of ``key`` is there."""
        return replace(self, wanted=self.wanted - {key})

    def to_json(self) -> dict[str, Any]:
        return {
            "keys": [asdict(key) for key in self.keys],
            "wanted": [key in self.wanted for key in self.keys],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Inverse of :meth:`to_json`."""
        keys = tuple(EpisodeKey(**key) for key in data["keys"])
        return cls(keys=keys, wanted=frozenset(k for k, on in zip(keys, data["wanted"], strict=True) if on))


def grouped(
    keys: Iterable[EpisodeKey], todo: Iterable[EpisodeKey], *, batch: int, first_seed: int
) -> list[Group]:
    """The groups of a plan that have something to do, in its order.

    Args:
        keys: the whole plan.
        todo: those without a record.
        batch: episodes of a group; the last of a cell may have fewer.
        first_seed: of the plan; groups are counted from it, so that more seeds make more groups.
    """
    missing = frozenset(todo)
    found: dict[tuple[Cell, str, int], list[EpisodeKey]] = {}
    for key in keys:
        place = (
            Cell(task=key.task, embodiment=key.embodiment),
            key.condition,
            (key.seed - first_seed) // batch,
        )
        found.setdefault(place, []).append(key)
    groups = [Group(keys=tuple(members), wanted=missing & set(members)) for members in found.values()]
    return [group for group in groups if group.wanted]


class Queue:
    """Hands groups to workers so that a worker stays with its cell (building an env costs), and none idles.

    Args:
        groups: what is to be run.
        handful: episodes handed out at once, at most, where groups are smaller.
        workers: who share what is left; near the end they are given less at once.
    """

    def __init__(self, groups: Sequence[Group], handful: int = 4, workers: int = 1) -> None:
        self._cells, self._handful, self._workers = _by_cell(groups), handful, workers
        self._current: dict[int, Cell] = {}
        self._retried: set[tuple[EpisodeKey, ...]] = set()

    def __len__(self) -> int:
        """Episodes whose record is missing."""
        return sum(len(group.wanted) for groups in self._cells.values() for group in groups)

    def take(self, worker: int) -> list[Group]:
        """The next groups of the worker's cell, else of a cell nobody is at, else of the fullest.

        Empty when nothing is left.
        """
        if not self._cells:
            return []
        cell = self._current.get(worker)
        if cell not in self._cells:
            others = {c for w, c in self._current.items() if w != worker}
            free = [c for c in self._cells if c not in others]
            cell = free[0] if free else max(self._cells, key=lambda c: len(self._cells[c]))
            self._current[worker] = cell
        groups = self._cells[cell]
        share = math.ceil(sum(map(len, self._cells.values())) / self._workers)
        number = max(1, min(share, self._handful // len(groups[0].keys)))
        taken, rest = groups[:number], groups[number:]
        if rest:
            self._cells[cell] = rest
        else:
            del self._cells[cell]
        return taken

    def put_back(self, groups: Sequence[Group]) -> None:
        """Return groups that were taken and not run."""
        for cell, members in _by_cell(groups).items():
            self._cells[cell] = [*members, *self._cells.get(cell, [])]

    def bury(self, pending: Sequence[Group]) -> EpisodeKey | None:
        """A worker died with these before it: the group it was at is run once more, the rest goes back.

        A group that kills twice is taken apart; an episode that kills by itself is given up.

        Returns:
            the episode that is given up, if one is.
        """
        culprit, *rest = pending
        self.put_back(rest)
        if culprit.keys not in self._retried:
            self._retried.add(culprit.keys)
            self.put_back([culprit])
            return None
        if len(culprit.keys) == 1:
            return culprit.keys[0]
        alone = [Group.alone(key) for key in culprit.keys if key in culprit.wanted]
        self._retried.update(group.keys for group in alone)
        self.put_back(alone)
        return None


def _by_cell(groups: Iterable[Group]) -> dict[Cell, list[Group]]:
    cells: dict[Cell, list[Group]] = {}
    for group in groups:
        cells.setdefault(group.cell, []).append(group)
    return cells
