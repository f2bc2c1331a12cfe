"""What a head remembers: states and commanded actions of earlier moments, as tokens beside the state.

The backbone sees one observation at a time and knows nothing of this: remembering costs a token a moment and
no second look. Moments lie as far apart as decisions do.

Shapes: B batch, K moments, S state entries, A action entries, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vla.errors import ObservationError
from vla.spaces import ACTION_DIM, STATE_DIM


@dataclass(frozen=True, eq=False)
class Past:
    """Moments before those of a batch, newest first.

    state float32 [B K STATE_DIM] normalised; action float32 [B K ACTION_DIM], normalised, what was commanded
    then; there bool [B K], false where the episode had not begun.
    """

    state: Tensor
    action: Tensor
    there: Tensor

    @classmethod
    def random(cls, batch: int, length: int, generator: torch.Generator) -> Past:
        """Numbers to measure with; the older moments of a sample are absent."""
        return cls(
            torch.randn(batch, length, STATE_DIM, generator=generator),
            torch.randn(batch, length, ACTION_DIM, generator=generator),
            torch.arange(length) < torch.randint(length + 1, (batch, 1), generator=generator),
        )

    @classmethod
    def absent(cls, batch: int, length: int) -> Past:
        """At an episode's first moment there is none of them."""
        state, action = torch.zeros(batch, length, STATE_DIM), torch.zeros(batch, length, ACTION_DIM)
        return cls(state, action, torch.zeros(batch, length, dtype=torch.bool))

    def like(self, other: Tensor) -> Past:
        """On the device and in the dtype of another tensor."""
        return Past(self.state.to(other), self.action.to(other), self.there.to(other.device))


class History(nn.Module):
    """The last ``length`` moments.

    Args:
        state_dim, action_dim: S, A.
        width: D.
        length: K, at least 1.
    """

    def __init__(self, state_dim: int, action_dim: int, width: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.moment = nn.Sequential(
            nn.Linear(2 * state_dim + action_dim, width), nn.GELU(), nn.Linear(width, width)
        )
        self.ages = nn.Parameter(torch.randn(length, width) * 0.1)
        self.absent = nn.Parameter(torch.randn(width) * 0.1)

    def forward(self, state_BKS: Tensor, known_BS: Tensor, action_BKA: Tensor, there_BK: Tensor) -> Tensor:
        """Tokens [B K D] to put behind the state's; where ``there`` is false nothing of a moment is read.

        Args:
            known_BS: bool, the state entries that the arm has.

        Raises:
            ObservationError: another number of moments than the head was made for.
        """
        if state_BKS.shape[1] != self.length:
            raise ObservationError(
                f"This head remembers {self.length} moments; given were {state_BKS.shape[1]} "
                "(say which of them exist instead of leaving them out)."
            )
        known = known_BS[:, None].expand_as(state_BKS)
        moments = torch.cat([state_BKS.where(known, 0.0), known.to(state_BKS.dtype), action_BKA], dim=-1)
        moments = moments.where(there_BK[..., None], 0.0)
        return torch.where(there_BK[..., None], self.moment(moments), self.absent) + self.ages
