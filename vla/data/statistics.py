"""Statistics of states and actions per embodiment, and the normaliser built from them.

Statistics belong to a policy's contract: a missing embodiment raises, nothing is passed through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from vla.data.source import EpisodeSource, stacked_column
from vla.embodiment import Embodiment, Field
from vla.errors import StatisticsError, UnknownNameError
from vla.text import quoted

Mode = Literal["mean_std", "quantile", "range"]
MODES: tuple[Mode, ...] = get_args(Mode)
_BINS = 8192  # quantiles are exact to 1/8192 of an entry's range
_CONSTANT = 1e-3  # an entry that varies by less than this share of its declared range is constant
_BLOCK = 256  # episodes


@dataclass(frozen=True, kw_only=True)
class VectorStatistics:
    """Per entry of the concatenated (unpadded) field vector, in the fields' units."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]
    q01: tuple[float, ...]
    q99: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of one embodiment: ``num_steps`` steps in ``num_episodes`` episodes; actions are the labels."""

    num_episodes: int
    num_steps: int
    state: VectorStatistics
    action: VectorStatistics

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Statistics:
        """Strict, exact inverse of :meth:`to_json`."""
        _check_keys(cls, data)
        vectors = {}
        for key in ("state", "action"):
            _check_keys(VectorStatistics, data[key])
            vectors[key] = VectorStatistics(**{name: tuple(values) for name, values in data[key].items()})
        return cls(num_episodes=data["num_episodes"], num_steps=data["num_steps"], **vectors)


def statistics_to_json(statistics: Mapping[str, Statistics]) -> dict[str, Any]:
    """Embodiment name -> statistics, as JSON values."""
    return {name: value.to_json() for name, value in statistics.items()}


def statistics_from_json(data: Mapping[str, Any]) -> dict[str, Statistics]:
    """Strict, exact inverse of :func:`statistics_to_json`."""
    return {name: Statistics.from_json(value) for name, value in data.items()}


def compute_statistics(stores: EpisodeSource | Sequence[EpisodeSource]) -> dict[str, Statistics]:
    """Statistics of every embodiment that has episodes, one column in memory at a time.

    Mean and variance are merged block by block (Chan et al. 1979) in float64; quantiles: a histogram.
    """
    stores = [stores] if isinstance(stores, EpisodeSource) else list(stores)
    names = {info.embodiment for store in stores for info in store.episodes}
    if not names:
        raise StatisticsError("No episodes to compute statistics from.")
    result = {}
    for name in sorted(names):
        lengths = [info.length for store in stores for info in store.episodes if info.embodiment == name]
        result[name] = Statistics(
            num_episodes=len(lengths),
            num_steps=sum(lengths),
            state=_vector_statistics(stores, name, "state"),
            action=_vector_statistics(stores, name, "action"),
        )
    return result


def _blocks(stores: Sequence[EpisodeSource], embodiment: str, column: str) -> list[np.ndarray]:
    """All rows of a column, float32, in blocks of some episodes."""
    blocks = []
    for store in stores:
        mine = [info.index for info in store.episodes if info.embodiment == embodiment]
        for first in range(0, len(mine), _BLOCK):
            blocks.append(stacked_column(store, mine[first : first + _BLOCK], column))
    return blocks


def _vector_statistics(stores: Sequence[EpisodeSource], embodiment: str, column: str) -> VectorStatistics:
    count, mean, squares, low, high = 0, np.zeros(()), np.zeros(()), np.array(np.inf), np.array(-np.inf)
    blocks = _blocks(stores, embodiment, column)
    for block in blocks:
        values = block.astype(np.float64)
        if count and values.shape[1:] != mean.shape:
            raise StatisticsError(
                f"{column} of {embodiment!r} has {values.shape[1]} and {len(mean)} entries."
            )
        n, own = len(values), values.mean(axis=0)
        delta = own - mean
        mean = mean + delta * n / (count + n)
        squares = squares + ((values - own) ** 2).sum(axis=0) + delta**2 * count * n / (count + n)
        low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
        count += n
    width = np.where(high > low, high - low, 1.0)
    histogram = np.zeros(len(mean) * _BINS, np.int64)
    firsts = np.arange(len(mean)) * _BINS
    for block in blocks:
        bins = np.minimum((block.astype(np.float64) - low) / width * _BINS, _BINS - 1).astype(np.int64)
        histogram += np.bincount((bins + firsts).reshape(-1), minlength=len(histogram))
    histogram = histogram.reshape(-1, _BINS)
    shares = np.cumsum(histogram, axis=1) / count
    q01, q99 = (low + (np.argmax(shares >= q, axis=1) + 0.5) / _BINS * (high - low) for q in (0.01, 0.99))
    rows = [np.asarray(row) for row in (mean, np.sqrt(squares / count), low, high, q01, q99)]
    return VectorStatistics(
        **{f.name: tuple(row.tolist()) for f, row in zip(fields(VectorStatistics), rows, strict=True)}
    )


class Normalizer:
    """Maps states and actions of each embodiment to order one, and back: ``(x - centre) / scale``.

    Modes: ``mean_std`` (zero mean, unit deviation), ``quantile`` (1st and 99th percentile to -1 and
    +1), ``range`` (the field's declared low and high to -1 and +1; needs no statistics). An entry that
    hardly varies in the data is scaled by half its declared range instead, so that noise is not blown up.

    Args:
        embodiments, statistics: by name; statistics decide whom there are maps for.
        state_mode, action_mode: of all embodiments that ``modes`` says nothing else of.
        modes: embodiment -> (state mode, action mode), e.g. quantiles where declared ranges are guesses.
    """

    def __init__(
        self,
        embodiments: Mapping[str, Embodiment],
        statistics: Mapping[str, Statistics],
        *,
        state_mode: Mode = "mean_std",
        action_mode: Mode = "range",
        modes: Mapping[str, tuple[Mode, Mode]] | None = None,
    ) -> None:
        self.modes: dict[str, tuple[Mode, Mode]] = {
            name: (pair[0], pair[1]) for name, pair in (modes or {}).items()
        }
        for mode in (state_mode, action_mode, *(mode for pair in self.modes.values() for mode in pair)):
            if mode not in MODES:
                raise UnknownNameError("normalisation mode", mode, MODES)
        self.state_mode: Mode = state_mode
        self.action_mode: Mode = action_mode
        self.statistics = dict(statistics)
        self._maps: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
        for name, values in self.statistics.items():
            if name not in embodiments:
                raise StatisticsError(
                    f"Statistics of embodiment {name!r}, but only {quoted(sorted(embodiments))} "
                    "are described."
                )
            arm = embodiments[name]
            of_state, of_action = self.modes.get(name, (state_mode, action_mode))
            self._maps[name, "state"] = _affine(name, arm.state, values.state, of_state)
            self._maps[name, "action"] = _affine(name, arm.action, values.action, of_action)

    def normalise_state(self, embodiment: str, state: np.ndarray) -> np.ndarray:
        """float32 [..., state_dim] in units -> normalised, field order."""
        centre, scale = self._map(embodiment, "state", state)
        return ((state - centre) / scale).astype(np.float32)

    def unnormalise_state(self, embodiment: str, state: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`normalise_state`."""
        centre, scale = self._map(embodiment, "state", state)
        return (state * scale + centre).astype(np.float32)

    def normalise_action(self, embodiment: str, action: np.ndarray) -> np.ndarray:
        """float32 [..., action_dim] in units -> normalised, field order."""
        centre, scale = self._map(embodiment, "action", action)
        return ((action - centre) / scale).astype(np.float32)

    def unnormalise_action(self, embodiment: str, action: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`normalise_action`; does not clip."""
        centre, scale = self._map(embodiment, "action", action)
        return (action * scale + centre).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        modes = {name: list(pair) for name, pair in self.modes.items()}
        return {
            "state_mode": self.state_mode,
            "action_mode": self.action_mode,
            "statistics": statistics_to_json(self.statistics),
            **({"modes": modes} if modes else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], embodiments: Mapping[str, Embodiment]) -> Normalizer:
        """Strict inverse of :meth:`to_json`."""
        expected = {"state_mode", "action_mode", "statistics"}
        if set(data) - {"modes"} != expected:
            raise StatisticsError(
                f"A normaliser has the keys {quoted(sorted(data))}, expected {quoted(sorted(expected))}."
            )
        return cls(
            embodiments,
            statistics_from_json(data["statistics"]),
            state_mode=data["state_mode"],
            action_mode=data["action_mode"],
            modes=data.get("modes"),
        )

    def _map(self, embodiment: str, kind: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if (embodiment, kind) not in self._maps:
            raise StatisticsError(
                f"No statistics of embodiment {embodiment!r}; there are those of "
                f"{quoted(sorted(self.statistics))}. "
                "Compute them over data of this embodiment, or use one of those."
            )
        centre, scale = self._maps[embodiment, kind]
        if values.shape[-1:] != centre.shape:
            raise StatisticsError(
                f"A {kind} of {embodiment!r} has shape {values.shape}, expected (..., {len(centre)})."
            )
        return centre, scale


def _affine(
    name: str, members: Sequence[Field], values: VectorStatistics, mode: Mode
) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale, float64, of a concatenated field vector."""
    low = np.array([x for member in members for x in member.low])
    high = np.array([x for member in members for x in member.high])
    arrays = {f.name: np.array(getattr(values, f.name), float) for f in fields(values)}
    for key, array in arrays.items():
        if array.shape != low.shape or not np.isfinite(array).all():
            raise StatisticsError(
                f"Statistics {key!r} of {name!r} must be {len(low)} finite numbers, got {array.tolist()}."
            )
    bounded = np.isfinite(low) & np.isfinite(high)
    half = np.where(bounded, (np.where(bounded, high, 1.0) - np.where(bounded, low, -1.0)) / 2, 1.0)
    if mode == "range":
        if not bounded.all():
            raise StatisticsError(f"Normalisation 'range' of {name!r} needs finite field ranges.")
        return (low + high) / 2, half
    if mode == "quantile":
        centre, scale = (arrays["q01"] + arrays["q99"]) / 2, (arrays["q99"] - arrays["q01"]) / 2
    else:
        centre, scale = arrays["mean"], arrays["std"]
    return centre, np.where(scale < _CONSTANT * half, half, scale)


def _check_keys(cls: type, data: Mapping[str, Any]) -> None:
    known = {f.name for f in fields(cls)}
    if set(data) != known:
        raise StatisticsError(
            f"{cls.__name__} has the keys {quoted(sorted(data))}, expected {quoted(sorted(known))}."
        )
