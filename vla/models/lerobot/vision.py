"""SmolVLM's vision tower (SigLIP, arXiv:2303.15343): four fifths of the work of a SmolVLA chunk on a CPU.

Without gradients pictures go through a layer one after the other and layers write into what they have: no
large temporaries, whose first touch costs as much as an activation, and residuals added by the products.
The names of modules are those of lerobot's checkpoints.

Shapes: B pictures, P patches, D width, F feed-forward width, H heads.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.errors import CheckpointError

_GELU = "gelu_pytorch_tanh"


class PatchEmbedding(nn.Module):
    """Patches and learned places; SmolVLM scales places for pictures smaller than the table."""

    def __init__(self, vision: Any) -> None:
        super().__init__()
        self.patch, self.side = vision.patch_size, vision.image_size // vision.patch_size
        self.patch_embedding = nn.Conv2d(3, vision.hidden_size, self.patch, stride=self.patch)
        self.position_embedding = nn.Embedding(self.side**2, vision.hidden_size)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        tall, wide = images_B3HW.shape[-2] // self.patch, images_B3HW.shape[-1] // self.patch
        places = (self._share(tall)[:, None] * self.side + self._share(wide)).flatten()
        patches = self.patch_embedding(images_B3HW).flatten(2).transpose(1, 2)
        return (patches + self.position_embedding(places.to(images_B3HW.device))).contiguous()

    def _share(self, count: int) -> Tensor:
        """int64 [count]: rows of the table for ``count`` rows of patches, in float32 as in transformers."""
        edges = torch.arange(1 / self.side, 1.0, 1 / self.side)
        share = torch.arange(count, dtype=torch.float32) * (1.0 / torch.tensor(count))
        return torch.bucketize(share.clamp(max=1.0 - 1e-6), edges, right=True)


class Attention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def read(self, x_BPD: Tensor) -> Tensor:
        """[B P D] before ``out_proj``."""
        q, k, v = (
            projection(x_BPD).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class FeedForward(nn.Module):
    def __init__(self, width: int, feed: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, feed), nn.Linear(feed, width)


class Layer(nn.Module):
    def __init__(self, vision: Any) -> None:
        super().__init__()
        width = vision.hidden_size
        self.self_attn = Attention(width, vision.num_attention_heads)
        self.layer_norm1 = nn.LayerNorm(width, eps=vision.layer_norm_eps)
        self.mlp = FeedForward(width, vision.intermediate_size)
        self.layer_norm2 = nn.LayerNorm(width, eps=vision.layer_norm_eps)

    def forward(self, x_BPD: Tensor) -> Tensor:
        x_BPD = x_BPD + self.self_attn.out_proj(self.self_attn.read(self.layer_norm1(x_BPD)))
        hidden_BPF = F.gelu(self.mlp.fc1(self.layer_norm2(x_BPD)), approximate="tanh")
        return x_BPD + self.mlp.fc2(hidden_BPF)

    def advance_(self, x_1PD: Tensor, room_PF: Tensor) -> None:
        """:meth:`forward` of one picture in place; ``room_PF`` is for the feed-forward's hidden values."""
        _add_linear(x_1PD, self.self_attn.read(self.layer_norm1(x_1PD))[0], self.self_attn.out_proj)
        fc1 = self.mlp.fc1
        torch.addmm(fc1.bias, self.layer_norm2(x_1PD)[0], fc1.weight.t(), out=room_PF)
        _add_linear(x_1PD, torch.ops.aten.gelu_(room_PF, approximate="tanh"), self.mlp.fc2)


class Encoder(nn.Module):
    def __init__(self, vision: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(vision) for _ in range(vision.num_hidden_layers))


class VisionTower(nn.Module):
    """float [B 3 h w] in [-1, 1] -> [B P D].

    Raises:
        CheckpointError: an activation that no SmolVLM has.
    """

    def __init__(self, vision: Any) -> None:
        super().__init__()
        if vision.hidden_act != _GELU:
            raise CheckpointError(f"A vision tower with {vision.hidden_act!r}; SmolVLM's have {_GELU!r}.")
        self.embeddings = PatchEmbedding(vision)
        self.encoder = Encoder(vision)
        self.post_layernorm = nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        x_BPD = self.embeddings(images_B3HW)
        if torch.is_grad_enabled():
            for layer in self.encoder.layers:
                x_BPD = layer(x_BPD)
            return self.post_layernorm(x_BPD)
        feed = self.encoder.layers[0].mlp.fc1.out_features  # type: ignore[union-attr]
        room_PF = x_BPD.new_empty(x_BPD.shape[1], feed)
        for layer in self.encoder.layers:  # one picture at a time, while the layer's weights are in the cache
            for x_1PD in x_BPD.split(1):
                layer.advance_(x_1PD, room_PF)  # type: ignore[operator]
        return self.post_layernorm(x_BPD)


def _add_linear(x_1PD: Tensor, y_PE: Tensor, linear: nn.Linear) -> None:
    """x += linear(y), by the matrix product itself."""
    x_1PD.add_(linear.bias)
    x_1PD[0].addmm_(y_PE, linear.weight.t())
