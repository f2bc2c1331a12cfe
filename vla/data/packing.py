"""The low-dimensional columns of many episodes, packed in memory so that a window is a few row look-ups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from vla.data.source import EpisodeInfo, EpisodeSource, stacked_column
from vla.data.statistics import Normalizer
from vla.embodiment import Embodiment
from vla.errors import IncompatibleError, StoreError
from vla.interfaces import AUX_KEYS

#: An episode with its source.
Member = tuple[EpisodeSource, EpisodeInfo]


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedSteps:
    """All steps of one embodiment, one row a step, episode after episode.

    Args:
        state: float32 [N S], normalised.
        action: float32 [N A], normalised.
        aux: float32 [N k], the ``AUX_KEYS`` side by side, NaN where unknown.
        tcp_position: float32 [N 3], m, world; NaN where the embodiment has no such field.
        end: int64 [N], row after the episode's last.
        stop: int64 [N], row after the last label that holds for a chunk beginning here.
        hold: float32 [A], normalised action that moves nothing; NaN: repeat the last value.
    """

    state: np.ndarray
    action: np.ndarray
    aux: np.ndarray
    tcp_position: np.ndarray
    end: np.ndarray
    stop: np.ndarray
    hold: np.ndarray

    def chunks(self, rows: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """Actions [n H A] from each of ``rows`` on, and bool [n H]: which of them to trust."""
        ahead = rows[:, None] + np.arange(horizon)
        end = self.end[rows, None]
        chunk = self.action[np.minimum(ahead, end - 1)]
        held = np.where(np.isnan(self.hold), chunk, self.hold)
        return np.where((ahead < end)[:, :, None], chunk, held), ahead < self.stop[rows, None]


def pack_steps(
    members: Sequence[Member],
    embodiment: Embodiment,
    normalizer: Normalizer,
    perturbation: float,
) -> PackedSteps:
    """Load and normalise the columns of episodes of one embodiment.

    Args:
        members: episodes with their stores.
        embodiment: theirs.
        normalizer: holds the statistics of the embodiment.
        perturbation: see ``WindowConfig``.
    """
    lengths = np.array([info.length for _, info in members])
    state, action, executed = (_stacked(members, column) for column in ("state", "action", "executed"))
    half_range = (embodiment.action_high - embodiment.action_low) / 2
    perturbed = np.any(np.abs(executed - action) > perturbation * half_range, axis=1)
    end = np.repeat(np.cumsum(lengths), lengths)
    absolute = np.repeat(
        [f.mode == "absolute" for f in embodiment.action], [f.size for f in embodiment.action]
    )
    still = normalizer.normalise_action(embodiment.name, np.zeros(embodiment.action_dim, np.float32))
    return PackedSteps(
        state=normalizer.normalise_state(embodiment.name, state),
        action=normalizer.normalise_action(embodiment.name, action),
        aux=_aux_columns(members),
        tcp_position=_tcp_position(embodiment, state),
        end=end,
        stop=np.minimum(end, _next_true(np.asarray(perturbed)) + 1),
        hold=np.where(absolute, np.nan, still).astype(np.float32),
    )


def merge_embodiments(stores: Iterable[EpisodeSource]) -> dict[str, Embodiment]:
    """Embodiments of several stores by name; one name with two meanings raises (cameras may differ)."""
    merged: dict[str, tuple[Embodiment, EpisodeSource]] = {}
    for store in stores:
        for name, embodiment in store.embodiments.items():
            known, where = merged.setdefault(name, (embodiment, store))
            reasons = [
                f"{key} differs: {getattr(embodiment, key)} and {getattr(known, key)}"
                for key in ("state", "action", "control_hz")
                if getattr(embodiment, key) != getattr(known, key)
            ]
            if reasons:
                advice = f"if it is another arm, name it otherwise: rename={{{name!r}: ...}} of that source"
                raise IncompatibleError(
                    f"{name!r} of {store.path}", f"{name!r} of {where.path}", [*reasons, advice]
                )
    return {name: embodiment for name, (embodiment, _) in merged.items()}


def _next_true(flags: np.ndarray) -> np.ndarray:
    """For each place, the first true at or after it (or a place past all)."""
    places = np.where(flags, np.arange(len(flags)), np.iinfo(np.int64).max - 1)
    return np.minimum.accumulate(places[::-1])[::-1]


def _stacked(members: Sequence[Member], column: str) -> np.ndarray:
    """A column of all episodes, those of one source at a time."""
    groups = groupby(members, key=lambda member: id(member[0]))
    runs = [list(group) for _, group in groups]
    return np.concatenate(
        [stacked_column(run[0][0], [info.index for _, info in run], column) for run in runs]
    )


def _aux_columns(members: Sequence[Member]) -> np.ndarray:
    """float32 [N k]: the ``AUX_KEYS`` of all episodes; NaN where an episode has none."""
    lengths = np.array([info.length for _, info in members])
    starts = np.cumsum(lengths) - lengths
    there = [set(source.columns(info.index)) for source, info in members]
    aux = np.full((int(lengths.sum()), sum(AUX_KEYS.values())), np.nan, np.float32)
    place = 0
    for key, size in AUX_KEYS.items():
        mine = [number for number, names in enumerate(there) if f"aux/{key}" in names]
        if mine:
            values = _stacked([members[number] for number in mine], f"aux/{key}")
            if values.shape[1] != size:
                source, info = members[mine[0]]
                raise StoreError(
                    f"Episode {info.index} of {source.path}: aux {key!r} has {values.shape[1]} entries, not "
                    f"{size}."
                )
            rows = slice(None)
            if len(mine) < len(members):
                rows = np.concatenate([np.arange(starts[n], starts[n] + lengths[n]) for n in mine])
            aux[rows, place : place + size] = values
        place += size
    return aux


def _tcp_position(embodiment: Embodiment, state: np.ndarray) -> np.ndarray:
    for member in embodiment.state:
        if member.slot == "arm0.tcp_position" and member.size == 3:
            return np.ascontiguousarray(state[:, embodiment.field_slice(member.name, of="state")])
    return np.full((len(state), 3), np.nan, np.float32)
