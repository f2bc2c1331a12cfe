"""What every backbone offers, whatever it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from vla.errors import ObservationError
from vla.models.backbones.words import Tokens

KINDS = ("target", "goal")  # what query 0 and query 1 of each camera are to find


@dataclass(frozen=True, eq=False)
class PrefixFeatures:
    """One encoded observation, read by the heads.

    Args:
        features: float [b p d].
        mask: bool [b p], true where a token is real; None when all are.
        auxiliary: what auxiliary losses read. ``keypoint_logits`` [b c k n]: attention logits of the
            queries of each camera over a square map of n cells, row by row (absent: no such loss).
            ``keypoint_tokens`` [b c k d]: what these queries read, and where.
            ``thing_keys`` [b c n f]: the map before it knows the instruction, for ``thing_logits``.
        visual: int64 [views rows columns], places among the p tokens of each picture's patches (rows is 1
            where they are no grid); None where the backbone's tokens are no patches.
    """

    features: Tensor
    mask: Tensor | None
    auxiliary: dict[str, Tensor] = field(default_factory=dict)
    visual: Tensor | None = None

    def take(self, rows: Tensor) -> PrefixFeatures:
        """What heads read, of some samples: ``rows`` int64 [n]."""
        return PrefixFeatures(self.features[rows], None if self.mask is None else self.mask[rows])

    def detach(self) -> PrefixFeatures:
        """What heads read, without what taught it."""
        return PrefixFeatures(self.features.detach(), self.mask)


def check_pictures(images: Tensor) -> None:
    """Raise :class:`ObservationError` unless pictures are uint8: floats in 0..1 would look black."""
    if images.dtype != torch.uint8:
        raise ObservationError(
            f"Pictures are uint8 in 0..255, [batch cameras height width 3]; given: {str(images.dtype)[6:]}."
        )


@runtime_checkable
class Backbone(Protocol):
    """Images, words and embodiment -> prefix features; a ``torch.nn.Module``.

    ``tokenize`` turns instructions into ids and reports the words it does not know. Calling it takes
    images uint8 [b c h w 3] (RGB), image_mask bool [b c] or None (all there), token_ids int64 [b l],
    token_mask bool [b l], embodiment_id int64 [b].
    """

    @property
    def width(self) -> int: ...

    @property
    def max_tokens(self) -> int:
        """Columns of the longest row that ``tokenize`` gives."""
        ...

    def tokenize(self, instructions: list[str]) -> Tokens: ...

    def __call__(
        self,
        images: Tensor,
        image_mask: Tensor | None,
        token_ids: Tensor,
        token_mask: Tensor,
        embodiment_id: Tensor,
    ) -> PrefixFeatures: ...

    def state_dict(self) -> dict[str, Any]: ...
