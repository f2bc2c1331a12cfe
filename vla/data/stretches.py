"""A source of which episodes and steps are left out, as a repair wants it; nothing is copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vla.data.frames import Encoded, encoded
from vla.data.source import EpisodeInfo, EpisodeSource, Frames
from vla.data.source_view import SourceView


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of an episode.

    ``kept`` are the first and last step in the new store, None: left out; ``restamped``: with even time
    stamps.
    """

    episode: int
    length: int
    kept: tuple[int, int] | None
    reasons: tuple[str, ...]
    restamped: bool = False

    def __str__(self) -> str:
        what = (
            "left out" if self.kept is None else f"steps {self.kept[0]}-{self.kept[1]} of {self.length} kept"
        )
        what += ", with even time stamps" if self.restamped else ""
        return f"episode {self.episode}: {what}: {'; '.join(self.reasons)}"


class Stretches(SourceView):
    """A source without the episodes and steps that changes leave out, stamped anew where they say so."""

    def __init__(self, source: EpisodeSource, changes: Mapping[int, Change]) -> None:
        self._first: list[int] = []  # step of each episode
        self._restamped: list[bool] = []
        infos: list[EpisodeInfo] = []
        places: list[int] = []
        for info in source.episodes:
            change = changes.get(info.index)
            kept = (0, info.length - 1) if change is None else change.kept
            if kept is None:
                continue
            facts: dict[str, object] = {"source": str(source.path), "episode": info.index}
            if change is not None:
                facts |= {"kept_steps": list(kept), "of": info.length, "reasons": list(change.reasons)}
                facts |= {"restamped": True} if change.restamped else {}
            length, provenance = kept[1] - kept[0] + 1, {**info.provenance, "fixed": facts}
            infos.append(replace(info, index=len(infos), length=length, provenance=provenance))
            places.append(info.index)
            self._first.append(kept[0])
            self._restamped.append(change is not None and change.restamped)
        what = [places, self._first, [info.length for info in infos], self._restamped]
        super().__init__(source, embodiments=source.embodiments, episodes=infos, places=places, facts=what)

    def column(self, index: int, name: str) -> np.ndarray:
        first, info = self._first[index], self.episodes[index]
        if name == "time_s" and self._restamped[index]:
            return np.arange(info.length) / self.embodiments[info.embodiment].control_hz
        values = super().column(index, name)[first : first + info.length]
        return values - values[0] if name == "time_s" else values

    def frame_reader(self, index: int, camera: str) -> Frames:
        return _Stretch(super().frame_reader(index, camera), self._first[index], self.episodes[index].length)


class _Stretch:
    """Some of the pictures of a camera."""

    def __init__(self, frames: Frames, first: int, length: int) -> None:
        self._frames, self._first, self._length = frames, first, length
        self.shape = frames.shape

    def __len__(self) -> int:
        return self._length

    def read(self, step: int, out: np.ndarray) -> None:
        self._frames.read(self._first + step, out)

    def encoded(self, steps: Sequence[int]) -> Encoded | None:
        return encoded(self._frames, [self._first + step for step in steps])
