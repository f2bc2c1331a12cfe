"""Whether a store is whole: every byte of its episodes and metadata against what it must be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vla.data.frames import prefetch
from vla.errors import VlaError

if TYPE_CHECKING:
    from vla.data.store_reader import StoreReader


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One fault of a store; ``episode`` is None if a file of no one episode is concerned.

    ``column`` is then the part, or ``store``. A store that leaves damaged episodes out numbers them as they
    were before.
    """

    episode: int | None
    column: str
    reason: str


def damaged_columns(store: StoreReader) -> Iterator[Damage]:
    """Read all columns and pictures (as stored, none is decoded) of all episodes against their checksums."""
    for info in store.episodes:
        for name in (*store.columns(info.index), *map("cameras/{}/index".format, store.cameras(info.index))):
            try:
                if not name.startswith("cameras/"):
                    store.column(info.index, name)
                    continue
                frames = store.frame_reader(info.index, name.split("/")[1])
                prefetch((frames, t) for t in range(info.length))
            except VlaError as error:
                yield Damage(episode=info.index, column=name, reason=str(error))
                continue
            for t in range(info.length):
                try:
                    frames.fetch(t)
                except VlaError as error:
                    yield Damage(episode=info.index, column=name, reason=str(error))
