"""Statistics as LeRobot keeps them, of each episode and of all: range, mean, deviation, five quantiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

QUANTILES: Mapping[str, float] = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
MAX_PICTURES = 100  # of an episode and camera that are counted


def vector_stats(values: np.ndarray) -> dict[str, list[Any]]:
    """Of each entry of [T n]: lists of n numbers, and the count of rows."""
    values = values.astype(np.float64)
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(axis=0).tolist(),
        "max": values.max(axis=0).tolist(),
        "mean": values.mean(axis=0).tolist(),
        "std": values.std(axis=0).tolist(),
        "count": [len(values)],
        **{name: row.tolist() for name, row in zip(QUANTILES, quantiles, strict=True)},
    }


class PixelCounts:
    """How often each value occurs in each colour of the pictures added; statistics in 0..1, exact."""

    def __init__(self) -> None:
        self.num_pictures = 0
        self._counts = np.zeros((3, 256), np.int64)

    def add(self, picture: np.ndarray) -> None:
        """Count a picture: uint8 [h w 3]."""
        self.num_pictures += 1
        for colour in range(3):
            self._counts[colour] += np.bincount(picture[:, :, colour].reshape(-1), minlength=256)

    def merge(self, other: PixelCounts) -> None:
        self.num_pictures += other.num_pictures
        self._counts += other._counts

    def stats(self) -> dict[str, list[Any]]:
        """Each statistic [3 1 1], as pictures [3 h w] are broadcast with it."""
        levels, total = np.arange(256) / 255, self._counts.sum(axis=1)
        mean = self._counts @ levels / total
        spread = (self._counts * (levels - mean[:, None]) ** 2).sum(axis=1) / total
        below = np.cumsum(self._counts, axis=1) / total[:, None]
        found = {
            "min": levels[(self._counts > 0).argmax(axis=1)],
            "max": levels[255 - (self._counts[:, ::-1] > 0).argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt(spread),
            **{name: levels[(below >= share).argmax(axis=1)] for name, share in QUANTILES.items()},
        }
        shaped = {name: values.reshape(3, 1, 1).tolist() for name, values in found.items()}
        return {**shaped, "count": [self.num_pictures]}


def counted_steps(length: int) -> Iterable[int]:
    """Steps of an episode whose pictures are counted: all, or 100 evenly spread."""
    return {int(step) for step in np.linspace(0, length - 1, min(length, MAX_PICTURES)).round()}
