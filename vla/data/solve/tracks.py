"""The columns of a data set as float64 tracks, an episode at a time, few enough to search through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vla.data.source import RawDataset
from vla.errors import DatasetError

MAX_STEPS = 4000
_MIN_LENGTH = 4


@dataclass(frozen=True, kw_only=True)
class Block:
    """Neighbouring entries of a column."""

    column: str
    start: int
    size: int

    def overlaps(self, other: Block | None) -> bool:
        return (
            other is not None
            and self.column == other.column
            and self.start < other.start + other.size
            and other.start < self.start + self.size
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Tracks:
    """``episodes[name][e]`` is float64 [T n]; ``numbers`` says which episodes they are."""

    episodes: Mapping[str, list[np.ndarray]]
    numbers: tuple[int, ...]
    state_columns: tuple[str, ...]
    action_column: str | None

    def parts(self, block: Block) -> list[np.ndarray]:
        """[T size] for each episode."""
        return [e[:, block.start : block.start + block.size] for e in self.episodes[block.column]]

    def stacked(self, block: Block) -> np.ndarray:
        """[N size], all episodes one after the other."""
        return np.concatenate(self.parts(block))

    def width(self, column: str) -> int:
        return self.episodes[column][0].shape[1] if self.episodes[column] else 0

    def blocks(self, column: str, size: int, *, without: tuple[Block | None, ...] = ()) -> list[Block]:
        """All blocks of a size that overlap none of ``without``."""
        found = [Block(column=column, start=i, size=size) for i in range(self.width(column) - size + 1)]
        return [block for block in found if not any(block.overlaps(other) for other in without)]

    def state_blocks(self, size: int, *, without: tuple[Block | None, ...] = ()) -> list[Block]:
        return [b for c in self.state_columns for b in self.blocks(c, size, without=without)]

    def action_blocks(self, size: int, *, without: tuple[Block | None, ...] = ()) -> list[Block]:
        return self.blocks(self.action_column, size, without=without) if self.action_column else []


def load_tracks(raw: RawDataset, *, max_width: int = 64) -> Tracks:
    """At most :data:`MAX_STEPS` steps of whole episodes, evenly spread; columns that are numbers.

    A column that is not finite throughout says nothing of conventions and is left out.

    Raises:
        DatasetError: the action is not finite.
    """
    numeric = [
        name
        for name, c in raw.columns.items()
        if 0 < c.size <= max_width and np.dtype(c.dtype).kind in "fiu" and "timestamp" not in name
    ]
    actions = [name for name in numeric if name.split(".")[-1].split("/")[-1] in ("action", "actions")]
    actions = actions or [name for name in numeric if "action" in name]
    action = min(actions, key=len) if actions else None
    numbers = _spread([e.length for e in raw.episodes])
    states = tuple(n for n in numeric if "action" not in n and not n.endswith("index"))
    wanted = (*states, action) if action else states
    episodes = {n: [np.asarray(raw.column(i, n), np.float64) for i in numbers] for n in wanted}
    broken = {n for n, parts in episodes.items() if not all(np.isfinite(part).all() for part in parts)}
    if action in broken:
        raise DatasetError(f"{raw.path}: column {action!r} is not finite. See 'vla data check', then 'fix'.")
    states = tuple(n for n in states if n not in broken)
    return Tracks(episodes=episodes, numbers=tuple(numbers), state_columns=states, action_column=action)


def _spread(lengths: list[int]) -> list[int]:
    usable = [i for i, length in enumerate(lengths) if length >= _MIN_LENGTH]
    mean = np.mean([lengths[i] for i in usable]) if usable else 1.0
    count = max(1, min(len(usable), int(MAX_STEPS / mean)))
    return [usable[i] for i in np.linspace(0, len(usable) - 1, count).astype(int)] if usable else []
