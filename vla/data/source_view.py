"""Sources seen through another one: some of its episodes, other names, another rate; nothing is copied."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.damage import damaged_episodes
from vla.data.shards import crc32c
from vla.data.source import EpisodeInfo, EpisodeSource, Fault, Frames, stacked_column
from vla.embodiment import Embodiment
from vla.errors import ConfigError


class SourceView:
    """A source seen through another one; what a subclass does not change is passed on.

    Args:
        source: closed with this one.
        embodiments, episodes: of this one.
        places: number in ``source`` of each episode.
        facts: what besides the source's content makes this one what it is; JSON-able.
    """

    def __init__(
        self,
        source: EpisodeSource,
        *,
        embodiments: Mapping[str, Embodiment],
        episodes: Sequence[EpisodeInfo],
        places: Sequence[int],
        facts: Sequence[Any],
    ) -> None:
        self.source, self.embodiments, self.episodes = source, embodiments, episodes
        self._places, self._facts = places, facts

    @property
    def path(self) -> Path | str:
        return self.source.path

    def __len__(self) -> int:
        return len(self.episodes)

    def columns(self, index: int) -> list[str]:
        return self.source.columns(self._places[index])

    def column(self, index: int, name: str) -> np.ndarray:
        return self.source.column(self._places[index], name)

    def cameras(self, index: int) -> list[str]:
        return self.source.cameras(self._places[index])

    def frame_reader(self, index: int, camera: str) -> Frames:
        return self.source.frame_reader(self._places[index], camera)

    def index_checksum(self) -> int:
        return crc32c(json.dumps([self.source.index_checksum(), *self._facts]).encode())

    def faults(self) -> list[Fault]:
        return damaged_episodes(self.source)

    def close(self) -> None:
        self.source.close()


class AdaptedSource(SourceView):
    """Some episodes of a source, its arms under other names.

    Args:
        source: closed with this one.
        episodes: which of its episodes, in order.
        rename: arm there -> arm here.
        damaged: those left out because they are damaged, and why.
    """

    def __init__(
        self,
        source: EpisodeSource,
        *,
        episodes: Sequence[int],
        rename: Mapping[str, str] | None = None,
        damaged: Sequence[Fault] = (),
    ) -> None:
        names = {name: (rename or {}).get(name, name) for name in source.embodiments}
        if len(set(names.values())) < len(names):
            raise ConfigError(f"Renaming {dict(rename or {})} gives two arms of {source.path} one name.")
        places = list(episodes)
        super().__init__(
            source,
            embodiments={names[n]: replace(arm, name=names[n]) for n, arm in source.embodiments.items()},
            episodes=[
                replace(info, index=index, embodiment=names[info.embodiment])
                for index, info in enumerate(source.episodes[place] for place in places)
            ],
            places=places,
            facts=[places, names],
        )
        kept = set(places)
        self._damaged = list(damaged)
        self.num_failures_left_out = sum(
            info.success is False and info.index not in kept for info in source.episodes
        )

    def faults(self) -> list[Fault]:
        return [*super().faults(), *self._damaged]

    def stacked_column(self, indices: Sequence[int], name: str) -> np.ndarray:
        return stacked_column(self.source, [self._places[index] for index in indices], name)
