"""pi0 (arXiv:2410.24164) and pi0.5 (arXiv:2504.16054): PaliGemma and a Gemma expert over its keys and values.

pi0 gives the expert a state token before the chunk and mixes the time into the actions; pi0.5 writes the
state into the prompt and lets the time modulate the expert's norms. pi0's state token reads nothing of the
chunk, so its keys and values are made once, with the prefix. Modules are named as in lerobot's checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GemmaConfig, SiglipVisionConfig
from transformers.models.gemma.modeling_gemma import GemmaMLP, GemmaRMSNorm
from transformers.models.siglip.modeling_siglip import SiglipEncoder

from vla.errors import CheckpointError
from vla.models.lerobot.config import PiSettings
from vla.models.lerobot.decoder import (
    DecoderLayer,
    Prefix,
    Projections,
    encode,
    fold,
    positions_of,
    rotate,
    rotation,
    time_features,
)
from vla.models.lerobot.flow import FlowInputs, FlowNet

_HEADS = 8  # of both Gemma variants that lerobot knows; its attention has this number written in
_VISION_HEADS = {1152: 16}  # SigLIP So400m
_EPS = 1e-6
_BODY = "paligemma_with_expert.paligemma.model."
_EXPERT = "paligemma_with_expert.gemma_expert.model."


@dataclass(frozen=True, kw_only=True)
class PiSizes:
    """Everything that the shapes of the weights tell, and the number of vision heads, which they do not."""

    vocab: int
    width: int
    depth: int
    feed: int
    num_kv: int
    head_size: int
    expert_width: int
    expert_feed: int
    vision_width: int
    vision_depth: int
    vision_feed: int
    vision_heads: int
    patch: int
    places: int

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], vision_heads: int | None = None) -> PiSizes:
        """From the shapes of a checkpoint's tensors by name, without the leading ``model.``.

        Raises:
            CheckpointError: a tensor that tells a size is missing, or the vision heads are unknown.
        """

        def shape(name: str) -> tuple[int, ...]:
            if name not in shapes:
                raise CheckpointError(
                    f"The weights lack 'model.{name}': not a pi0 or pi05 policy of lerobot."
                )
            return shapes[name]

        def depth(start: str) -> int:
            found = {name[len(start) :].split(".")[0] for name in shapes if name.startswith(start)}
            return len(found)

        tower = f"{_BODY}vision_tower.vision_model."
        vocab, width = shape(f"{_BODY}language_model.embed_tokens.weight")
        vision_width, _, patch, _ = shape(f"{tower}embeddings.patch_embedding.weight")
        attention = f"{_BODY}language_model.layers.0.self_attn."
        head_size = shape(f"{attention}q_proj.weight")[0] // _HEADS
        heads = vision_heads or _VISION_HEADS.get(vision_width)
        if heads is None:
            raise CheckpointError(
                f"A vision tower {vision_width} wide is none of {sorted(_VISION_HEADS)}, and the checkpoint "
                "does not say how many attention heads it has: give vision_heads=."
            )
        return cls(
            vocab=vocab,
            width=width,
            depth=depth(f"{_BODY}language_model.layers."),
            feed=shape(f"{_BODY}language_model.layers.0.mlp.up_proj.weight")[0],
            num_kv=shape(f"{attention}k_proj.weight")[0] // head_size,
            head_size=head_size,
            expert_width=shape("action_in_proj.weight")[0],
            expert_feed=shape(f"{_EXPERT}layers.0.mlp.up_proj.weight")[0],
            vision_width=vision_width,
            vision_depth=depth(f"{tower}encoder.layers."),
            vision_feed=shape(f"{tower}encoder.layers.0.mlp.fc1.weight")[0],
            vision_heads=heads,
            patch=patch,
            places=shape(f"{tower}embeddings.position_embedding.weight")[0],
        )


class AdaptiveNorm(nn.Module):
    """RMSNorm whose scale, shift and gate follow from the time (pi0.5)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, 3 * width)

    def forward(self, x_BTD: Tensor, modulation_B1M: Tensor) -> tuple[Tensor, Tensor]:
        """The norm and the gate of what follows from it."""
        scale, shift, gate = modulation_B1M.chunk(3, dim=-1)
        work = x_BTD.to(torch.promote_types(x_BTD.dtype, torch.float32))
        normal = work * torch.rsqrt(work.square().mean(-1, keepdim=True) + _EPS)
        return (normal * (1 + scale) + shift).to(x_BTD.dtype), gate


class Embeddings(nn.Module):
    def __init__(self, sizes: PiSizes) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, sizes.vision_width, sizes.patch, stride=sizes.patch)
        self.position_embedding = nn.Embedding(sizes.places, sizes.vision_width)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        return self.patch_embedding(images_B3HW).flatten(2).transpose(1, 2) + self.position_embedding.weight


class Siglip(nn.Module):
    def __init__(self, sizes: PiSizes) -> None:
        super().__init__()
        config = SiglipVisionConfig(
            hidden_size=sizes.vision_width,
            intermediate_size=sizes.vision_feed,
            num_hidden_layers=sizes.vision_depth,
            num_attention_heads=sizes.vision_heads,
            patch_size=sizes.patch,
        )
        config._attn_implementation = "sdpa"
        self.embeddings = Embeddings(sizes)
        self.encoder = SiglipEncoder(config)  # type: ignore[arg-type]  # SigLIP passes its vision config too
        self.post_layernorm = nn.LayerNorm(sizes.vision_width, eps=config.layer_norm_eps)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        return self.post_layernorm(self.encoder(self.embeddings(images_B3HW)).last_hidden_state)


class Gemma(nn.Module):
    def __init__(self, sizes: PiSizes, width: int, feed: int, adaptive: bool, vocab: int | None) -> None:
        super().__init__()
        config = GemmaConfig(hidden_size=width, intermediate_size=feed, hidden_act="gelu_pytorch_tanh")

        def norm() -> nn.Module:
            return AdaptiveNorm(width) if adaptive else GemmaRMSNorm(width, eps=_EPS)

        def layer() -> DecoderLayer:
            attention = Projections(width, _HEADS, sizes.num_kv, sizes.head_size)
            return DecoderLayer(attention, GemmaMLP(config), norm)

        if vocab is not None:
            self.embed_tokens = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(layer() for _ in range(sizes.depth))
        self.norm = norm()


class PaliGemmaBody(nn.Module):
    def __init__(self, sizes: PiSizes) -> None:
        super().__init__()
        self.vision_tower = nn.ModuleDict({"vision_model": Siglip(sizes)})
        self.multi_modal_projector = nn.ModuleDict({"linear": nn.Linear(sizes.vision_width, sizes.width)})
        self.language_model = Gemma(sizes, sizes.width, sizes.feed, False, sizes.vocab)


class PiNet(FlowNet):
    """See :class:`vla.models.lerobot.flow.FlowNet`."""

    config: PiSettings

    def __init__(self, config: PiSettings, sizes: PiSizes) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes
        width = sizes.expert_width
        expert = Gemma(sizes, width, sizes.expert_feed, config.adaptive, None)
        self.paligemma_with_expert = nn.ModuleDict(
            {
                "paligemma": nn.ModuleDict({"model": PaliGemmaBody(sizes)}),
                "gemma_expert": nn.ModuleDict({"model": expert}),
            }
        )
        self.action_in_proj = nn.Linear(config.max_action_dim, width)
        self.action_out_proj = nn.Linear(width, config.max_action_dim)
        if config.adaptive:
            self.time_mlp_in, self.time_mlp_out = nn.Linear(width, width), nn.Linear(width, width)
        else:
            self.state_proj = nn.Linear(config.max_state_dim, width)
            self.action_time_mlp_in = nn.Linear(2 * width, width)
            self.action_time_mlp_out = nn.Linear(width, width)

    @property
    def body(self) -> Any:
        return self.paligemma_with_expert["paligemma"]["model"]  # type: ignore[index]

    @property
    def expert(self) -> Any:
        return self.paligemma_with_expert["gemma_expert"]["model"]  # type: ignore[index]

    def encode_prefix(self, inputs: FlowInputs) -> Prefix:
        body, (batch, cameras) = self.body, inputs.images.shape[:2]
        seen = body.multi_modal_projector["linear"](
            body.vision_tower["vision_model"](inputs.images.flatten(0, 1))
        )
        seen_BPD = seen.unflatten(0, (batch, cameras))
        words_BLD = body.language_model.embed_tokens(inputs.token_ids) * math.sqrt(self.sizes.width)
        x_BPD = torch.cat([seen_BPD.flatten(1, 2), words_BLD], dim=1)
        seen_mask = inputs.image_mask.repeat_interleave(seen_BPD.shape[2], dim=1)
        mask_BP = torch.cat([seen_mask, inputs.token_mask], dim=1)
        mask_BPP = mask_BP[:, None, :].expand(-1, x_BPD.shape[1], -1)
        keys, values = encode(body.language_model.layers, x_BPD, mask_BPP, positions_of(mask_BP))
        places = mask_BP.sum(1, keepdim=True)
        if not self.config.adaptive:
            mask_BP = torch.cat([mask_BP, mask_BP.new_ones(batch, 1)], dim=1)
            keys, values = self._add_state(inputs.state, keys, values, mask_BP, places)
            places = places + 1
        length = self.config.chunk_size
        mask_BTS = torch.cat([mask_BP, mask_BP.new_ones(batch, length)], dim=1)
        mask_BTS = mask_BTS[:, None, :].expand(-1, length, -1)
        places = places + torch.arange(length, device=mask_BP.device)
        cos, sin = rotation(places, self.sizes.head_size, keys[0].dtype)
        groups = _HEADS // self.sizes.num_kv
        return Prefix(tuple(keys), tuple(values), fold(mask_BTS, groups), mask_BP[:, None, None, :], cos, sin)

    def _add_state(
        self, state_BS: Tensor, keys: list[Tensor], values: list[Tensor], mask_BP: Tensor, places_B1: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The state token behind the prefix: it reads the prefix and itself."""
        x_B1D = self.state_proj(state_BS)[:, None]
        cos, sin = rotation(places_B1, self.sizes.head_size, x_B1D.dtype)
        mask = mask_BP[:, None, None, :]
        longer_keys, longer_values = [], []
        for i, layer in enumerate(self.expert.layers):
            attention: Projections = layer.self_attn
            normal = layer.input_layernorm(x_B1D)
            own = rotate(attention.keys(normal), cos, sin)
            longer_keys.append(torch.cat([keys[i], own], dim=2))
            longer_values.append(torch.cat([values[i], attention.values(normal)], dim=2))
            if i + 1 < len(keys):
                query = rotate(attention.queries(normal), cos, sin)
                x_B1D = x_B1D + attention.attend(query, longer_keys[i], longer_values[i], mask)
                x_B1D = x_B1D + layer.mlp(layer.post_attention_layernorm(x_B1D))
        return longer_keys, longer_values

    def condition(self, time_N: Tensor) -> Tensor:
        """pi0: [N D], the time's share of the first mixing layer. pi0.5: [N norms 3*D], every modulation."""
        width, dtype = self.sizes.expert_width, self.action_in_proj.weight.dtype
        features = time_features(time_N, width, self.config.min_period, self.config.max_period).to(dtype)
        if not self.config.adaptive:
            mix = self.action_time_mlp_in
            return F.linear(features, mix.weight[:, width:], mix.bias)
        known = F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(features))))
        norms = [n for la in self.expert.layers for n in (la.input_layernorm, la.post_attention_layernorm)]
        return torch.stack([norm.dense(known) for norm in [*norms, self.expert.norm]], dim=1)

    def step(self, prefix: Prefix, x_BTA: Tensor, condition: Tensor) -> Tensor:
        x_BTD = self.action_in_proj(x_BTA)
        if not self.config.adaptive:
            weight = self.action_time_mlp_in.weight[:, : self.sizes.expert_width]
            x_BTD = self.action_time_mlp_out(F.silu(F.linear(x_BTD, weight) + condition[:, None]))
        for i, layer in enumerate(self.expert.layers):
            attention: Projections = layer.self_attn
            normal, gate = self._norm(layer.input_layernorm, x_BTD, condition, 2 * i)
            query = rotate(attention.queries(normal), prefix.cos, prefix.sin)
            own = rotate(attention.keys(normal), prefix.cos, prefix.sin)
            keys = torch.cat([prefix.keys[i], own], dim=2)
            values = torch.cat([prefix.values[i], attention.values(normal)], dim=2)
            out = attention.attend(query, keys, values, prefix.mask)
            x_BTD = x_BTD + (out if gate is None else out * gate)
            normal, gate = self._norm(layer.post_attention_layernorm, x_BTD, condition, 2 * i + 1)
            out = layer.mlp(normal)
            x_BTD = x_BTD + (out if gate is None else out * gate)
        return self.action_out_proj(self._norm(self.expert.norm, x_BTD, condition, -1)[0])

    def _norm(
        self, norm: nn.Module, x_BTD: Tensor, condition: Tensor, place: int
    ) -> tuple[Tensor, Tensor | None]:
        if self.config.adaptive:
            return norm(x_BTD, condition[:, place, None])
        return norm(x_BTD), None
