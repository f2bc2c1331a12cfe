"""``config.json`` of a lerobot policy, read strictly: each key is known, each that computes is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vla.errors import CheckpointError, ConfigError, UnknownNameError

Kind = Literal["smolvla", "pi0", "pi05"]
KINDS: tuple[Kind, ...] = ("smolvla", "pi0", "pi05")
STATE, ACTION = "observation.state", "action"

#: Keys of lerobot 0.6.1 without which the network cannot be built, ...
_COMMON = frozenset(
    [
        "type",
        "n_obs_steps",
        "input_features",
        "output_features",
        "normalization_mapping",
        "chunk_size",
        "n_action_steps",
        "max_state_dim",
        "max_action_dim",
        "empty_cameras",
        "tokenizer_max_length",
        "min_period",
        "max_period",
    ]
)
_REQUIRED: dict[str, frozenset[str]] = {
    "smolvla": _COMMON
    | {
        "resize_imgs_with_padding",
        "adapt_to_pi_aloha",
        "use_delta_joint_actions_aloha",
        "num_steps",
        "vlm_model_name",
        "add_image_special_tokens",
        "attention_mode",
        "prefix_length",
        "pad_language_to",
        "num_expert_layers",
        "num_vlm_layers",
        "self_attn_every_n_layers",
        "expert_width_multiplier",
    },
    "pi0": _COMMON
    | {"paligemma_variant", "action_expert_variant", "dtype", "num_inference_steps", "image_resolution"},
}
_REQUIRED["pi05"] = _REQUIRED["pi0"]
#: ... and those about training, the hub and inference add-ons, which older versions did not all write.
_OPTIONAL = frozenset(
    [
        "device",
        "use_amp",
        "use_peft",
        "push_to_hub",
        "repo_id",
        "private",
        "tags",
        "license",
        "pretrained_path",
        "pretrained_revision",
        "optimizer_lr",
        "optimizer_betas",
        "optimizer_eps",
        "optimizer_weight_decay",
        "optimizer_grad_clip_norm",
        "scheduler_warmup_steps",
        "scheduler_decay_steps",
        "scheduler_decay_lr",
        "rtc_config",
        "compile_model",
        "compile_mode",
        "freeze_vision_encoder",
        "train_expert_only",
        "use_cache",
        "load_vlm_weights",
        "train_state_proj",
        "gradient_checkpointing",
        "use_relative_actions",
        "relative_exclude_joints",
        "action_feature_names",
        "time_sampling_beta_alpha",
        "time_sampling_beta_beta",
        "time_sampling_scale",
        "time_sampling_offset",
    ]
)


@dataclass(frozen=True, kw_only=True)
class LerobotConfig:
    """What the three kinds share.

    Args:
        kind: smolvla, pi0 or pi05.
        cameras: keys of the pictures, in the network's order; their own sizes do not matter.
        empty_cameras: how many of the cameras may be absent.
        state_dim, action_dim: of the robot; padded to max_state_dim and max_action_dim inside.
        chunk_size, execution_horizon: actions a chunk, and how many to execute before replanning.
        num_steps: of denoising.
        image_size: height and width that every picture is brought to, px; None: left as it is.
        modes: normalisation of VISUAL, STATE and ACTION.
        raw: the JSON as it was read, for writing it back.
    """

    kind: Kind
    cameras: tuple[str, ...]
    empty_cameras: int
    state_dim: int
    action_dim: int
    chunk_size: int
    execution_horizon: int
    max_state_dim: int
    max_action_dim: int
    num_steps: int
    min_period: float
    max_period: float
    max_words: int
    image_size: tuple[int, int] | None
    modes: Mapping[str, str]
    raw: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SmolVLASettings(LerobotConfig):
    """Of SmolVLA alone; see the keys of the same names in lerobot."""

    vlm_model_name: str
    num_vlm_layers: int
    self_attn_every_n_layers: int
    attention_mode: str
    expert_width_multiplier: float


@dataclass(frozen=True, kw_only=True)
class PiSettings(LerobotConfig):
    """Of pi0 and pi0.5. ``adaptive``: the time modulates the expert's norms (pi0.5)."""

    adaptive: bool


def parse_config(raw: Mapping[str, Any]) -> SmolVLASettings | PiSettings:
    """Read ``config.json``.

    Raises:
        UnknownNameError: another kind of policy, or a key that lerobot 0.6.1 does not have.
        CheckpointError: a key is missing or has a value that no such policy can have.
        ConfigError: an option that would change what is computed and is not supported here.
    """
    kind = str(raw.get("type"))
    if kind not in KINDS:
        raise UnknownNameError("type of lerobot policy", kind, KINDS)
    required = _REQUIRED[kind]
    for key in raw:
        if key not in required | _OPTIONAL:
            raise UnknownNameError(f"key in a {kind} config.json", key, required | _OPTIONAL)
    missing = sorted(required - set(raw))
    if missing:
        raise CheckpointError(f"config.json of a {kind} policy lacks {missing}.")
    _refuse(raw)
    try:
        return _read(kind, raw)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"config.json of a {kind} policy is damaged: {error!r}.") from error


def _read(kind: str, raw: Mapping[str, Any]) -> SmolVLASettings | PiSettings:
    inputs, outputs = raw["input_features"], raw["output_features"]
    if ACTION not in outputs:
        raise CheckpointError(f"config.json names no {ACTION!r} among its outputs: {sorted(outputs)}.")
    cameras = tuple(key for key, feature in inputs.items() if feature["type"] == "VISUAL")
    if not cameras:
        raise CheckpointError(f"config.json names no camera among its inputs: {sorted(inputs)}.")
    state = inputs.get(STATE, {"shape": [raw["max_state_dim"]]})
    smol = kind == "smolvla"
    size = raw["resize_imgs_with_padding"] if smol else raw["image_resolution"]
    common: dict[str, Any] = {
        "kind": kind,
        "cameras": cameras,
        "empty_cameras": int(raw["empty_cameras"]),
        "state_dim": int(state["shape"][0]),
        "action_dim": int(outputs[ACTION]["shape"][0]),
        "execution_horizon": int(raw["n_action_steps"]),
        "num_steps": int(raw["num_steps" if smol else "num_inference_steps"]),
        "min_period": float(raw["min_period"]),
        "max_period": float(raw["max_period"]),
        "max_words": int(raw["tokenizer_max_length"]),
        # SmolVLA writes (width, height)
        "image_size": None if size is None else (int(size[1]), int(size[0])) if smol else tuple(size),
        "modes": dict(raw["normalization_mapping"]),
        "raw": json.loads(json.dumps(raw)),
        **{key: int(raw[key]) for key in ("chunk_size", "max_state_dim", "max_action_dim")},
    }
    if not smol:
        return PiSettings(adaptive=kind == "pi05", **common)
    return SmolVLASettings(
        vlm_model_name=str(raw["vlm_model_name"]),
        num_vlm_layers=int(raw["num_vlm_layers"]),
        self_attn_every_n_layers=int(raw["self_attn_every_n_layers"]),
        attention_mode=str(raw["attention_mode"]),
        expert_width_multiplier=float(raw["expert_width_multiplier"]),
        **common,
    )


def _refuse(raw: Mapping[str, Any]) -> None:
    """Options that nobody has checked here would give other actions in silence."""
    rtc = raw.get("rtc_config") or {}
    experts, layers = raw.get("num_expert_layers", -1), raw.get("num_vlm_layers", -1)
    refused = {
        "use_peft": raw.get("use_peft", False),
        "adapt_to_pi_aloha": raw.get("adapt_to_pi_aloha", False),
        "use_delta_joint_actions_aloha": raw.get("use_delta_joint_actions_aloha", False),
        "add_image_special_tokens": raw.get("add_image_special_tokens", False),
        "rtc_config.enabled": rtc.get("enabled", False),
        "n_obs_steps other than 1": raw["n_obs_steps"] != 1,
        "num_expert_layers other than num_vlm_layers": experts > 0 and experts != layers,
        "attention_mode other than cross_attn and self_attn": raw.get("attention_mode", "cross_attn")
        not in ("cross_attn", "self_attn"),
    }
    found = [name for name, there in refused.items() if there]
    if found:
        raise ConfigError(
            f"This {raw['type']} policy uses {', '.join(found)}, which is not reproduced here: run it with "
            "lerobot itself, or save it there without (a PEFT adapter: merge it first)."
        )
