"""The network that a recipe asks for, sized to the data: words, arms, action entries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vla.embodiment import Embodiment
from vla.errors import ConfigError
from vla.models.backbones import FROM_SCRATCH
from vla.models.heads import HeadConfig
from vla.models.net_config import PolicyNetConfig
from vla.train.config import ModelConfig, TrainConfig
from vla.train.vlm import vlm_settings, with_examples


def network_config(
    config: TrainConfig, embodiments: dict[str, Embodiment], vocabulary: list[str]
) -> PolicyNetConfig:
    """The network that fits this data: its words, its arms, the union of their action entries."""
    model, active = config.model, sorted({int(i) for arm in embodiments.values() for i in arm.action_index})
    tiny = model.backbone in FROM_SCRATCH
    if tiny and model.vlm is not None:
        raise ConfigError(
            "model.vlm is for pretrained backbones: name one in model.backbone ('auto' reads its kind)."
        )
    names = sorted(embodiments)
    network = PolicyNetConfig(
        action_index=tuple(active),
        backbone=model.backbone,
        backbone_settings=_tiny_settings(config, names, vocabulary) if tiny else vlm_settings(config, names),
        projector=model.projector,
        width=model.width,
        num_fusion_blocks=model.num_fusion_blocks,
        num_heads=model.num_heads,
        feed_ratio=model.feed_ratio,
        state_slots=model.state_slots,
        heads=model.heads,
        horizon=model.horizon,
        num_head_blocks=model.num_head_blocks,
        num_noise=model.num_noise,
        head_block=model.head_block,
        compression=model.compression,
        keep=model.keep,
        num_latents=model.num_latents,
        num_projector_layers=model.num_projector_layers,
        history=model.history,
        reuse=model.reuse,
        insulate=model.insulate,
        head_settings=_head_settings(model),
        locate_by_sight=model.locate_by_sight,
        localisation_weight=model.localisation_weight,
        keypoint_weight=model.keypoint_weight,
        things_weight=model.things_weight,
        state_dropout=model.state_dropout,
    )
    if model.examples is None:
        return network
    sizes = {"state_dim": len(network.state_index), "action_dim": len(active)}
    seen = with_examples(model.examples, network.backbone, network.backbone_settings, **sizes)
    return replace(network, backbone="in_context", backbone_settings=seen)


def _tiny_settings(config: TrainConfig, embodiments: list[str], vocabulary: list[str]) -> dict[str, Any]:
    model = config.model
    return {
        "vocabulary": vocabulary,
        "embodiments": embodiments,
        "camera_roles": list(config.data.camera_roles),
        "image_size": config.data.image_size,
        "width": model.width,
        "num_queries": model.num_queries,
        "num_film_layers": model.num_film_layers,
        "num_frequencies": model.num_frequencies,
        "find_things": model.things_weight > 0,
        "num_heads": model.num_heads,
        "feed_ratio": model.feed_ratio,
    }


def _head_settings(model: ModelConfig) -> dict[str, Any]:
    """Those that differ from the defaults."""
    plain, given = HeadConfig(), {
        "schedule": model.flow_schedule,
        "prefix_delay": model.flow_prefix_delay,
        "prediction": model.diffusion_prediction,
        "num_bins": model.num_bins,
        "bin_limit": model.bin_limit,
        "latent_dim": model.latent_dim,
        "kl_weight": model.kl_weight,
    }  # fmt: skip
    return {key: value for key, value in given.items() if value != getattr(plain, key)}
