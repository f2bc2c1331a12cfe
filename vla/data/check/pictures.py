"""Checks of pictures: missing, undecodable, blank, torn, frozen, and ones that do not belong."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from vla.data.check.config import CheckConfig
from vla.data.check.findings import Finding
from vla.data.check.signals import DAMAGE, runs, said
from vla.data.source import EpisodeSource, Frames

#: Rows of grey that a decoder leaves where a JPEG ends too early, as a share of the height.
_TORN_ROWS = 0.1


def check_pictures(
    source: EpisodeSource, index: int, moved: np.ndarray | None, config: CheckConfig
) -> tuple[list[Finding], int]:
    """Findings in all cameras of an episode, and how many pictures were read.

    Args:
        source, index: the episode.
        moved: bool [T], the arm moves from this step to the next; None where that is not known.
        config: thresholds, and whether every picture is read.
    """
    found: list[Finding] = []
    num_read = 0
    length = source.episodes[index].length
    try:
        cameras = source.cameras(index)
    except DAMAGE as error:
        message = said(error, source, index)
        return [Finding(kind="unreadable", episode=index, where="cameras", message=message)], 0
    for camera in cameras:
        try:
            frames = source.frame_reader(index, camera)
            there, shape = len(frames), frames.shape
        except DAMAGE as error:
            message = said(error, source, index)
            found.append(Finding(kind="unreadable", episode=index, where=camera, message=message))
            continue
        if there != length:
            message = f"{there} pictures for {length} steps"
            found.append(
                Finding(kind="ragged", episode=index, where=camera, message=message, value=float(there))
            )
        film = _Film(frames, min(there, length), shape, source, index, camera, config)
        found += film.check(moved)
        num_read += film.num_read
    return found, num_read


class _Film:
    """The pictures of one camera in one episode, of which at most three are held."""

    def __init__(
        self,
        frames: Frames,
        length: int,
        shape: tuple[int, int],
        source: EpisodeSource,
        episode: int,
        camera: str,
        config: CheckConfig,
    ) -> None:
        self._frames, self._length, self._shape = frames, length, shape
        self._source, self._episode, self._camera, self._config = source, episode, camera, config
        self.num_read = 0
        self._faults: dict[str, list[tuple[int, float, str]]] = {}

    def check(self, moved: np.ndarray | None) -> list[Finding]:
        if not self._length:
            return []
        if self._config.frames == "all":
            equal, odd = self._scan(range(self._length))
        else:
            steps = np.unique(
                np.linspace(0, self._length - 1, self._config.sampled_frames).round().astype(int)
            ).tolist()
            same, _ = self._scan(steps)
            equal = np.zeros(self._length, bool)
            odd = []
            near = same | np.append(same[1:], False) | np.append(False, same[:-1])
            for i in np.flatnonzero(near[:-1]):  # the film may stand still from before one sample to
                a, b = steps[i], steps[i + 1]  # after another: look at all between
                stretch, _ = self._scan(range(a, b + 1), judge=False)
                equal[a:b] = stretch[:-1]
        return [*self._fault_findings(), *self._frozen(equal, moved), *self._odd(odd)]

    def _scan(
        self, steps: Sequence[int] | range, *, judge: bool = True
    ) -> tuple[np.ndarray, list[tuple[int, float]]]:
        """Read pictures in order: which equal the next one read, bool [n]; and which do not belong."""
        equal, odd = np.zeros(len(steps), bool), []
        recent: list[np.ndarray | None] = []
        for i, step in enumerate(steps):
            picture = self._read(step, judge)
            last = recent[-1] if recent else None
            if picture is not None and last is not None:
                equal[i - 1] = _difference(last, picture) <= self._config.frozen_difference
            recent = [*recent[-2:], picture]
            if judge and len(recent) == 3 and all(p is not None for p in recent):
                before, middle, after = (p for p in recent if p is not None)
                off = min(_difference(before, middle), _difference(middle, after))
                around = _difference(before, after)
                if off > max(self._config.odd_difference, self._config.odd_factor * around):
                    odd.append((int(steps[i - 1]), off))
        return equal, odd

    def _read(self, step: int, judge: bool) -> np.ndarray | None:
        picture = np.empty((*self._shape, 3), np.uint8)
        try:
            self._frames.read(int(step), picture)
        except DAMAGE as error:
            if judge:
                self._fault("unreadable_frame", step, float("nan"), said(error, self._source, self._episode))
            return None
        self.num_read += 1
        if not judge:
            return picture
        spread = float(cv2.meanStdDev(picture)[1].max())
        if spread < self._config.blank_std:
            level = picture.mean(axis=(0, 1)).round().astype(int).tolist()
            self._fault("blank_frame", step, spread, f"one colour, RGB {level}")
            return None
        torn = _torn_rows(picture)
        if torn > _TORN_ROWS:
            self._fault("torn_frame", step, torn, f"the lower {100 * torn:.0f} % are plain grey")
            return None
        return picture

    def _fault(self, kind: str, step: int, value: float, message: str) -> None:
        self._faults.setdefault(kind, []).append((int(step), value, message))

    def _fault_findings(self) -> list[Finding]:
        out = []
        thresholds = {"blank_frame": self._config.blank_std, "torn_frame": _TORN_ROWS}
        for kind, faults in self._faults.items():
            step, value, message = faults[0]
            out.append(
                Finding(
                    kind=kind,
                    episode=self._episode,
                    first=min(f[0] for f in faults),
                    last=max(f[0] for f in faults),
                    where=self._camera,
                    value=None if np.isnan(value) else value,
                    threshold=thresholds.get(kind),
                    message=f"step {step}: {message}; {len(faults)} such" if len(faults) > 1 else message,
                    evidence={"steps": [f[0] for f in faults]},
                )
            )
        return out

    def _frozen(self, equal: np.ndarray, moved: np.ndarray | None) -> list[Finding]:
        """Runs of equal pictures in which the arm moves all the time."""
        if moved is None:
            return []
        out = []
        for a, b in runs(equal & moved[: len(equal)]):
            if b - a + 2 < self._config.frozen_steps:
                continue
            out.append(
                Finding(
                    kind="frozen_frames",
                    episode=self._episode,
                    first=a,
                    last=b + 1,
                    where=self._camera,
                    value=float(b - a + 2),
                    threshold=float(self._config.frozen_steps),
                    message=f"{b - a + 2} equal pictures while the arm moves",
                )
            )
        return out

    def _odd(self, odd: list[tuple[int, float]]) -> list[Finding]:
        return [
            Finding(
                kind="odd_frame",
                episode=self._episode,
                first=step,
                last=step,
                where=self._camera,
                value=value,
                threshold=self._config.odd_difference,
                message=f"differs from both neighbours by {value:.0f} grey levels",
            )
            for step, value in odd
        ]


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    return float(cv2.norm(a, b, cv2.NORM_L1)) / a.size


def _torn_rows(picture: np.ndarray) -> float:
    """Share of rows at the bottom that are the plain mid grey of a JPEG that ended too early."""
    if np.abs(picture[-1].astype(np.int16) - 128).max() > 2:
        return 0.0
    plain = (np.abs(picture.astype(np.int16) - 128).max(axis=(1, 2)) <= 2)[::-1]
    return float((len(plain) if plain.all() else int(np.argmin(plain))) / len(plain))
