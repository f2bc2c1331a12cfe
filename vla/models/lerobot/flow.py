"""Flow matching as lerobot's SmolVLA, pi0 and pi0.5 do it: one interface, sampling and loss.

Time runs from 1 (noise) to 0 (actions): x_t = t * noise + (1 - t) * action, and the network predicts
noise - action (arXiv:2410.24164). Shapes: B batch, N cameras, L words, T chunk, A padded action entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.errors import ObservationError
from vla.models.lerobot.config import LerobotConfig
from vla.models.lerobot.decoder import Prefix

#: Parameters of the Beta distribution that training draws its times from, its scale and offset.
TIME_BETA, TIME_SCALE, TIME_OFFSET = (1.5, 1.0), 0.999, 0.001


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowInputs:
    """What the network sees, prepared.

    images float [B N 3 h w] in [-1, 1], image_mask bool [B N], token_ids int64 [B L], token_mask bool
    [B L], state float [B S] normalised and padded.
    """

    images: Tensor
    image_mask: Tensor
    token_ids: Tensor
    token_mask: Tensor
    state: Tensor


class FlowNet(nn.Module):
    """Three graphs with static shapes: ``encode_prefix`` once, ``condition`` once, ``step`` n times."""

    config: LerobotConfig

    def encode_prefix(self, inputs: FlowInputs) -> Prefix:
        """Keys and values of everything that does not depend on the denoising step."""
        raise NotImplementedError

    def condition(self, time_N: Tensor) -> Tensor:
        """[N ...]: everything that depends on the time alone, for all steps of a schedule at once."""
        raise NotImplementedError

    def step(self, prefix: Prefix, x_BTA: Tensor, condition: Tensor) -> Tensor:
        """Velocity [B T A]; reads the prefix and changes nothing. ``condition``: [1 ...] or [B ...]."""
        raise NotImplementedError

    def lay_out(self) -> None:
        """Store the weights of linear layers input-major, as views of the same shape.

        Values, names and shapes stay; on a CPU matrix products read them 5 to 20 % faster so.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = module.weight.data.t().contiguous().t()

    def sample(
        self,
        inputs: FlowInputs,
        noise_BTA: Tensor,
        num_steps: int | None = None,
        step: Callable[[Prefix, Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Normalised, padded chunk [B T A]; ``step`` stands in for :meth:`step` (a compiled one, say)."""
        count, advance = num_steps or self.config.num_steps, step or self.step
        prefix = self.encode_prefix(inputs)
        dt = -1.0 / count
        times = torch.tensor([1.0 + i * dt for i in range(count)], device=noise_BTA.device)
        conditions = self.condition(times)
        x = noise_BTA
        for i in range(count):
            x = x + dt * advance(prefix, x, conditions[i : i + 1])
        return x

    def loss(
        self,
        inputs: FlowInputs,
        actions_BTA: Tensor,
        noise_BTA: Tensor,
        time_B: Tensor,
        padding_BT: Tensor | None = None,
    ) -> Tensor:
        """Mean squared velocity error over the action's own entries (padding up to A is left out).

        Args:
            actions_BTA: normalised, [B T action_dim] or padded.
            padding_BT: bool, true where an action lies past the episode's end: not counted. (lerobot 0.6.1
                leaves them out for SmolVLA and counts them for pi0 and pi0.5.)
        """
        actions = pad_last(actions_BTA, self.config.max_action_dim)
        time = time_B[:, None, None].to(actions.dtype)
        x_BTA = time * noise_BTA + (1 - time) * actions
        velocity = self.step(self.encode_prefix(inputs), x_BTA, self.condition(time_B))
        error = (noise_BTA - actions - velocity)[..., : self.config.action_dim].square()
        if padding_BT is None:
            return error.mean()
        kept = (~padding_BT).sum() * error.shape[-1]
        return error[~padding_BT].sum() / kept.clamp(min=1)

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise [B T A] and times [B] for a training batch, on the generator's device."""
        shape = (batch, self.config.chunk_size, self.config.max_action_dim)
        noise = torch.randn(shape, generator=generator, device=generator.device)
        uniform = torch.rand(batch, generator=generator, device=generator.device)
        # Beta(1.5, 1) has the distribution function x^1.5, so its inverse turns a uniform number into one
        return noise, uniform ** (1 / TIME_BETA[0]) * TIME_SCALE + TIME_OFFSET


def pad_last(x: Tensor, size: int) -> Tensor:
    """Zeros behind the last dimension up to ``size``; more than ``size`` entries raise."""
    if x.shape[-1] > size:
        raise ObservationError(f"{x.shape[-1]} entries, but the network takes at most {size}.")
    return F.pad(x, (0, size - x.shape[-1]))
