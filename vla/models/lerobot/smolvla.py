"""SmolVLA (arXiv:2506.01844): SmolVLM's first layers and a narrow expert that reads their keys and values.

Expert layers take turns: one attends over prefix and chunk (causally inside the chunk), the next reads the
prefix only, through key and value projections of its own. Those projections belong to the prefix, not to the
step, and are applied once. The names of modules are those of lerobot's checkpoints.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SmolVLMConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMConnector

from vla.models.lerobot.config import SmolVLASettings
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
from vla.models.lerobot.vision import VisionTower


class TextModel(nn.Module):
    def __init__(self, text: Any, num_layers: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(text.vocab_size, text.hidden_size)
        self.layers = nn.ModuleList(_layer(text) for _ in range(num_layers))
        self.norm = LlamaRMSNorm(text.hidden_size, eps=text.rms_norm_eps)  # in the file, never needed


class Expert(nn.Module):
    def __init__(self, text: Any, cross: tuple[bool, ...]) -> None:
        super().__init__()
        source = text.num_key_value_heads * text.head_dim
        self.layers = nn.ModuleList(_layer(text, source if reads else None) for reads in cross)
        self.norm = LlamaRMSNorm(text.hidden_size, eps=text.rms_norm_eps)


class VlmBody(nn.Module):
    def __init__(self, vlm: SmolVLMConfig, num_layers: int) -> None:
        super().__init__()
        self.vision_model = VisionTower(vlm.vision_config)
        self.connector = SmolVLMConnector(vlm)
        self.text_model = TextModel(vlm.text_config, num_layers)


class Vlm(nn.Module):
    def __init__(self, vlm: SmolVLMConfig, num_layers: int) -> None:
        super().__init__()
        self.model = VlmBody(vlm, num_layers)


class VlmWithExpert(nn.Module):
    def __init__(self, vlm: SmolVLMConfig, expert: Any, num_layers: int, cross: tuple[bool, ...]) -> None:
        super().__init__()
        self.vlm = Vlm(vlm, num_layers)
        self.lm_expert = Expert(expert, cross)


class SmolVLANet(FlowNet):
    """See :class:`vla.models.lerobot.flow.FlowNet`.

    Args:
        config: of the checkpoint.
        vlm: transformers' SmolVLMConfig of the model that the checkpoint names.
    """

    config: SmolVLASettings

    def __init__(self, config: SmolVLASettings, vlm: Any) -> None:
        super().__init__()
        self.config = config
        num_layers = config.num_vlm_layers if config.num_vlm_layers > 0 else vlm.text_config.num_hidden_layers
        every = config.self_attn_every_n_layers
        crosses = config.attention_mode == "cross_attn"
        self.cross = tuple(crosses and not (every > 0 and i % every == 0) for i in range(num_layers))
        self.prefix_width = vlm.text_config.hidden_size
        expert = expert_config(vlm.text_config, config.expert_width_multiplier)
        self.vlm_with_expert = VlmWithExpert(vlm, expert, num_layers, self.cross)
        self.state_proj = nn.Linear(config.max_state_dim, self.prefix_width)
        self.action_in_proj = nn.Linear(config.max_action_dim, expert.hidden_size)
        self.action_out_proj = nn.Linear(expert.hidden_size, config.max_action_dim)
        self.action_time_mlp_in = nn.Linear(2 * expert.hidden_size, expert.hidden_size)
        self.action_time_mlp_out = nn.Linear(expert.hidden_size, expert.hidden_size)

    def encode_prefix(self, inputs: FlowInputs) -> Prefix:
        body = self.vlm_with_expert.vlm.model
        batch, cameras = inputs.images.shape[:2]
        seen = body.connector(body.vision_model(inputs.images.flatten(0, 1)))
        seen_BPD = seen.unflatten(0, (batch, cameras))
        words_BLD = body.text_model.embed_tokens(inputs.token_ids)
        scale = math.sqrt(self.prefix_width)
        state_B1D = self.state_proj(inputs.state)[:, None]
        x_BPD = torch.cat([seen_BPD.flatten(1, 2) * scale, words_BLD * scale, state_B1D], dim=1)
        one = inputs.token_mask.new_ones(batch, 1)
        seen_mask = inputs.image_mask.repeat_interleave(seen_BPD.shape[2], dim=1)
        mask_BP = torch.cat([seen_mask, inputs.token_mask, one], dim=1)
        # image and text do not see the state token, which comes last
        sees_state = torch.zeros(x_BPD.shape[1], 1, dtype=torch.bool, device=x_BPD.device)
        sees_state[-1] = True
        mask_BPP = mask_BP[:, None, :].repeat(1, x_BPD.shape[1], 1)
        mask_BPP = torch.cat([mask_BPP[..., :-1], mask_BPP[..., -1:] & sees_state], dim=2)
        keys, values = encode(body.text_model.layers, x_BPD, mask_BPP, positions_of(mask_BP))
        return self._for_expert(keys, values, mask_BP)

    def _for_expert(self, keys: list[Tensor], values: list[Tensor], mask_BP: Tensor) -> Prefix:
        layers = self.vlm_with_expert.lm_expert.layers
        for i, reads in enumerate(self.cross):
            if reads:  # this layer's own view of the prefix, the same at every step
                attention: Projections = layers[i].self_attn  # type: ignore[assignment]
                keys[i] = attention.keys(keys[i].transpose(1, 2).flatten(2))
                values[i] = attention.values(values[i].transpose(1, 2).flatten(2))
        length = self.config.chunk_size
        causal = torch.ones(length, length, dtype=torch.bool, device=mask_BP.device).tril()
        seen_BTP = mask_BP[:, None, :].expand(-1, length, -1)
        mask_BTS = torch.cat([seen_BTP, causal.expand(len(mask_BP), -1, -1)], dim=2)
        places = mask_BP.sum(1, keepdim=True) + torch.arange(length, device=mask_BP.device)
        first: Projections = layers[0].self_attn  # type: ignore[assignment]
        cos, sin = rotation(places, first.size, keys[0].dtype)
        return Prefix(
            tuple(keys), tuple(values), fold(mask_BTS, first.groups), mask_BP[:, None, None, :], cos, sin
        )

    def condition(self, time_N: Tensor) -> Tensor:
        """[N D]: the time's share of the first layer that mixes actions and time."""
        width = self.action_time_mlp_in.out_features
        weight = self.action_time_mlp_in.weight
        features = time_features(time_N, width, self.config.min_period, self.config.max_period)
        return F.linear(features.to(weight.dtype), weight[:, width:], self.action_time_mlp_in.bias)

    def step(self, prefix: Prefix, x_BTA: Tensor, condition: Tensor) -> Tensor:
        width = self.action_time_mlp_in.out_features
        mixed = F.linear(self.action_in_proj(x_BTA), self.action_time_mlp_in.weight[:, :width])
        x_BTD = self.action_time_mlp_out(F.silu(mixed + condition[:, None]))
        expert = self.vlm_with_expert.lm_expert
        places = torch.arange(x_BTA.shape[1], device=x_BTA.device)[None]
        first: Projections = expert.layers[0].self_attn  # type: ignore[assignment]
        from_start = rotation(places, first.size, x_BTD.dtype)  # where only the prefix is read
        for i, layer in enumerate(expert.layers):
            attention: Projections = layer.self_attn  # type: ignore[assignment]
            normal = layer.input_layernorm(x_BTD)  # type: ignore[operator]
            query, keys, values = attention.queries(normal), prefix.keys[i], prefix.values[i]
            if self.cross[i]:
                query = rotate(query, *from_start)
                mask = prefix.cross_mask
            else:
                query = rotate(query, prefix.cos, prefix.sin)
                own = rotate(attention.keys(normal), prefix.cos, prefix.sin)
                keys = torch.cat([keys, own], dim=2)
                values = torch.cat([values, attention.values(normal)], dim=2)
                mask = prefix.mask
            x_BTD = x_BTD + attention.attend(query, keys, values, mask)
            x_BTD = x_BTD + layer.mlp(layer.post_attention_layernorm(x_BTD))  # type: ignore[operator]
        return self.action_out_proj(expert.norm(x_BTD))


def expert_config(text: Any, multiplier: float) -> Any:
    """The language model's configuration, narrower: MLP of 8/3 of the width, up to a multiple of 256."""
    width = int(text.hidden_size * multiplier)
    feed = 4 * int(2 * width / 3)
    expert = type(text).from_dict(text.to_dict())
    expert.hidden_size, expert.intermediate_size = width, 256 * math.ceil(feed / 256)
    expert.head_dim = text.head_dim
    return expert


def _layer(text: Any, source: int | None = None) -> DecoderLayer:
    attention = Projections(
        text.hidden_size, text.num_attention_heads, text.num_key_value_heads, text.head_dim, source
    )
    return DecoderLayer(
        attention, LlamaMLP(text), lambda: LlamaRMSNorm(text.hidden_size, eps=text.rms_norm_eps)
    )
