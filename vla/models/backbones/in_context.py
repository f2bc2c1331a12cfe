"""Demonstrations in the prompt: a few example episodes that any backbone can be shown, as Flamingo is
(arXiv:2204.14198; OpenFlamingo, arXiv:2308.01390).

    example step ─► backbone ─► Perceiver resampler ─► latents ┐
    its state and action ───────────────────────────► a token  ┴► interleaved, step by step ─► memory
    observation ─► backbone ─► prefix ─► gated cross-attention over the memory ─► prefix features

The gates start closed: a network that was trained without examples computes the same until they open.

Shapes: B batch, K episodes, F steps each, C cameras, L words, P prefix tokens, R latents, M = K * F * (R + 1)
memory tokens, D width, S state entries, A action entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.errors import ConfigError, ObservationError
from vla.models.backbones.interface import PrefixFeatures
from vla.models.backbones.settings import from_settings
from vla.models.backbones.words import Tokens

_REQUIRED = {
    "base": "the backbone that sees",
    "state_dim": "entries of the state",
    "action_dim": "entries of an action",
}


@dataclass(frozen=True, kw_only=True)
class InContextConfig:
    """Settings of an :class:`InContextBackbone`; JSON-able.

    Args:
        base, base_settings: the backbone that sees, as for :func:`vla.models.backbones.build_backbone`.
        state_dim, action_dim: S and A.
        num_episodes, num_steps: K and F, the most that can be shown.
        num_latents: R, that each step's prefix becomes.
        num_layers: of gated cross-attention; the resampler has as many.
        num_heads: of both; divides the base's width.
    """

    base: str
    base_settings: Mapping[str, Any] = field(default_factory=dict)
    state_dim: int
    action_dim: int
    num_episodes: int = 4
    num_steps: int = 8
    num_latents: int = 8
    num_layers: int = 2
    num_heads: int = 4

    def __post_init__(self) -> None:
        if self.base == "in_context":
            raise ConfigError("The base of an in-context backbone cannot be one itself.")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> InContextConfig:
        """Strict: unknown keys raise UnknownNameError, missing ones ConfigError."""
        return from_settings(cls, "in-context", settings, _REQUIRED)


@dataclass(frozen=True, kw_only=True, eq=False)
class Demonstrations:
    """Example episodes, the same for every sample (B is 1) or each sample's own.

    images uint8 [B K F C h w 3], image_mask bool [B K F C] (None: all there), token_ids int64 [B K L],
    token_mask bool [B K L], embodiment_id int64 [B K], state float32 [B K F S] normalised, action float32
    [B K F A] normalised (the step's first action), step_mask bool [B K F] (which steps there are).
    """

    images: Tensor
    image_mask: Tensor | None
    token_ids: Tensor
    token_mask: Tensor
    embodiment_id: Tensor
    state: Tensor
    action: Tensor
    step_mask: Tensor


def _feed(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
    )


class CrossAttention(nn.Module):
    """Multi-head attention of queries [B Q D] over memory [B M D]; a row that may see nothing gets zeros."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(f"num_heads {num_heads} must divide the backbone's width {width}.")
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)

    def forward(self, x_BQD: Tensor, memory_BMD: Tensor, mask_BM: Tensor) -> Tensor:
        heads = (self.num_heads, -1)
        q = self.query(self.norm(x_BQD)).unflatten(-1, heads).transpose(1, 2)
        k, v = (y.unflatten(-1, heads).transpose(1, 2) for y in self.key_value(memory_BMD).chunk(2, -1))
        anything = mask_BM.any(1)[:, None, None, None]
        seen = mask_BM[:, None, None] | ~anything  # rows without memory attend anywhere and are zeroed below
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out((y * anything.to(y.dtype)).transpose(1, 2).flatten(2))


class PerceiverResampler(nn.Module):
    """Any number of tokens -> R latents, which attend over the tokens and themselves."""

    def __init__(self, width: int, num_latents: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(num_latents, width) * 0.02)
        self.attention = nn.ModuleList(CrossAttention(width, num_heads) for _ in range(num_layers))
        self.feed = nn.ModuleList(_feed(width) for _ in range(num_layers))
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x_NPD: Tensor, mask_NP: Tensor | None) -> Tensor:
        """[N P D], bool [N P] (None: all) -> [N R D]."""
        x_NPD = self.norm_in(x_NPD)
        mask_NP = x_NPD.new_ones(x_NPD.shape[:2], dtype=torch.bool) if mask_NP is None else mask_NP
        latents = self.latents.expand(len(x_NPD), -1, -1)
        mask = torch.cat([mask_NP, mask_NP.new_ones(latents.shape[:2])], dim=1)
        for attention, feed in zip(self.attention, self.feed, strict=True):
            latents = latents + attention(latents, torch.cat([x_NPD, latents], dim=1), mask)
            latents = latents + feed(latents)
        return self.norm_out(latents)


class GatedCrossAttention(nn.Module):
    """Cross-attention and feed-forward, each behind a tanh gate that starts closed."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention, self.feed = CrossAttention(width, num_heads), _feed(width)
        self.attention_gate, self.feed_gate = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x_BPD: Tensor, memory_BMD: Tensor, mask_BM: Tensor) -> Tensor:
        x_BPD = x_BPD + self.attention_gate.tanh() * self.attention(x_BPD, memory_BMD, mask_BM)
        return x_BPD + self.feed_gate.tanh() * self.feed(x_BPD)


class InContextBackbone(nn.Module):
    """A backbone that can be shown examples (see :class:`vla.models.backbones.Backbone`).

    ``show`` encodes examples once; every call after it reads them. Nothing shown: the base alone.
    """

    def __init__(self, config: InContextConfig) -> None:
        super().__init__()
        from vla.models.backbones import build_backbone

        self.config = config
        self.base: Any = build_backbone(config.base, config.base_settings)
        self.width: int = self.base.width
        sizes = (config.num_layers, config.num_heads)
        self.resampler = PerceiverResampler(self.width, config.num_latents, *sizes)
        self.deed = nn.Linear(config.state_dim + config.action_dim, self.width)
        self.episodes = nn.Embedding(config.num_episodes, self.width)
        self.steps = nn.Embedding(config.num_steps, self.width)
        self.layers = nn.ModuleList(
            GatedCrossAttention(self.width, config.num_heads) for _ in range(config.num_layers)
        )
        self._memory: tuple[Tensor, Tensor] | None = None

    @property
    def max_tokens(self) -> int:
        return self.base.max_tokens

    def tokenize(self, instructions: list[str]) -> Tokens:
        return self.base.tokenize(instructions)

    def thing_logits(self, keys: Tensor, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """The base's."""
        return self.base.thing_logits(keys, token_ids, token_mask)

    def show(self, demonstrations: Demonstrations | None) -> None:
        """Encode examples for the calls that follow (None: forget them). In training, call it every step."""
        self._memory = None if demonstrations is None else self.read(demonstrations)

    def read(self, shown: Demonstrations) -> tuple[Tensor, Tensor]:
        """Memory [B M D], latents and deed of each step after each other, and its mask bool [B M].

        Raises:
            ObservationError: more episodes or steps than the settings allow.
        """
        batch, episodes, steps = shown.step_mask.shape
        most = (self.config.num_episodes, self.config.num_steps)
        if episodes > most[0] or steps > most[1]:
            raise ObservationError(
                f"At most {most} episodes and steps can be shown, not {(episodes, steps)}."
            )
        count = batch * episodes * steps
        seen = self.base(
            shown.images.flatten(0, 2),
            None if shown.image_mask is None else shown.image_mask.flatten(0, 2),
            shown.token_ids.flatten(0, 1).repeat_interleave(steps, 0),
            shown.token_mask.flatten(0, 1).repeat_interleave(steps, 0),
            shown.embodiment_id.flatten().repeat_interleave(steps, 0),
        )
        latents_NRD = self.resampler(seen.features, seen.mask)
        deeds_N1D = self.deed(torch.cat([shown.state, shown.action], -1)).reshape(count, 1, -1)
        x = torch.cat([latents_NRD, deeds_N1D], dim=1).unflatten(0, (batch, episodes, steps))
        x = x + self.episodes.weight[:episodes, None, None] + self.steps.weight[:steps, None]
        mask = shown.step_mask[..., None].expand(*x.shape[:-1])
        return x.flatten(1, 3), mask.flatten(1)

    def forward(
        self,
        images: Tensor,
        image_mask: Tensor | None,
        token_ids: Tensor,
        token_mask: Tensor,
        embodiment_id: Tensor,
    ) -> PrefixFeatures:
        """As the base's; features [B P D] that have read the examples."""
        prefix = self.base(images, image_mask, token_ids, token_mask, embodiment_id)
        if self._memory is None:
            return prefix
        memory, mask = self._memory
        if len(memory) not in (1, len(images)):
            raise ObservationError(
                f"Examples for {len(memory)} samples were shown, the batch has {len(images)}."
            )
        memory, mask = memory.expand(len(images), -1, -1), mask.expand(len(images), -1)
        x_BPD = prefix.features
        for layer in self.layers:
            x_BPD = layer(x_BPD, memory, mask)
        if prefix.mask is not None:
            x_BPD = x_BPD.masked_fill(~prefix.mask[..., None], 0.0)
        return PrefixFeatures(x_BPD, prefix.mask, prefix.auxiliary, prefix.visual)
