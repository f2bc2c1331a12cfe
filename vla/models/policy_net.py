"""The whole policy network on one page.

    images, words, embodiment ─► backbone ─► projector ─┐
    state slots + mask ─► state token ──────────────────┴► fusion blocks ─► prefix, state ─► heads ─► chunk
                                                                        └► where are target and goal?

Shapes: B batch, C cameras, L words, P prefix tokens, D width, S used state entries, H horizon,
A active action entries (those that some training embodiment has; the others are zero).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from vla import spaces
from vla.errors import ConfigError, IncompatibleError, ObservationError, UnknownNameError
from vla.models.auxiliary import Locator, keypoint_loss, localisation_loss
from vla.models.backbones import PrefixFeatures, build_backbone
from vla.models.heads import HeadConfig, build_head
from vla.models.heads.denoiser import Denoiser
from vla.models.heads.guidance import Continuation
from vla.models.heads.history import History, Past
from vla.models.layers import EncoderBlock
from vla.models.net_config import PolicyNetConfig
from vla.models.projectors import build_projector, project
from vla.models.reuse import FrameReuse, PatchReuse
from vla.models.tokens import AttendedTokens, build_compressor


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyInputs:
    """What the network sees.

    images uint8 [B C h w 3], image_mask bool [B C] (None: all there), token_ids int64 [B L],
    token_mask bool [B L], embodiment_id int64 [B], state float32 [B STATE_DIM] normalised,
    state_mask bool [B STATE_DIM], past: earlier moments, for a network with history.
    """

    images: Tensor
    image_mask: Tensor | None
    token_ids: Tensor
    token_mask: Tensor
    embodiment_id: Tensor
    state: Tensor
    state_mask: Tensor
    past: Past | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Things:
    """What is in the pictures, by name: U different names in the batch, M places for names a sample.

    token_ids int64 [U L], token_mask bool [U L]; index int64 [B M] into the names, -1 none; uv float32
    [B C M 2], x and y in [-1, 1], NaN where it is not in the picture.
    """

    token_ids: Tensor
    token_mask: Tensor
    index: Tensor
    uv: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyLabels:
    """What it shall learn.

    actions float32 [B H ACTION_DIM] normalised, action_mask bool of that shape, location_dm float32
    [B 2 3] (target and goal relative to the tool, dm, world axes, NaN unknown), keypoint_uv float32
    [B C 2 2] (camera, target and goal, x and y in [-1, 1], NaN unknown), things (None: unknown).
    """

    actions: Tensor
    action_mask: Tensor
    location_dm: Tensor
    keypoint_uv: Tensor
    things: Things | None = None


@dataclass(frozen=True, eq=False)
class Encoded:
    """One encoded observation: prefix, state tokens [B 1 D] (with ``locate_by_sight`` a second one, of the
    estimates), where target and goal seem to be [B 2 3], dm.
    """

    prefix: PrefixFeatures
    state: Tensor
    location_dm: Tensor


class PolicyNet(nn.Module):
    """Backbone, projector, fusion trunk and heads."""

    action_index: Tensor
    state_index: Tensor

    def __init__(self, config: PolicyNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.backbone = build_backbone(config.backbone, config.backbone_settings)
        keep = 1.0 if config.reuse and config.compression == "none" else config.keep
        self.compress = build_compressor(config.compression, self.backbone.width, keep)
        self.projector = build_projector(
            config.projector,
            self.backbone.width,
            width,
            num_latents=config.num_latents,
            num_layers=config.num_projector_layers,
            num_heads=config.num_heads,
        )
        self.state_in = nn.Sequential(
            nn.Linear(2 * len(config.state_index), width), nn.GELU(), nn.Linear(width, width)
        )
        self.fusion = nn.ModuleList(
            EncoderBlock(width, config.num_heads, config.feed_ratio) for _ in range(config.num_fusion_blocks)
        )
        if config.locate_by_sight:
            seeing = config.backbone_settings.get("base_settings", config.backbone_settings)
            cameras = len(seeing["camera_roles"])
            self.locate: nn.Module = Locator(width, cameras, self.backbone.width)
        else:
            self.locate = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 6))
        head = HeadConfig(
            width=width,
            horizon=config.horizon,
            action_dim=len(config.action_index),
            num_blocks=config.num_head_blocks,
            num_heads=config.num_heads,
            feed_ratio=config.feed_ratio,
            num_noise=config.num_noise,
            block=config.head_block,
            **config.head_settings,
        )
        self.heads = nn.ModuleDict({name: build_head(name, head) for name in config.heads})
        sizes = (len(config.state_index), len(config.action_index))
        self.history = History(*sizes, width, config.history) if config.history else None
        self.register_buffer("action_index", torch.tensor(config.action_index), persistent=False)
        self.register_buffer("state_index", torch.tensor(config.state_index), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of states and actions, and of all that follows the backbone, which may compute in another one."""
        return next(self.state_in.parameters()).dtype

    def encode(
        self,
        inputs: PolicyInputs,
        keep_state: Tensor | None = None,
        *,
        reuse: FrameReuse | PatchReuse | None = None,
    ) -> Encoded:
        """Once an observation. ``keep_state`` bool [B]: false hides the whole state of a sample.

        ``reuse``: at inference, what remembers the last frame.
        """
        look = self.backbone if reuse is None else partial(reuse, self.backbone)
        seen = look(
            inputs.images, inputs.image_mask, inputs.token_ids, inputs.token_mask, inputs.embodiment_id
        )
        if "backbone" in self.config.insulate:
            seen = _insulated(seen)
        attended = self.compress if isinstance(self.compress, AttendedTokens) else None
        if self.compress is not None and attended is None:
            seen = self.compress(seen)
        seen = project(self.projector, seen)
        there = inputs.state_mask[:, self.state_index]
        if keep_state is not None:
            there = there & keep_state[:, None]
        there = there.to(inputs.state.dtype)
        state_BS = inputs.state[:, self.state_index] * there
        state_B1D = self.state_in(torch.cat([state_BS, there], dim=-1))[:, None]
        if attended is not None:
            seen = attended(seen, state_B1D, self.fusion[0])  # type: ignore[arg-type]
        tokens = torch.cat([state_B1D, seen.features], dim=1)
        mask = seen.mask
        if mask is not None:
            mask = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)
        for block in self.fusion:
            tokens = block(tokens, mask)
        state_BSD, features = tokens[:, :1], tokens[:, 1:]
        if self.config.locate_by_sight:
            sight = seen.auxiliary.get("keypoint_tokens")
            if sight is None:
                raise ConfigError(
                    f"locate_by_sight needs keypoint tokens; {self.config.backbone!r} has none."
                )
            location, told = self.locate(state_BSD[:, 0], sight, inputs.image_mask)
            state_BSD = torch.cat([state_BSD, told], dim=1)
        else:
            location = self.locate(state_BSD[:, 0]).unflatten(-1, (2, 3))
        return Encoded(PrefixFeatures(features, seen.mask, seen.auxiliary), state_BSD, location)

    def told(self, encoded: Encoded, inputs: PolicyInputs) -> Tensor:
        """What a head reads beside the prefix, [B S D]: tokens of the state, then those of the past."""
        remembered = self._remembered(inputs)
        return encoded.state if remembered is None else torch.cat([encoded.state, remembered], dim=1)

    def _remembered(self, inputs: PolicyInputs, keep_state: Tensor | None = None) -> Tensor | None:
        """Tokens [B K D] of the past, or None; a sample whose state is hidden has none that may be read."""
        past = inputs.past
        if self.history is None:
            if past is not None:
                raise ObservationError("This network has no history (PolicyNetConfig.history is 0).")
            return None
        if past is None:
            raise ObservationError(
                f"This network has a history of {self.config.history} moments: give `past`, and say "
                "in `past.there` which of them exist."
            )
        there = past.there if keep_state is None else past.there & keep_state[:, None]
        known = inputs.state_mask[:, self.state_index]
        return self.history(
            past.state[..., self.state_index], known, past.action[..., self.action_index], there
        )

    def loss(
        self,
        inputs: PolicyInputs,
        labels: PolicyLabels,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Total to descend, and its detached parts by name (``location_dm``: the estimates, [B 2 3])."""
        batch, device = len(inputs.state), inputs.state.device
        keep = torch.rand(batch, generator=generator, device=device) >= self.config.state_dropout
        encoded = self.encode(inputs, keep)
        mask = labels.action_mask[..., self.action_index]
        actions = labels.actions[..., self.action_index].where(mask, 0.0)  # nothing masked reaches a head
        rows = _acting(mask)  # samples without an action to learn cost the heads nothing
        prefix, state = encoded.prefix.take(rows), encoded.state[rows]
        remembered = self._remembered(inputs, keep)
        losses = {}
        for name in self.config.heads:
            apart = name in self.config.insulate
            read, told = (prefix.detach(), state.detach()) if apart else (prefix, state)
            if remembered is not None:
                told = torch.cat([told, remembered[rows]], dim=1)
            losses[name] = self.heads[name].loss(read, told, actions[rows], mask[rows], generator)  # type: ignore[operator]
        total = torch.stack(list(losses.values())).sum()
        losses["localisation"] = localisation_loss(encoded.location_dm, labels.location_dm)
        total = total + self.config.localisation_weight * losses["localisation"]
        logits = encoded.prefix.auxiliary.get("keypoint_logits")
        if logits is not None:
            losses["keypoint"] = keypoint_loss(logits, labels.keypoint_uv, inputs.image_mask)
            total = total + self.config.keypoint_weight * losses["keypoint"]
        keys = encoded.prefix.auxiliary.get("thing_keys")
        if keys is not None and labels.things is not None:
            losses["things"] = self._things_loss(keys, labels.things, inputs.image_mask)
            total = total + self.config.things_weight * losses["things"]
        parts = {name: value.detach() for name, value in losses.items()}
        return total, {**parts, "location_dm": encoded.location_dm.detach()}

    def _things_loss(self, keys: Tensor, things: Things, image_mask: Tensor | None) -> Tensor:
        logits_BCUN = self.backbone.thing_logits(keys, things.token_ids, things.token_mask)  # type: ignore[operator]
        pick = things.index.clamp(min=0)[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[2])
        uv = things.uv.where((things.index >= 0)[:, None, :, None], torch.nan)
        return keypoint_loss(logits_BCUN.gather(2, pick), uv, image_mask)

    def sample(
        self,
        inputs: PolicyInputs,
        *,
        head: str | None = None,
        num_steps: int = 5,
        generator: torch.Generator | None = None,
        reuse: FrameReuse | PatchReuse | None = None,
        plan: Continuation | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Normalised chunk [B H ACTION_DIM] and location estimates [B 2 3] (dm, relative to the tool).

        ``reuse`` holds state between calls; whoever runs the policy resets it when an episode begins.
        ``plan``: what the chunk shall continue (entries of ``action_index``); heads that denoise can.

        Raises:
            IncompatibleError: a plan, and a head that makes its chunk at once.
        """
        name = head or self.config.heads[0]
        if name not in self.heads:
            raise UnknownNameError("action head of this policy", name, self.heads)
        encoded = self.encode(inputs, reuse=reuse)
        state = self.told(encoded, inputs)
        if plan is None:
            active = self.heads[name].sample(encoded.prefix, state, num_steps=num_steps, generator=generator)  # type: ignore[operator]
        else:
            active = denoiser(self, name).continued(
                encoded.prefix, state, plan, num_steps=num_steps, generator=generator
            )
        chunk = active.new_zeros(*active.shape[:-1], spaces.ACTION_DIM)
        chunk[..., self.action_index] = active
        return chunk, encoded.location_dm


def denoiser(net: PolicyNet, head: str) -> Denoiser:
    """The head of that name; :class:`IncompatibleError` where its chunk cannot continue another one."""
    found = net.heads[head]
    if not isinstance(found, Denoiser):
        able = [name for name, other in net.heads.items() if isinstance(other, Denoiser)]
        instead = f"choose --head {able[0]}" if able else "train one of those"
        reason = f"it makes its chunk at once; heads that denoise (flow, diffusion) continue one: {instead}"
        raise IncompatibleError(f"action head {head!r}", "real-time chunking", [reason])
    return found


def _insulated(seen: PrefixFeatures) -> PrefixFeatures:
    """The same to read, but whoever reads it does not teach the backbone; its own logits still do."""
    read = {name: value.detach() for name, value in seen.auxiliary.items() if name == "keypoint_tokens"}
    return replace(seen, features=seen.features.detach(), auxiliary={**seen.auxiliary, **read})


def _acting(mask_BHA: Tensor) -> Tensor:
    """int64 [n], n >= 1: rows with an action that counts."""
    rows = mask_BHA.flatten(1).any(1).nonzero()[:, 0]
    return rows if len(rows) else rows.new_zeros(1)
