"""Which vision-language model a SmolVLA checkpoint stands on, and which tokenizer, without asking a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, SmolVLMConfig

from vla.errors import CheckpointError
from vla.files import read_json
from vla.models.lerobot.config import LerobotConfig, SmolVLASettings
from vla.models.lerobot.processors import Pipeline

#: Sizes of lerobot's default, as its weights show and its model card says.
_KNOWN: dict[str, dict[str, Any]] = {
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": {
        "scale_factor": 4,
        "text_config": {
            "model_type": "llama",
            "hidden_size": 960,
            "intermediate_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "head_dim": 64,
            "vocab_size": 49280,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
        },
        "vision_config": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 512,
            "patch_size": 16,
            "layer_norm_eps": 1e-6,
        },
    }
}


def vlm_sizes(name: str, directory: Path, given: str | Path | None = None) -> SmolVLMConfig:
    """Sizes of the model ``name``: from ``given``, a folder beside the checkpoint, a path, or those known.

    Raises:
        CheckpointError: it is nowhere, or is not a SmolVLM.
    """
    folder = _folder(name, directory, given)
    if folder is not None:
        data = read_json(folder / "config.json", CheckpointError, "Give the folder of a SmolVLM (vlm=).")
        if data.get("model_type") != "smolvlm":
            raise CheckpointError(
                f"{folder} holds a {data.get('model_type')!r}; SmolVLA stands on a 'smolvlm'."
            )
    elif name in _KNOWN:
        data = {**_KNOWN[name], "model_type": "smolvlm"}
    else:
        raise CheckpointError(
            f"This SmolVLA policy stands on {name!r}, which is not a folder beside it nor one of "
            f"{sorted(_KNOWN)}: give the folder with that model's config.json (vlm=)."
        )
    config = SmolVLMConfig.from_dict(data)
    text: Any = config.text_config
    if getattr(text, "attention_bias", False) or getattr(text, "mlp_bias", False):
        raise CheckpointError(f"The language model of {name!r} has biases; SmolVLA's has none.")
    return config


def load_tokenizer(
    config: LerobotConfig, pre: Pipeline | None, directory: Path, given: str | Path | None = None
) -> Any:
    """The tokenizer that the preprocessor names, or None where it is not on this machine.

    Raises:
        CheckpointError: ``given`` holds no tokenizer.
    """
    step = pre.find("tokenizer_processor") if pre is not None else None
    named = step.config.get("tokenizer_name") if step is not None else None
    name = str(named or (config.vlm_model_name if isinstance(config, SmolVLASettings) else ""))
    folder = _folder(name, directory, given)
    try:
        if folder is not None:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if name:
            return AutoTokenizer.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        if given is not None:
            raise CheckpointError(f"No tokenizer in {folder}: {error}") from error
    return None


def _folder(name: str, directory: Path, given: str | Path | None) -> Path | None:
    if given is not None:
        if not Path(given).is_dir():
            raise CheckpointError(f"{given} is not a folder.")
        return Path(given)
    return next((path for path in (directory / name, Path(name)) if name and path.is_dir()), None)
