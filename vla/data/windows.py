"""Episodes -> training windows: what was seen at a step and the actions that followed it.

Low-dimensional columns are packed in memory per embodiment when the dataset is built (about 0.3 kB a
step); frames are decoded on demand. Which windows a step of training sees follows from (seed, step) alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vla.data.batch import Batch
from vla.data.packing import merge_embodiments, pack_steps
from vla.data.pictures import PictureReader
from vla.data.sampling import MixtureSampler, WindowSampler
from vla.data.source import EpisodeInfo, EpisodeSource, episode_name
from vla.data.statistics import Mode, Normalizer, Statistics
from vla.embodiment import Embodiment
from vla.errors import ConfigError, DatasetError, StoreError
from vla.interfaces import AUX_KEYS
from vla.spaces import ACTION_DIM, STATE_DIM, slot_mask


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """What a window holds and how windows are drawn.

    Args:
        horizon: actions per window.
        history, history_gap: earlier moments per window, and steps between them.
        camera_roles: cameras by role, in the order of ``Batch.images``.
        image_size: height and width of the images, pixels.
        resize: area-resize images of another size (otherwise they raise).
        state_mode, action_mode, modes: see :class:`~vla.data.statistics.Normalizer`.
        approach_share: share of a batch drawn from steps of phase 0, when the target must still be
            found by eye; the rest is uniform over all steps.
        equal_cells: every (task, embodiment) of a source gets the same share of that source's windows.
        perturbation: an executed action counts as perturbed when an entry is further than this from
            its label, in units of half the field's range: bursts are, the small Gaussian is not.
    """

    horizon: int = 8
    history: int = 0
    history_gap: int = 1
    camera_roles: tuple[str, ...] = ("front", "wrist")
    image_size: int = 64
    resize: bool = False
    state_mode: Mode = "mean_std"
    action_mode: Mode = "range"
    modes: Mapping[str, tuple[Mode, Mode]] = field(default_factory=dict)
    approach_share: float = 0.6
    equal_cells: bool = True
    perturbation: float = 0.3

    def __post_init__(self) -> None:
        if self.horizon < 1 or self.image_size < 1 or not self.camera_roles:
            raise ConfigError(f"Windows need a horizon, an image size and a camera role: {self}.")
        if self.history < 0 or self.history_gap < 1:
            raise ConfigError(f"history must be 0 or more and history_gap 1 or more: {self}.")
        if not 0 <= self.approach_share <= 1 or self.perturbation <= 0:
            raise ConfigError(f"approach_share must be in 0..1 and perturbation positive: {self}.")


_DAMAGED_WHILE_READ = (
    "Nothing is left out in the middle of a run: 'vla data check' lists what is damaged, skip_damaged=True "
    "of the source leaves it out when it opens, in a new run."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Slots:
    """Where an arm's entries go in the padded vectors, and which entries are its."""

    state: np.ndarray
    action: np.ndarray
    state_mask: np.ndarray
    action_mask: np.ndarray

    @classmethod
    def of(cls, arm: Embodiment) -> _Slots:
        state, action = arm.state_index, arm.action_index
        masks = {"state_mask": slot_mask(state, STATE_DIM), "action_mask": slot_mask(action, ACTION_DIM)}
        return cls(state=state, action=action, **masks)


class WindowDataset:
    """Random access to the windows of one or more sources.

    Episodes are numbered through the sources in order.

    Args:
        stores: where the episodes are, in our format or any other.
        config: what a window holds.
        statistics: by embodiment.
        weights: parts of a batch that the sources make up, relative to one another (None: equal).
    """

    def __init__(
        self,
        stores: EpisodeSource | Sequence[EpisodeSource],
        config: WindowConfig,
        statistics: Mapping[str, Statistics],
        *,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.stores = [stores] if isinstance(stores, EpisodeSource) else list(stores)
        self.config = config
        self.embodiments = merge_embodiments(self.stores)
        self._members = [(store, info) for store in self.stores for info in store.episodes]
        if not self._members:
            raise StoreError(
                f"No episodes in {', '.join(str(store.path) for store in self.stores)}: nothing to train on."
            )
        self.normalizer = Normalizer(
            self.embodiments,
            statistics,
            state_mode=config.state_mode,
            action_mode=config.action_mode,
            modes=config.modes,
        )
        self.lengths = np.array([info.length for _, info in self._members])
        self._names = sorted({info.embodiment for _, info in self._members})
        self._arm = np.array([self._names.index(info.embodiment) for _, info in self._members])
        self._row = np.zeros(len(self._members), int)  # first row of each episode within its embodiment
        for arm in range(len(self._names)):
            mine = self._arm == arm
            self._row[mine] = np.cumsum(self.lengths[mine]) - self.lengths[mine]
        self._rows = [
            pack_steps(
                [member for member in self._members if member[1].embodiment == name],
                self.embodiments[name],
                self.normalizer,
                config.perturbation,
            )
            for name in self._names
        ]
        self._slots = [_Slots.of(self.embodiments[name]) for name in self._names]
        self._pictures = PictureReader(
            self._members, roles=config.camera_roles, image_size=config.image_size, resize=config.resize
        )
        self._source = np.repeat(np.arange(len(self.stores)), [len(store.episodes) for store in self.stores])
        self.sampler = self._build_sampler(weights or [1.0] * len(self.stores))

    def __len__(self) -> int:
        """Number of windows: one starts at every step."""
        return int(self.lengths.sum())

    def sample(self, rng: np.random.Generator, batch_size: int) -> Batch:
        """A batch drawn as the configuration says."""
        return self.batch(self.sampler.draw(rng, batch_size))

    def step_batch(self, *, seed: int, step: int, batch_size: int, rank: int = 0, world: int = 1) -> Batch:
        """The batch of one rank at one training step; a run resumed at ``step`` sees the same."""
        return self.batch(
            self.sampler.at(seed=seed, step=step, batch_size=batch_size, rank=rank, world=world)
        )

    def batch(self, index: np.ndarray | Sequence[Sequence[int]]) -> Batch:
        """Windows at ``index`` int [B 2] of (episode, step)."""
        index = np.asarray(index, np.int64).reshape(-1, 2)
        episodes, steps = index[:, 0], index[:, 1]
        if index.size and (
            episodes.min() < 0
            or episodes.max() >= len(self.lengths)
            or (steps < 0).any()
            or (steps >= self.lengths[episodes]).any()
        ):
            raise StoreError(f"A window lies outside the {len(self.lengths)} episodes: {index.tolist()}.")
        size, horizon = len(index), self.config.horizon
        state, actions = (
            np.zeros((size, STATE_DIM), np.float32),
            np.zeros((size, horizon, ACTION_DIM), np.float32),
        )
        state_mask, action_mask = np.zeros(state.shape, bool), np.zeros(actions.shape, bool)
        aux = np.full((size, sum(AUX_KEYS.values())), np.nan, np.float32)
        tcp_position = np.full((size, 3), np.nan, np.float32)
        past = self.config.history
        past_state = np.zeros((size, past, STATE_DIM), np.float32)
        past_action = np.zeros((size, past, ACTION_DIM), np.float32)
        ago = self.config.history_gap * np.arange(1, past + 1)
        past_there = steps[:, None] >= ago
        arms = self._arm[episodes]
        for arm in np.unique(arms):
            rows, slots = self._rows[arm], self._slots[arm]
            mine = np.flatnonzero(arms == arm)
            now = self._row[episodes[mine]] + steps[mine]
            chunk, valid = rows.chunks(now, horizon)
            state[mine[:, None], slots.state] = rows.state[now]
            state_mask[mine] = slots.state_mask
            actions[mine[:, None, None], np.arange(horizon)[:, None], slots.action] = chunk
            action_mask[mine] = valid[:, :, None] & slots.action_mask
            which, moment = np.nonzero(past_there[mine])
            then = now[which] - ago[moment]
            past_state[mine[which, None], moment[:, None], slots.state] = rows.state[then]
            past_action[mine[which, None], moment[:, None], slots.action] = rows.action[then]
            aux[mine], tcp_position[mine] = rows.aux[now], rows.tcp_position[now]
        images, image_mask = self._look(episodes, steps)
        bounds = np.cumsum(list(AUX_KEYS.values()))[:-1]
        quantities = dict(zip(AUX_KEYS, np.split(aux, bounds, axis=1), strict=True))
        others = quantities["other_instruction"][:, 0].tolist()
        return Batch(
            images=images,
            image_mask=image_mask,
            state=state,
            state_mask=state_mask,
            instructions=[self._members[e][1].instruction for e in episodes],
            embodiments=[self._members[e][1].embodiment for e in episodes],
            actions=actions,
            action_mask=action_mask,
            aux=quantities,
            other_instructions=[
                _other_instruction(self._members[e][1], number)
                for e, number in zip(episodes, others, strict=True)
            ],
            things=[tuple(self._members[e][1].provenance.get("things", ())) for e in episodes],
            tcp_position=tcp_position,
            past_state=past_state,
            past_action=past_action,
            past_there=past_there,
            index=index,
            sources=self._source[episodes],
        )

    def _look(self, episodes: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            return self._pictures.read(episodes, steps)
        except (DatasetError, StoreError) as error:
            for episode, step in zip(episodes, steps, strict=True):  # which of them was it?
                try:
                    self._pictures.read(np.array([episode]), np.array([step]))
                except (DatasetError, StoreError) as reason:
                    store, info = self._members[episode]
                    raise DatasetError(
                        f"{episode_name(store, info.index)}: the pictures of step {step} cannot be read. "
                        f"{reason} {_DAMAGED_WHILE_READ}"
                    ) from error
            raise

    def _build_sampler(self, weights: Sequence[float]) -> MixtureSampler:
        if len(weights) != len(self.stores):
            raise ConfigError(f"{len(weights)} weights for {len(self.stores)} sources.")
        cells = [(str(info.provenance.get("task", "")), info.embodiment) for _, info in self._members]
        samplers = []
        for source, store in enumerate(self.stores):
            mine = np.flatnonzero(self._source == source)
            if not len(mine):
                raise StoreError(f"No episodes in {store.path}: nothing to train on.")
            samplers.append(
                WindowSampler(
                    self.lengths[mine],
                    cells=[cells[episode] for episode in mine],
                    approach=self._approach(mine),
                    approach_share=self.config.approach_share,
                    equal_cells=self.config.equal_cells,
                )
            )
        counts = [len(store.episodes) for store in self.stores]
        return MixtureSampler(samplers, num_episodes=counts, weights=weights)

    def _approach(self, episodes: np.ndarray) -> np.ndarray:
        """bool [steps]: phase 0, in the order of ``episodes``; false where the phase is unknown."""
        phase = list(AUX_KEYS).index("phase")
        column = sum(list(AUX_KEYS.values())[:phase])
        parts = [
            self._rows[arm].aux[row : row + length, column] == 0
            for arm, row, length in zip(
                self._arm[episodes], self._row[episodes], self.lengths[episodes], strict=True
            )
        ]
        return np.concatenate(parts)


def _other_instruction(info: EpisodeInfo, number: float) -> str:
    """The text that the aux quantity ``other_instruction`` points at; empty where it is NaN."""
    if np.isnan(number):
        return ""
    texts = info.provenance.get("other_instructions", ())
    if not 0 <= number < len(texts):
        raise StoreError(
            f"Episode {info.index}: other_instruction is {number:g}, but its provenance lists {len(texts)} "
            "texts."
        )
    return str(texts[int(number)])
