"""The ``fast`` head's block: attention and gated MLP read one adaptive norm side by side.

Three dependent phases a layer instead of eight: norm and every input projection, attention, every output
projection with the gated residual. A small head's latency on a GPU is phases times layers times steps, not
FLOPs, so fewer phases and few wide layers are what makes it fast (docs/fused_head.md).

    h = norm(x) * scale(t) + shift(t)
    x <- x + gate(t) * W_out [attention(h, prefix and itself) | silu(W_g h) * W_u h]

Adaptive norm: arXiv:2212.09748; parallel blocks: arXiv:2302.05442 section 2.1; gated MLP: arXiv:2002.05202.

Shapes: G groups, B memory rows (G = B * k), T tokens, M memory tokens, D width, F = ratio * D, n heads,
h width per head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.models.layers import KeysValues, merge_heads, split_heads


class ParallelBlock(nn.Module):
    """One norm, one input projection, one attention over memory and itself, one output projection."""

    def __init__(self, width: int, num_heads: int, ratio: int) -> None:
        super().__init__()
        self.width, self.num_heads, self.feed_width = width, num_heads, ratio * width
        self.modulation = nn.Linear(width, 3 * width)
        self.inputs = nn.Linear(width, 3 * width + 2 * self.feed_width)  # query, key, value, gate, up
        self.memory = nn.Linear(width, 2 * width)
        self.outputs = nn.Linear(width + self.feed_width, width)
        nn.init.normal_(self.modulation.weight, std=0.02)  # starts close to a plain pre-norm block
        nn.init.zeros_(self.modulation.bias)

    def encode(self, memory_BMD: Tensor) -> KeysValues:
        """Keys and values of the memory, computed once an observation."""
        k, v = self.memory(memory_BMD).chunk(2, dim=-1)
        return split_heads(k, self.num_heads), split_heads(v, self.num_heads)

    def modulate(self, condition_GD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scale, shift and gate, [G D] each: all that depends on the time."""
        scale, shift, gate = self.modulation(F.silu(condition_GD)).chunk(3, dim=-1)
        return 1 + scale, shift, 1 + gate

    def forward(
        self,
        x_GTD: Tensor,
        memory: KeysValues,
        mask_BM: Tensor | None = None,
        condition_GD: Tensor | None = None,
    ) -> Tensor:
        """``condition`` None (a head without time) modulates by the biases alone."""
        if condition_GD is None:
            condition_GD = x_GTD.new_zeros(1, self.width)
        scale, shift, gate = self.modulate(condition_GD)
        h_GTD = F.layer_norm(x_GTD, (self.width,)) * scale[:, None] + shift[:, None]
        sizes = (self.width, self.width, self.width, self.feed_width, self.feed_width)
        q, k, v, opening, content = self.inputs(h_GTD).split(sizes, dim=-1)
        q, k, v = (split_heads(t, self.num_heads) for t in (q, k, v))
        groups = len(x_GTD) // len(memory[0])
        k = torch.cat([memory[0].repeat_interleave(groups, 0), k], dim=2)
        v = torch.cat([memory[1].repeat_interleave(groups, 0), v], dim=2)
        mask = None
        if mask_BM is not None:
            own = mask_BM.new_ones(len(x_GTD), x_GTD.shape[1])
            mask = torch.cat([mask_BM.repeat_interleave(groups, 0), own], dim=1)[:, None, None, :]
        read_GTD = merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
        made = self.outputs(torch.cat([read_GTD, F.silu(opening) * content], dim=-1))
        return x_GTD + gate[:, None] * made
