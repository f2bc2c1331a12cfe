"""A source of which episodes and steps are left out, as a repair wants it; nothing is copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from vla.data.check.signals import runs
from vla.data.frames import Encoded, encoded
from vla.data.source import EpisodeInfo, EpisodeSource, Frames
from vla.data.source_view import SourceView
from vla.text import counted


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of an episode.

    ``kept`` are the first and last step in the new store, None: left out; ``restamped``: with even time
    stamps; ``instruction``: what is said in it from now on, empty: what was.
    """

    episode: int
    length: int
    kept: tuple[int, int] | None
    reasons: tuple[str, ...]
    restamped: bool = False
    instruction: str = ""

    def __str__(self) -> str:
        what = (
            "left out" if self.kept is None else f"steps {self.kept[0]}-{self.kept[1]} of {self.length} kept"
        )
        what += ", with even time stamps" if self.restamped else ""
        what += f", told {self.instruction!r}" if self.instruction else ""
        return f"episode {self.episode}: {what}: {'; '.join(self.reasons)}"


def stretches_of(good: np.ndarray, together: np.ndarray) -> list[tuple[int, int]]:
    """First and last step of each stretch of good steps that belong ``together`` with the step before."""
    return [
        (a + int(begin), a + int(end) - 1)
        for a, b in runs(good)
        for begin, end in pairwise([0, *(np.flatnonzero(~together[a + 1 : b + 1]) + 1), b - a + 1])
    ]


def best(stretches: Sequence[tuple[int, int]], faulty: Mapping[str, np.ndarray]) -> tuple[int, int] | None:
    """The stretch with most steps that are not faulty, of these the longest, of these the first.

    Args:
        stretches: first and last step of each.
        faulty: kind of fault -> bool [T], steps that have it.
    """

    def worth(stretch: tuple[int, int]) -> tuple[int, int]:
        length = stretch[1] - stretch[0] + 1
        return length - _within(stretch, faulty)[0], length

    return max(stretches, key=worth, default=None)


def reasons_for(
    kept: tuple[int, int], stretches: Sequence[tuple[int, int]], faulty: Mapping[str, np.ndarray]
) -> list[str]:
    """What speaks for a stretch that is not the longest, and what still speaks against it."""
    said = []
    longest = max(stretches, key=lambda stretch: stretch[1] - stretch[0])
    if longest[1] - longest[0] > kept[1] - kept[0]:
        count, kinds = _within(longest, faulty)
        have = f"{count} of the longer steps {longest[0]}-{longest[1]} have {kinds}"
        said.append(f"kept for its sound steps: {have}")
    count, kinds = _within(kept, faulty)
    if count:
        said.append(f"still with {kinds} in {counted(count, 'step')}: --cut that too, or --drop it")
    return said


def _within(stretch: tuple[int, int], faulty: Mapping[str, np.ndarray]) -> tuple[int, str]:
    """How many steps of a stretch are faulty, and in which ways."""
    there = {kind: steps[stretch[0] : stretch[1] + 1] for kind, steps in faulty.items()}
    kinds = [kind for kind, steps in there.items() if steps.any()]
    return (int(np.any([there[kind] for kind in kinds], axis=0).sum()) if kinds else 0), ", ".join(kinds)


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
                facts |= {"instruction_given": True} if change.instruction else {}
            said = change.instruction if change is not None and change.instruction else info.instruction
            length, provenance = kept[1] - kept[0] + 1, {**info.provenance, "fixed": facts}
            infos.append(
                replace(info, index=len(infos), length=length, instruction=said, provenance=provenance)
            )
            places.append(info.index)
            self._first.append(kept[0])
            self._restamped.append(change is not None and change.restamped)
        what = [places, self._first, [info.length for info in infos], self._restamped]
        what += [[info.instruction for info in infos]] if any(c.instruction for c in changes.values()) else []
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
