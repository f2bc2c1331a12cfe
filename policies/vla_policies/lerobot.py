"""SmolVLA, pi0 and pi0.5 that lerobot saved, as policies: ``--policy lerobot:DIRECTORY``."""

from __future__ import annotations

import time
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla.embodiment import Embodiment
from vla.errors import StatisticsError
from vla.models.lerobot.checkpoint import LerobotCheckpoint, load_lerobot
from vla.models.lerobot.config import STATE
from vla.models.lerobot.contract import LerobotContract
from vla.models.lerobot.processors import TASK
from vla.types import ActionChunk, Observation


class LerobotPolicy:
    """A lerobot checkpoint behind the policy protocol.

    Args:
        checkpoint: loaded, with its processors: without statistics nobody knows its units.
        contract: which arm it is for.
        seed: of the noise that chunks start from. It follows from the seed and the observation alone, so
            that an episode is reproducible whatever else is in the batch.

    Raises:
        StatisticsError: the checkpoint has no processors.
    """

    def __init__(self, checkpoint: LerobotCheckpoint, contract: LerobotContract, *, seed: int = 0) -> None:
        if checkpoint.preprocessor is None or checkpoint.postprocessor is None:
            raise StatisticsError(
                f"{checkpoint.source} has no pre- or post-processor, hence no statistics: it cannot drive a "
                "robot. Save it with its processors."
            )
        contract.check_config(checkpoint.config)
        self.checkpoint, self.contract, self._seed = checkpoint, contract, seed

    @property
    def remembers(self) -> bool:
        """Whether an answer depends on what was seen before in the same episode."""
        return False

    def check(self, embodiment: Embodiment) -> Embodiment:
        """The contract's embodiment, or :class:`IncompatibleError` with every reason."""
        return self.contract.check(embodiment)

    def reset(self) -> None:
        """Nothing is remembered between calls."""

    def forget(self, episodes: Collection[int]) -> None:
        """Nothing is remembered of any episode."""

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """One chunk each, in the embodiment's units and never clipped.

        ``info``: ``latency_s`` (of the whole batch), ``truncated`` (the instruction did not fit).
        """
        if not observations:
            return []
        began = time.perf_counter()
        config, contract = self.checkpoint.config, self.contract
        states = np.stack([contract.state_vector(observation) for observation in observations])
        batch: dict[str, Any] = {
            STATE: torch.from_numpy(states),
            TASK: [observation.instruction for observation in observations],
        }
        for key in contract.cameras:
            pictures = np.stack([contract.picture(observation, key) for observation in observations])
            batch[key] = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        shape = (config.chunk_size, config.max_action_dim)
        noise = np.stack([self._noise(observation, shape) for observation in observations])
        actions, too_long = self.checkpoint.chunk(batch, torch.from_numpy(noise), static=True)
        latency_s = time.perf_counter() - began
        return [
            ActionChunk(
                actions=contract.actions(chunk.numpy()),
                control_hz=contract.embodiment.control_hz,
                info={"latency_s": latency_s, "truncated": truncated},
            )
            for chunk, truncated in zip(actions, too_long, strict=True)
        ]

    def _noise(self, observation: Observation, shape: tuple[int, int]) -> np.ndarray:
        crc = zlib.crc32(observation.instruction.encode())
        for values in (observation.images, observation.state):
            for name in sorted(values):
                crc = zlib.crc32(np.ascontiguousarray(values[name]).tobytes(), crc)
        return np.random.default_rng([self._seed, crc]).standard_normal(shape, np.float32)


def make(
    path: str | Path,
    vlm: str | None = None,
    tokenizer: str | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> LerobotPolicy:
    """The registered factory of ``lerobot`` policies; see :func:`vla.models.lerobot.load_lerobot`."""
    checkpoint = load_lerobot(path, vlm=vlm, tokenizer=tokenizer, device=device)
    return LerobotPolicy(checkpoint, LerobotContract.load(path, checkpoint.config), seed=seed)
