"""Losses that teach the trunk to look: where target and goal are, in space and in each picture.

Both need labels that only a simulator has, and only in training. Behaviour cloning alone finds
small objects slowly: the hand's own position predicts the object once the hand is there.

Shapes: B batch, C cameras, K keypoint queries, N map cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.models.backbones.interface import KINDS
from vla.models.heads.interface import masked_mean

SPREAD_CELLS = 0.7  # standard deviation of the label's bump on the map, in cells
CORNER_DM = 0.1  # the localisation loss is linear beyond this: 1 cm off must still pull


class Locator(nn.Module):
    """Where target and goal are, from what the queries that look for them read in each picture.

    The estimate goes back to the heads as a token of its own: to act is easy once one knows where.
    """

    def __init__(self, width: int, num_cameras: int, token_width: int) -> None:
        super().__init__()
        inputs = width + num_cameras * token_width
        self.read = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, 3))
            for _ in KINDS
        )
        self.place = nn.Sequential(nn.Linear(3 * len(KINDS), width), nn.GELU(), nn.Linear(width, width))

    def forward(self, state_BD: Tensor, tokens_BCKD: Tensor, mask_BC: Tensor | None) -> tuple[Tensor, Tensor]:
        """Estimates [B 2 3], dm, relative to the tool; and the token that tells them [B 1 D]."""
        if mask_BC is not None:
            tokens_BCKD = tokens_BCKD * mask_BC[:, :, None, None]
        found = [
            read(torch.cat([state_BD, tokens_BCKD[:, :, kind].flatten(1)], dim=-1))
            for kind, read in enumerate(self.read)
        ]
        location_B23 = torch.stack(found, dim=1)
        return location_B23, self.place(location_B23.flatten(1))[:, None]


def localisation_loss(predicted_B23: Tensor, label_B23: Tensor) -> Tensor:
    """Smooth L1 between positions relative to the tool, in dm; NaN labels count for nothing."""
    known = label_B23.isfinite()
    error = F.smooth_l1_loss(predicted_B23.float(), label_B23.nan_to_num(), beta=CORNER_DM, reduction="none")
    return masked_mean(error, known)


def keypoint_loss(logits_BCKN: Tensor, uv_BCM2: Tensor, mask_BC: Tensor | None = None) -> Tensor:
    """Cross-entropy between attention and a Gaussian bump at the labelled pixel, less the bump's entropy.

    Args:
        logits_BCKN: attention logits over a square map, row by row; the first M are to find
            what is labelled (target and goal, or things by name).
        uv_BCM2: [batch camera what (x, y)] in [-1, 1], x right, y down; NaN: not in the picture.
        mask_BC: true where the camera exists.
    """
    side = round(logits_BCKN.shape[-1] ** 0.5)
    known = uv_BCM2.isfinite().all(-1) & (uv_BCM2.abs() <= 1).all(-1)
    if mask_BC is not None:
        known = known & mask_BC[..., None]
    centres = (torch.arange(side, device=uv_BCM2.device) + 0.5) / side * 2 - 1
    spread = SPREAD_CELLS * 2 / side
    offset = uv_BCM2.nan_to_num()[..., None] - centres  # [B C M (x, y) side]
    bump = (-0.5 * (offset / spread).square()).softmax(-1)
    label = (bump[..., 1, :, None] * bump[..., 0, None, :]).flatten(-2)  # y picks the row
    divergence = F.kl_div(
        logits_BCKN[:, :, : uv_BCM2.shape[2]].float().log_softmax(-1), label, reduction="none"
    ).sum(-1)
    return masked_mean(divergence, known)
