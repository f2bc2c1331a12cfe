"""The network that both sides of bench_eval.py run: torch alone, so that lerobot's Python can import it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

#: Entries of Meta-World's state (hand position, gripper) and action.
STATE, ACTION = 4, 4
#: Pictures are averaged down to this many pixels a side before the first convolution.
LOOKED_AT = 96


class BenchNet(nn.Module):
    """Picture [b 3 h w] in [0, 1], state [b 4] -> chunk [b horizon 4] in [-1, 1]; 0.4 M weights of seed 0."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        widths = (3, 32, 64, 128, 128)
        self.shrink = nn.AdaptiveAvgPool2d(LOOKED_AT)
        self.look = nn.Sequential(
            *(
                layer
                for a, b in pairwise(widths)
                for layer in (nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GELU())
            ),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.decide = nn.Sequential(
            nn.Linear(16 * widths[-1] + STATE, 64), nn.GELU(), nn.Linear(64, horizon * ACTION), nn.Tanh()
        )
        self.horizon = horizon
        self.eval()

    def forward(self, picture: Tensor, state: Tensor) -> Tensor:
        seen = self.look(self.shrink(picture))
        return self.decide(torch.cat((seen, state), -1)).unflatten(-1, (self.horizon, ACTION))
