"""Example episodes for training a policy that reads them: others of the same task, from the same source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from vla.contract import PolicyContract
from vla.data.batch import Batch
from vla.data.source import EpisodeInfo, EpisodeSource
from vla.data.windows import WindowDataset
from vla.models.backbones.in_context import Demonstrations, InContextBackbone
from vla.models.examples import demonstrations, example_steps
from vla.models.net_config import PolicyNetConfig
from vla.train.setup import open_windows
from vla.train.vlm import ExamplesConfig

if TYPE_CHECKING:
    from vla.train.config import TrainConfig


class ExampleSource:
    """Draws examples for the windows of a batch.

    Args:
        windows: over the sources that batches come from.
        episodes: what is known of each, numbered through the sources, with the number of its source.
        config: how many.
        network: what of states and actions the policy sees.
        embodiments: names by id.
    """

    def __init__(
        self,
        windows: WindowDataset,
        episodes: Sequence[tuple[int, EpisodeInfo]],
        config: ExamplesConfig,
        network: PolicyNetConfig,
        embodiments: Sequence[str],
    ) -> None:
        self.windows, self.config, self.network = windows, config, network
        self.lengths = [info.length for _, info in episodes]
        self.names = list(embodiments)
        self._key = [(n, str(i.provenance.get("task") or i.instruction)) for n, i in episodes]
        self._alike: dict[tuple[int, str], list[int]] = defaultdict(list)
        for episode, key in enumerate(self._key):
            self._alike[key].append(episode)

    def draw(self, episodes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """For each of B episodes int64 [B]: (episode, step) int64 [B K F 2] of its examples, and which there
        are, bool [B K F]. Never itself; none at all for ``hidden_share`` of them, and where no other is.
        """
        shape = (len(episodes), self.config.num_episodes, self.config.num_steps)
        index, there = np.zeros((*shape, 2), np.int64), np.zeros(shape, bool)
        for row, own in enumerate(episodes.tolist()):
            index[row, ..., 0] = own
            others = [episode for episode in self._alike[self._key[own]] if episode != own]
            hidden = rng.random() < self.config.hidden_share
            picks = rng.permutation(others)[: shape[1]] if others and not hidden else []
            for place, episode in enumerate(picks):
                steps, there[row, place] = example_steps(self.lengths[episode], shape[2])
                index[row, place, :, 0], index[row, place, :, 1] = episode, steps
        return index, there

    def __call__(
        self, batch: Batch, backbone: InContextBackbone, rng: np.random.Generator, device: torch.device
    ) -> Demonstrations:
        """Examples for every window of a batch, as the backbone reads them."""
        index, there = self.draw(batch.index[:, 0], rng)
        seen = self.windows.batch(index.reshape(-1, 2))
        first = slice(None, None, self.config.num_steps)  # of each episode
        tokens = backbone.tokenize(seen.instructions[first])
        state_index, action_index = (list(i) for i in (self.network.state_index, self.network.action_index))
        ids = [self.names.index(name) for name in seen.embodiments[first]]
        return demonstrations(
            images=seen.images,
            image_mask=seen.image_mask,
            token_ids=tokens.ids,
            token_mask=tokens.mask,
            embodiment_id=np.array(ids, np.int64),
            state=(seen.state * seen.state_mask)[:, state_index],
            action=seen.actions[:, 0][:, action_index],
            step_mask=there,
            device=device,
        )


def example_source(
    config: TrainConfig, sources: Sequence[EpisodeSource], contract: PolicyContract
) -> ExampleSource | None:
    """What draws the examples that the recipe asks for, if it does."""
    if config.model.examples is None:
        return None
    episodes = [(number, info) for number, source in enumerate(sources) for info in source.episodes]
    network = PolicyNetConfig.from_json(contract.network)
    windows, arms = open_windows(config, sources, contract), sorted(contract.embodiments)
    return ExampleSource(windows, episodes, config.model.examples, network, arms)
