"""Diffusion: a cosine noise schedule in continuous time, sampled with DDIM (arXiv:2010.02502, 2102.09672).

``x_t = alpha(t) actions + sigma(t) noise`` with ``alpha = cos(pi t / 2)``, ``sigma = sin(pi t / 2)``. The net
predicts the noise (``epsilon``) or ``v = alpha noise - sigma actions`` (arXiv:2202.00512, the default).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.denoiser import Denoiser
from vla.models.heads.interface import Memory

_LAST = 0.98  # time that sampling starts from: at 1 the actions have no weight in x and epsilon says nothing
_LIMIT = 4.0  # of the estimated actions while sampling; normalised actions lie well within


class DiffusionHead(Denoiser):
    """Masked mean squared error on what is predicted: epsilon or v."""

    def loss(
        self, prefix: PrefixFeatures, state: Tensor, actions: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        actions = actions.where(mask, 0.0)[:, None]
        noise, time = self.draw(actions[:, 0], generator)
        time = time * _LAST
        alpha, sigma = _weights(time[..., None, None])
        target = noise if self.config.prediction == "epsilon" else alpha * noise - sigma * actions
        x = alpha * actions + sigma * noise
        return self.error(self.encode_prefix(prefix, state), x, time, target, mask)

    def sample(
        self, prefix: PrefixFeatures, state: Tensor, *, num_steps: int, generator: torch.Generator | None
    ) -> Tensor:
        """DDIM; ``generator`` None starts from zero noise, else from a draw."""
        x = self.start(state, generator)
        memory = self.encode_prefix(prefix, state)
        for now, then in pairwise(self._times(num_steps, state.device)):
            (alpha, sigma), (next_alpha, next_sigma) = _weights(now), _weights(then)
            actions = self._clean(memory, x, now)
            noise = (x - alpha * actions) / sigma
            x = next_alpha * actions + next_sigma * noise
        return x

    def _times(self, num_steps: int, device: torch.device | str = "cpu") -> Tensor:
        return torch.linspace(_LAST, 0.0, num_steps + 1, device=device)

    def _clean(self, memory: Memory, x: Tensor, time: Tensor) -> Tensor:
        alpha, sigma = _weights(time)
        made = self.predict(memory, x, time.expand(len(x)))
        actions = (
            (x - sigma * made) / alpha if self.config.prediction == "epsilon" else alpha * x - sigma * made
        )
        return actions.clamp(-_LIMIT, _LIMIT)

    def times(self, num_steps: int) -> tuple[float, ...]:
        return tuple(self._times(num_steps).tolist())

    def weights(self, time: float) -> tuple[float, float]:
        return math.cos(time * math.pi / 2), math.sin(time * math.pi / 2)

    def clean(self, memory: Memory, x_BHA: Tensor, time: float) -> Tensor:
        return self._clean(memory, x_BHA, torch.tensor(time, device=x_BHA.device, dtype=torch.float32))


def _weights(time: Tensor) -> tuple[Tensor, Tensor]:
    """Of actions and of noise."""
    angle = time * (torch.pi / 2)
    return angle.cos(), angle.sin()
