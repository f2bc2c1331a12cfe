"""Processors of a checkpoint that has none: from statistics inside older weights, or from given ones."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vla.models.lerobot.config import ACTION, LerobotConfig, SmolVLASettings
from vla.models.lerobot.processors import POSTPROCESSOR, PREPROCESSOR, Pipeline, Step

_OLD = re.compile(
    r"^(?:un)?normalize_(?:inputs|targets|outputs)\.buffer_(?P<feature>.+)\.(?P<statistic>\w+)$"
)
_PALIGEMMA = "google/paligemma-3b-pt-224"
_EPS = 1e-8


def split_statistics(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights, and the normalisation buffers that lerobot kept among them before 0.4, named as today."""
    weights, statistics = {}, {}
    for name, value in tensors.items():
        old = _OLD.match(name)
        if old is None:
            weights[name] = value
        else:
            feature = old["feature"].replace("observation_images_", "observation.images.")
            feature = feature.replace("observation_state", "observation.state")
            statistics[f"{feature}.{old['statistic']}"] = value
    return weights, statistics


def pipelines(config: LerobotConfig, statistics: Mapping[str, Tensor]) -> tuple[Pipeline, Pipeline]:
    """The pipelines that lerobot 0.6.1 makes for such a policy.

    Args:
        statistics: ``observation.state.mean``, ``action.std`` ... as the policy's normalisation needs.

    Raises:
        StatisticsError: one that is needed is missing.
    """
    raw, smol = config.raw, isinstance(config, SmolVLASettings)
    features = {**raw["input_features"], ACTION: raw["output_features"][ACTION]}
    modes = {"eps": _EPS, "norm_map": dict(config.modes)}
    name = config.vlm_model_name if isinstance(config, SmolVLASettings) else _PALIGEMMA
    tokens = {
        "max_length": config.max_words,
        "task_key": "task",
        "padding_side": "right",
        "padding": raw.get("pad_language_to", "max_length"),
        "truncation": True,
        "tokenizer_name": name,
    }
    relative = {
        "enabled": raw.get("use_relative_actions", False),
        "exclude_joints": raw.get("relative_exclude_joints", []),
        "action_names": raw.get("action_feature_names"),
    }
    device = raw.get("device") or "cpu"

    def normaliser(place: int) -> Step:
        file = f"{PREPROCESSOR}_step_{place}_normalizer_processor.safetensors"
        values = {"eps": _EPS, "features": features, "norm_map": dict(config.modes)}
        return Step("normalizer_processor", values, dict(statistics), file)

    to_device = Step("device_processor", {"device": device, "float_dtype": None})
    start = (Step("rename_observations_processor", {"rename_map": {}}), Step("to_batch_processor", {}))
    tokenize = Step("tokenizer_processor", tokens)
    to_relative = Step("relative_actions_processor", relative)
    middle: tuple[Step, ...]
    match config.kind:
        case "smolvla":
            middle = (Step("smolvla_new_line_processor", {}), tokenize, to_device, normaliser(5))
        case "pi0":
            middle = (Step("pi0_new_line_processor", {}), tokenize, to_device, to_relative, normaliser(6))
        case "pi05":
            prompt = Step("pi05_prepare_state_tokenizer_processor_step", {})
            middle = (to_relative, normaliser(3), prompt, tokenize, to_device)
    file = f"{POSTPROCESSOR}_step_0_unnormalizer_processor.safetensors"
    back = {"eps": modes["eps"], "features": {ACTION: features[ACTION]}, "norm_map": modes["norm_map"]}
    after = (Step("unnormalizer_processor", back, dict(statistics), file),)
    if not smol:
        after = (*after, Step("absolute_actions_processor", {"enabled": relative["enabled"]}))
    after = (*after, Step("device_processor", {"device": "cpu", "float_dtype": None}))
    return Pipeline(PREPROCESSOR, start + middle), Pipeline(POSTPROCESSOR, after)
