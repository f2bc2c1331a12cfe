"""Chunks as short token sequences (FAST, arXiv:2501.09747), fitted to the training actions.

    chunk [H A] ─► DCT of each entry over time ─► times scale, rounded ─► low frequencies first ─► BPE ─► ids

Everything is plain numbers in JSON. Shapes: N chunks, H horizon, A action entries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vla.errors import ConfigError, UnknownNameError

_END = -1  # between chunks, while they are coded together


def cosines(horizon: int) -> np.ndarray:
    """The orthonormal DCT-II matrix float64 [H H]: ``cosines(H) @ x``; its transpose is its inverse."""
    k, n = np.arange(horizon)[:, None], np.arange(horizon)[None]
    matrix = np.cos(math.pi / horizon * (n + 0.5) * k) * math.sqrt(2 / horizon)
    matrix[0] /= math.sqrt(2)
    return matrix


@dataclass(frozen=True, kw_only=True)
class ActionCodec:
    """Between chunks of normalised actions and token ids.

    Args:
        horizon, action_dim: H and A.
        scale: of the coefficients before rounding: the error of a coefficient is at most ``0.5 / scale``.
        low, high: range of rounded coefficients; what lies beyond is clipped.
        merges: pairs of ids, in order; the i-th becomes id ``high - low + 1 + i``.
    """

    horizon: int
    action_dim: int
    scale: float
    low: int
    high: int
    merges: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if min(self.horizon, self.action_dim) < 1 or self.scale <= 0 or self.low > self.high:
            raise ConfigError(
                "An action codec needs horizon and action_dim >= 1, scale > 0 and low <= high: "
                f"{self.horizon}, {self.action_dim}, {self.scale}, {self.low}, {self.high}."
            )
        for i, pair in enumerate(self.merges):
            if len(pair) != 2 or not all(0 <= part < self.num_symbols + i for part in pair):
                raise ConfigError(f"Merge {i} of the action codec joins ids that do not exist yet: {pair}.")

    @property
    def num_symbols(self) -> int:
        """Ids that stand for one coefficient each."""
        return self.high - self.low + 1

    @property
    def vocabulary(self) -> int:
        return self.num_symbols + len(self.merges)

    @cached_property
    def expansions(self) -> tuple[tuple[int, ...], ...]:
        """The coefficients' symbols that each id stands for."""
        known: list[tuple[int, ...]] = [(i,) for i in range(self.num_symbols)]
        for left, right in self.merges:
            known.append(known[left] + known[right])
        return tuple(known)

    @classmethod
    def fit(cls, chunks_NHA: np.ndarray, *, scale: float = 10.0, vocabulary: int = 512) -> ActionCodec:
        """The codec of these chunks: the range of their coefficients, and their most frequent pairs.

        Args:
            chunks_NHA: float [N H A], normalised, finite.
            scale: see the class.
            vocabulary: ids at most; merging stops sooner when no pair occurs twice.

        Raises:
            ConfigError: nothing to fit to, or not finite.
        """
        if chunks_NHA.ndim != 3 or not chunks_NHA.size or not np.isfinite(chunks_NHA).all():
            raise ConfigError(f"An action codec is fitted to finite chunks [N H A], not {chunks_NHA.shape}.")
        _, horizon, entries = chunks_NHA.shape
        levels = _levels(chunks_NHA, scale)
        low, high = int(levels.min()), int(levels.max())
        plain = cls(horizon=horizon, action_dim=entries, scale=scale, low=low, high=high)
        stream, merges = _stream(levels - low), []
        while plain.num_symbols + len(merges) < vocabulary:
            pair = _most_frequent(stream)
            if pair is None:
                break
            stream = _merge(stream, pair, plain.num_symbols + len(merges))
            merges.append(pair)
        return cls(horizon=horizon, action_dim=entries, scale=scale, low=low, high=high, merges=tuple(merges))

    def encode(self, chunks_NHA: np.ndarray) -> list[list[int]]:
        """Ids of each chunk; their expansions have H * A symbols together."""
        if chunks_NHA.shape[1:] != (self.horizon, self.action_dim):
            raise ConfigError(
                f"This codec is for chunks of {self.horizon} actions of {self.action_dim} entries, "
                f"not {chunks_NHA.shape[1:]}."
            )
        stream = _stream(np.clip(_levels(chunks_NHA, self.scale), self.low, self.high) - self.low)
        for i, pair in enumerate(self.merges):
            stream = _merge(stream, pair, self.num_symbols + i)
        ends = np.flatnonzero(stream == _END)
        starts = np.concatenate([[0], ends[:-1] + 1])
        return [stream[a:b].tolist() for a, b in zip(starts, ends, strict=True)]

    def decode(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        """float32 [N H A]; sequences that do not expand to H * A symbols raise ConfigError."""
        levels = np.empty((len(ids), self.horizon * self.action_dim))
        for row, sequence in zip(levels, ids, strict=True):
            symbols = [symbol for i in sequence for symbol in self.expansions[i]]
            if len(symbols) != row.size:
                raise ConfigError(f"These tokens stand for {len(symbols)} coefficients; expected {row.size}.")
            row[:] = symbols
        coefficients = (levels + self.low).reshape(-1, self.horizon, self.action_dim) / self.scale
        return np.einsum("kn,bka->bna", cosines(self.horizon), coefficients).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        return {
            "horizon": self.horizon, "action_dim": self.action_dim, "scale": self.scale,
            "low": self.low, "high": self.high, "merges": [list(pair) for pair in self.merges],
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ActionCodec:
        """Strict inverse of :meth:`to_json`."""
        known = ("horizon", "action_dim", "scale", "low", "high", "merges")
        for key in data:
            if key not in known:
                raise UnknownNameError("action codec key", key, known)
        if missing := [key for key in known if key not in data]:
            raise ConfigError(f"The action codec lacks {missing}.")
        merges = tuple((int(pair[0]), int(pair[1])) for pair in data["merges"])
        return cls(**{**data, "merges": merges})


def hold(actions_NHA: np.ndarray, mask_NHA: np.ndarray) -> np.ndarray:
    """Masked entries replaced: by the entry's last known value before, else its first known, else zero."""
    steps = np.arange(actions_NHA.shape[1])[None, :, None]
    last = np.maximum.accumulate(np.where(mask_NHA, steps, -1), axis=1)
    first = np.where(mask_NHA.any(1, keepdims=True), mask_NHA.argmax(1)[:, None], 0)
    held = np.take_along_axis(actions_NHA, np.where(last >= 0, last, first), axis=1)
    return np.where(mask_NHA.any(1, keepdims=True), held, 0.0)


def _levels(chunks_NHA: np.ndarray, scale: float) -> np.ndarray:
    """Rounded coefficients int64 [N H*A], all entries of the lowest frequency first."""
    coefficients = np.einsum("kn,bna->bka", cosines(chunks_NHA.shape[1]), chunks_NHA.astype(np.float64))
    return np.rint(coefficients * scale).astype(np.int64).reshape(len(chunks_NHA), -1)


def _stream(symbols: np.ndarray) -> np.ndarray:
    """int64 [N T] -> one row with an end behind each chunk."""
    return np.pad(symbols, ((0, 0), (0, 1)), constant_values=_END).ravel()


def _most_frequent(stream: np.ndarray) -> tuple[int, int] | None:
    left, right = stream[:-1], stream[1:]
    real = (left != _END) & (right != _END)
    if not real.any():
        return None
    base = int(stream.max()) + 1
    codes, counts = np.unique(left[real] * base + right[real], return_counts=True)
    best = int(counts.argmax())
    return None if counts[best] < 2 else (int(codes[best]) // base, int(codes[best]) % base)


def _merge(stream: np.ndarray, pair: tuple[int, int], new: int) -> np.ndarray:
    """Every occurrence of the pair, from the left, becomes one id."""
    places = np.flatnonzero((stream[:-1] == pair[0]) & (stream[1:] == pair[1]))
    if pair[0] == pair[1] and len(places):  # in a run each symbol belongs to one pair only
        run = np.concatenate([[True], np.diff(places) != 1])
        begins = places[run][np.cumsum(run) - 1]
        places = places[(places - begins) % 2 == 0]
    if not len(places):
        return stream
    stream = stream.copy()
    stream[places] = new
    return np.delete(stream, places + 1)
