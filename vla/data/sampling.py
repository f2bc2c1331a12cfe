"""Which windows a training step sees: weighted over sources, balanced over cells and phases, reproducible,
disjoint over ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla.errors import ConfigError


class WindowSampler:
    """Draws (episode, step) pairs.

    A share of every batch is drawn from approach steps and the rest as if uniformly from all steps;
    with ``equal_cells`` each cell gets the same number of windows, give or take one. Within one
    draw a window repeats only if its cell has fewer windows than are asked of it.

    Args:
        lengths: int [E], steps of each episode.
        cells: of each episode: the (task, embodiment) it belongs to.
        approach: bool [sum of lengths], true at steps of phase 0.
        approach_share: 0..1.
        equal_cells: False draws from all episodes alike.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        *,
        cells: Sequence[tuple[str, str]],
        approach: np.ndarray,
        approach_share: float,
        equal_cells: bool,
    ) -> None:
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        self._share = approach_share
        self.cells = sorted(set(cells)) if equal_cells else [("", "")]
        numbers = (
            np.array([self.cells.index(cell) for cell in cells])
            if equal_cells
            else np.zeros(len(lengths), int)
        )
        cell_of_step = np.repeat(numbers, lengths)
        self._approach, self._others = (
            [np.flatnonzero((cell_of_step == cell) & flags) for cell in range(len(self.cells))]
            for flags in (approach, ~approach)
        )

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """int64 [count 2] of (episode, step), in random order."""
        cells = np.arange(len(self.cells))
        slots = rng.permutation(
            np.concatenate([np.tile(cells, count // len(cells)), self._spare(rng, count)])
        )
        num_approach = int(np.floor(self._share * count + rng.random()))
        approach = np.bincount(slots[:num_approach], minlength=len(cells)).tolist()
        uniform = np.bincount(slots[num_approach:], minlength=len(cells)).tolist()
        steps = [self._draw_cell(rng, c, approach[c], uniform[c]) for c in np.unique(slots).tolist()]
        flat = rng.permutation(np.concatenate(steps)) if steps else np.zeros(0, np.int64)
        episode = np.searchsorted(self._ends, flat, side="right")
        return np.stack([episode, flat - self._starts[episode]], axis=1)

    def _spare(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Cells that get one window more than the others."""
        return rng.choice(len(self.cells), count % len(self.cells), replace=False)

    def _draw_cell(
        self, rng: np.random.Generator, cell: int, num_approach: int, num_uniform: int
    ) -> np.ndarray:
        """Flat step numbers from one cell; a uniform draw falls on approach steps as often as they are."""
        approach, others = self._approach[cell], self._others[cell]
        if not len(approach):
            return _pick(rng, others, num_approach + num_uniform)
        spill = 0
        if num_uniform:
            spill = int(rng.binomial(num_uniform, len(approach) / (len(approach) + len(others))))
        return np.concatenate(
            [_pick(rng, approach, num_approach + spill), _pick(rng, others, num_uniform - spill)]
        )


class MixtureSampler:
    """Draws (episode, step) pairs from several sources, each with its share of every batch.

    A source's number of windows in a batch is its share of it, rounded up or down so that the expectation is
    exact; with one source the draw is that source's own.

    Args:
        samplers: one a source, with episodes numbered within it.
        num_episodes: of each source; they are numbered through in order.
        weights: of each source, positive; only their ratios count.
    """

    def __init__(
        self, samplers: Sequence[WindowSampler], *, num_episodes: Sequence[int], weights: Sequence[float]
    ) -> None:
        self.samplers = list(samplers)
        self._first = np.cumsum(num_episodes) - num_episodes
        self.shares = np.asarray(weights, np.float64) / np.sum(weights)

    def at(self, *, seed: int, step: int, batch_size: int, rank: int = 0, world: int = 1) -> np.ndarray:
        """int64 [batch_size 2] of one rank; the ranks share one draw and each takes its slice of it."""
        if not 0 <= rank < world:
            raise ConfigError(f"Rank {rank} of {world} ranks.")
        whole = self.draw(np.random.default_rng([seed, step]), batch_size * world)
        return whole[rank * batch_size : (rank + 1) * batch_size]

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """int64 [count 2] of (episode, step), in random order."""
        if len(self.samplers) == 1:
            return self.samplers[0].draw(rng, count)
        bounds = np.floor(np.cumsum(self.shares[:-1]) * count + rng.random()).astype(int)
        counts = np.diff(bounds, prepend=0, append=count).tolist()
        parts = [
            sampler.draw(rng, number) + [first, 0]
            for sampler, number, first in zip(self.samplers, counts, self._first.tolist(), strict=True)
            if number
        ]
        return rng.permutation(np.concatenate(parts)) if parts else np.zeros((0, 2), np.int64)


def _pick(rng: np.random.Generator, pool: np.ndarray, count: int) -> np.ndarray:
    """``count`` of ``pool``, without repetition where there are enough."""
    if count <= 1:  # the common case, eight times faster
        return pool[rng.integers(len(pool), size=count)] if count else pool[:0]
    return pool[rng.choice(len(pool), count, replace=count > len(pool), shuffle=False)]
