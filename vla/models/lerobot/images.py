"""Pictures as the two families want them: same aspect, padded, in [-1, 1]."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize_padded(images_B3HW: Tensor, height: int, width: int, *, centred: bool) -> Tensor:
    """float in [0, 1] -> [-1, 1], [B 3 height width]; what is missing is black.

    Args:
        centred: pad on both sides and clamp (pi0, pi0.5), or left and top only (SmolVLA).
    """
    tall, wide = images_B3HW.shape[-2:]
    if (tall, wide) != (height, width):
        ratio = max(wide / width, tall / height)
        size = (int(tall / ratio), int(wide / ratio))
        images_B3HW = F.interpolate(images_B3HW, size=size, mode="bilinear", align_corners=False)
        if centred:
            images_B3HW = images_B3HW.clamp(0.0, 1.0)
        missing = (height - size[0], width - size[1])
        top, left = (missing[0] // 2, missing[1] // 2) if centred else missing
        images_B3HW = F.pad(images_B3HW, (left, missing[1] - left, top, missing[0] - top))
    return images_B3HW * 2.0 - 1.0
