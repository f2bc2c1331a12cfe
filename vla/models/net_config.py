"""Everything that the policy network is built from, as one frozen, JSON-able value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vla import spaces
from vla.errors import ConfigError, UnknownNameError
from vla.models.heads import HEAD_SETTINGS
from vla.models.projectors import RESAMPLERS

#: State that every arm has and that says where the tool is; joint angles are left out because a net
#: that has them learns each arm by heart.
DEFAULT_STATE_SLOTS = (
    "arm0.tcp_position",
    "arm0.tcp_yaw",
    "arm0.tcp_error",
    "arm0.gripper_opening",
    "arm0.gripper_command",
)


@dataclass(frozen=True, kw_only=True)
class PolicyNetConfig:
    """Everything needed to build the network; JSON-able.

    Args:
        action_index: places in the padded action vector that the heads predict.
        backbone, backbone_settings: see :func:`vla.models.backbones.build_backbone`.
        compression, keep: of the visual tokens, before the projector (``attention``: before the trunk); see
            ``vla.models.tokens``.
        projector, num_latents, num_projector_layers: see :func:`vla.models.projectors.build_projector`.
        width: D of fusion and heads.
        num_fusion_blocks, num_heads, feed_ratio: of the trunk that joins state and prefix.
        state_slots: names in ``vla.spaces.STATE_SLOTS`` that the net may see.
        heads: all are trained, with the sum of their losses; the first is the default.
        horizon, num_head_blocks, num_noise, head_block: see :class:`vla.models.heads.HeadConfig`.
        locate_by_sight: estimate where target and goal are from the backbone's keypoint tokens and tell the
            heads, instead of from the state token alone.
        localisation_weight, keypoint_weight, things_weight: of the auxiliary losses.
        head_settings: further arguments of ``HeadConfig`` (those of ``HEAD_SETTINGS``).
        history: this many earlier states and commanded actions are told to the heads.
        reuse: at inference, what did not move is not looked at again (``vla.models.reuse``); how much counts
            as moved follows from ``keep``.
        insulate: heads whose loss stops at what they read: it teaches neither trunk, projector nor backbone
            (knowledge insulation, arXiv:2505.23705). ``backbone``: no loss of actions or places reaches the
            backbone, its losses of looking do (keypoints, things, and those of co-training); projector and
            trunk learn.
        state_dropout: share of training samples whose whole state is hidden.
    """

    action_index: tuple[int, ...]
    backbone: str = "tiny"
    backbone_settings: Mapping[str, Any] = field(default_factory=dict)
    compression: str = "none"
    keep: float = 1.0
    projector: str = "linear"
    num_latents: int = 32
    num_projector_layers: int = 2
    width: int = 128
    num_fusion_blocks: int = 2
    num_heads: int = 4
    feed_ratio: int = 2
    state_slots: tuple[str, ...] = DEFAULT_STATE_SLOTS
    heads: tuple[str, ...] = ("flow", "regression")
    horizon: int = 8
    num_head_blocks: int = 2
    num_noise: int = 4
    head_block: str = "sequential"
    head_settings: Mapping[str, Any] = field(default_factory=dict)
    history: int = 0
    reuse: bool = False
    insulate: tuple[str, ...] = ()
    locate_by_sight: bool = False
    localisation_weight: float = 1.0
    keypoint_weight: float = 0.3
    things_weight: float = 0.0
    state_dropout: float = 0.3

    def __post_init__(self) -> None:
        for slot in self.state_slots:
            if slot not in spaces.STATE_SLOTS:
                raise UnknownNameError("state slot", slot, spaces.STATE_SLOTS)
        if not self.heads or not self.action_index:
            raise ConfigError(f"A policy needs a head and actions: {self.heads}, {self.action_index}.")
        if not set(self.action_index) <= set(range(spaces.ACTION_DIM)):
            raise ConfigError(f"Action places must lie in 0..{spaces.ACTION_DIM - 1}: {self.action_index}.")
        for key in self.head_settings:
            if key not in HEAD_SETTINGS:
                raise UnknownNameError("head setting", key, HEAD_SETTINGS)
        for name in self.insulate:
            if name not in (*self.heads, "backbone"):
                raise UnknownNameError("head to insulate", name, (*self.heads, "backbone"))
        if self.compression == "attention" and (self.num_fusion_blocks < 1 or self.projector in RESAMPLERS):
            raise ConfigError(
                "compression='attention' ranks pictures' tokens by what the trunk's first block looks at: it "
                f"needs a trunk (num_fusion_blocks is {self.num_fusion_blocks}) and a projector that keeps "
                f"tokens, linear or mlp (projector is {self.projector!r}). 'instruction' needs neither."
            )
        if self.history < 0:
            raise ConfigError(f"history counts earlier moments, 0 or more: {self.history}.")

    @property
    def state_index(self) -> tuple[int, ...]:
        """Places in the padded state vector that the net sees."""
        slots = [spaces.STATE_SLOTS[name] for name in self.state_slots]
        return tuple(i for slot in slots for i in range(slot.offset, slot.offset + slot.size))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PolicyNetConfig:
        """Strict inverse of :meth:`to_json`."""
        known = [f.name for f in fields(cls)]
        for key in data:
            if key not in known:
                raise UnknownNameError("policy network setting", key, known)
        lists = ("action_index", "state_slots", "heads", "insulate")
        values: dict[str, Any] = {key: tuple(v) if key in lists else v for key, v in data.items()}
        return cls(**values)
