"""What a head remembers: summaries of the last observations, as tokens beside the state.

The backbone sees one observation at a time and knows nothing of this; its prefix of earlier observations is
summed up in one vector each, so remembering costs a token a frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vla.errors import ObservationError
from vla.models.backbones.interface import PrefixFeatures


class History(nn.Module):
    """The last ``length`` observations, newest last.

    Args:
        width: D.
        length: K, at least 1.
    """

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.summary_in = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, width))
        self.ages = nn.Parameter(torch.randn(length, width) * 0.1)
        self.absent = nn.Parameter(torch.randn(width) * 0.1)

    def summarise(self, prefix: PrefixFeatures, state_BSD: Tensor) -> Tensor:
        """One observation in one vector [B D]: its state token and the mean of its prefix."""
        features = prefix.features
        if prefix.mask is None:
            mean = features.mean(1)
        else:
            weight = prefix.mask[..., None].to(features.dtype)
            mean = (features * weight).sum(1) / weight.sum(1).clamp(min=1.0)
        return self.summary_in(torch.cat([state_BSD[:, 0], mean], dim=-1))

    def forward(self, past_BKD: Tensor, there_BK: Tensor) -> Tensor:
        """Tokens [B K D] to put behind the state's; where ``there`` is false nothing of ``past`` is read.

        Raises:
            ObservationError: another number of past observations than the head was made for.
        """
        if past_BKD.shape[1] != self.length:
            raise ObservationError(
                f"This head remembers {self.length} observations; given were {past_BKD.shape[1]} "
                "(tell it which of them exist instead of leaving them out)."
            )
        return torch.where(there_BK[..., None], past_BKD, self.absent) + self.ages


class Memories:
    """Summaries of the running episodes at inference; :meth:`reset` between episodes.

    Args:
        history: of the head.
        batch: observations a call.
    """

    def __init__(self, history: History, batch: int) -> None:
        self.history, self.batch = history, batch
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        ages = self.history.ages
        self.past = ages.new_zeros(self.batch, *ages.shape)
        self.there = torch.zeros(self.batch, self.history.length, dtype=torch.bool, device=ages.device)

    def tokens(self) -> Tensor:
        """[B K D], of the observations before this one."""
        return self.history(self.past, self.there)

    def add(self, prefix: PrefixFeatures, state_BSD: Tensor) -> None:
        """Remember an observation; the oldest is forgotten."""
        if len(state_BSD) != self.batch:
            raise ObservationError(f"{self.batch} episodes are remembered; given were {len(state_BSD)}.")
        newest = self.history.summarise(prefix, state_BSD)[:, None]
        self.past = torch.cat([self.past[:, 1:], newest], dim=1)
        self.there = torch.cat([self.there[:, 1:], torch.ones_like(self.there[:, :1])], dim=1)
