"""What flow matching and diffusion share: a decoder told a time, a draw of noise and times, a start."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.guidance import Continuation, drawn
from vla.models.heads.interface import ChunkDecoder, HeadConfig, Memory, masked_mean
from vla.models.layers import sinusoids


class Denoiser(nn.Module):
    """Noisy actions and a time in 0..1 -> what the head regresses on."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = ChunkDecoder(config)
        self.action_in = nn.Linear(config.action_dim, config.width)
        self.time_in = nn.Sequential(
            nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, config.width)
        )

    def encode_prefix(self, prefix: PrefixFeatures, state: Tensor) -> Memory:
        """Once an observation; feed the result to :meth:`predict`."""
        return self.decoder.encode(prefix, state)

    def predict(self, memory: Memory, x_GHA: Tensor, time_G: Tensor) -> Tensor:
        """One step's output [G H A]; G is the memory's batch or a multiple of it.

        ``time`` may be [G H], one for each action, where the blocks are sequential.
        """
        waves = sinusoids(time_G.flatten(), self.config.width).to(x_GHA.dtype)
        time_GD = self.time_in(waves).unflatten(0, time_G.shape)
        if time_G.ndim == 2:
            return self.decoder(self.action_in(x_GHA) + time_GD, memory)
        return self.decoder(self.action_in(x_GHA) + time_GD[:, None], memory, time_GD)

    def draw(self, actions: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``num_noise`` draws a sample: noise [B k H A], and times [B k], one in each of k equal bands of
        0..1 (the same expectation, less variance).
        """
        batch, count = len(actions), self.config.num_noise
        noise = torch.randn(batch, count, *actions.shape[1:], generator=generator, device=actions.device)
        band = torch.arange(count, device=actions.device)
        time = (band + torch.rand(batch, count, generator=generator, device=actions.device)) / count
        return noise, time

    def error(self, memory: Memory, x_BkHA: Tensor, time_Bk: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Masked mean squared error of the predictions for ``x`` at ``time``, [B k] or [B k H].

        ``mask``: bool [B H A], or [B k H A].
        """
        made = self.predict(memory, x_BkHA.flatten(0, 1), time_Bk.flatten(0, 1)).float()
        error = (made.unflatten(0, x_BkHA.shape[:2]) - target).square()
        return masked_mean(error, (mask if mask.ndim == 4 else mask[:, None]).expand_as(error))

    def start(self, state: Tensor, generator: torch.Generator | None) -> Tensor:
        """Where sampling begins [B H A]: zero noise (the mode-seeking default), or a draw."""
        shape = (len(state), self.config.horizon, self.config.action_dim)
        if generator is None:
            return torch.zeros(shape, device=state.device, dtype=state.dtype)
        return torch.randn(shape, generator=generator, device=state.device, dtype=state.dtype)

    def times(self, num_steps: int) -> tuple[float, ...]:
        """Of the sampler, from the noise to the actions."""
        raise NotImplementedError

    def weights(self, time: float) -> tuple[float, float]:
        """Of actions and of noise in ``x`` at a time."""
        raise NotImplementedError

    def clean(self, memory: Memory, x_BHA: Tensor, time: float) -> Tensor:
        """The actions that the head takes ``x`` to come from, [B H A]."""
        raise NotImplementedError

    def continued(
        self,
        prefix: PrefixFeatures,
        state: Tensor,
        plan: Continuation,
        *,
        num_steps: int,
        generator: torch.Generator | None,
    ) -> Tensor:
        """As ``sample``, a chunk [B H A] that continues another one; see ``vla.models.heads.guidance``."""
        with torch.inference_mode(False), torch.no_grad():  # its gradients need ordinary tensors
            mask = None if prefix.mask is None else prefix.mask.clone()
            state, plan = state.clone(), plan.clone()
            memory = self.encode_prefix(PrefixFeatures(prefix.features.clone(), mask), state)
            x = start = self.start(state, generator)
            for now, then in pairwise(self.times(num_steps)):
                (alpha, sigma), (next_alpha, next_sigma) = self.weights(now), self.weights(then)
                x = torch.where(plan.frozen, alpha * plan.actions + sigma * start, x)
                gain = next_alpha - next_sigma * alpha / sigma
                made = drawn(partial(self.clean, memory, time=now), x, plan, (alpha, sigma), gain)
                x = next_alpha * made + next_sigma * (x - alpha * made) / sigma
            return torch.where(plan.frozen, plan.actions, x)
