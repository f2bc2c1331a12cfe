"""Checkpoints in lerobot's format, written without any of our code: random weights under lerobot's own names.

``data/`` holds config.json of three policies that lerobot 0.6.1 saved, and the names and shapes of their
tensors. The numbers come from a generator.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

DATA = Path(__file__).parent / "data"
KINDS = ("smolvla", "pi0", "pi05")
VISION_HEADS = {"smolvla": None, "pi0": 4, "pi05": 4}  # of the tiny vision towers
STATISTICS = {
    "MEAN_STD": {"mean": 0.5, "std": 2.0},
    "QUANTILES": {"q01": -1.5, "q99": 2.5},
}
WORDS = [
    "<pad>",
    "<unk>",
    "pick",
    "up",
    "push",
    "the",
    "red",
    "blue",
    "cube",
    "Task",
    ":",
    ",",
    "State",
    ";",
    "Action",
    "0",
    "1",
    "127",
    "128",
    "200",
    "255",
    "-",
]


def config(kind: str) -> dict[str, Any]:
    return json.loads((DATA / f"{kind}_config.json").read_text())


def weights(kind: str, seed: int = 0) -> dict[str, Tensor]:
    shapes: dict[str, list[int]] = json.loads((DATA / "shapes.json").read_text())[kind]
    rng = np.random.default_rng(seed)
    found = {name: torch.from_numpy(0.1 * rng.standard_normal(s, np.float32)) for name, s in shapes.items()}
    for name, value in found.items():
        if kind == "smolvla" and name.endswith("norm.weight"):  # Gemma adds the 1 itself
            found[name] = value + 1.0
    return found


def statistics(kind: str) -> dict[str, Tensor]:
    mode = config(kind)["normalization_mapping"]["ACTION"]
    ramp = torch.arange(6) / 10
    return {
        f"{feature}.{name}": torch.full((6,), value) + ramp * (name in ("mean", "q01"))
        for feature in ("action", "observation.state")
        for name, value in STATISTICS[mode].items()
    }


def pipelines(kind: str) -> dict[str, list[dict[str, Any]]]:
    """The steps that lerobot 0.6.1 writes for each kind, in its order."""
    made = config(kind)
    features = {**made["input_features"], **made["output_features"]}
    normal = {"eps": 1e-8, "features": features, "norm_map": made["normalization_mapping"]}
    tokens = {
        "max_length": made["tokenizer_max_length"],
        "task_key": "task",
        "padding_side": "right",
        "padding": "longest" if kind == "smolvla" else "max_length",
        "truncation": True,
        "tokenizer_name": "vlm_tiny" if kind == "smolvla" else "google/paligemma-3b-pt-224",
    }
    to_device = ("device_processor", {"device": "cpu", "float_dtype": None})
    relative = ("relative_actions_processor", {"enabled": False, "exclude_joints": [], "action_names": None})
    start = [("rename_observations_processor", {"rename_map": {}}), ("to_batch_processor", {})]
    tokenize, normalise = ("tokenizer_processor", tokens), ("normalizer_processor", normal)
    middle = {
        "smolvla": [("smolvla_new_line_processor", {}), tokenize, to_device, normalise],
        "pi0": [("pi0_new_line_processor", {}), tokenize, to_device, relative, normalise],
        "pi05": [
            relative,
            normalise,
            ("pi05_prepare_state_tokenizer_processor_step", {}),
            tokenize,
            to_device,
        ],
    }[kind]
    back = {**normal, "features": {"action": features["action"]}}
    absolute = [] if kind == "smolvla" else [("absolute_actions_processor", {"enabled": False})]
    after = [("unnormalizer_processor", back), *absolute, to_device]
    return {
        "policy_preprocessor": _entries(start + middle, "pre"),
        "policy_postprocessor": _entries(after, "post"),
    }


def _entries(steps: list[tuple[str, dict[str, Any]]], side: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = [{"registry_name": name, "config": made} for name, made in steps]
    for i, entry in enumerate(entries):
        if "normalizer" in entry["registry_name"]:
            entry["state_file"] = f"policy_{side}processor_step_{i}_{entry['registry_name']}.safetensors"
    return entries


def write(kind: str, directory: Path, *, processors: bool = True, **changes: Any) -> Path:
    """``changes``: keys of config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config(kind) | changes, indent=4))
    save_file(weights(kind), directory / "model.safetensors")
    if kind == "smolvla":
        write_vlm(directory / "vlm_tiny")
    if processors:
        for name, steps in pipelines(kind).items():
            (directory / f"{name}.json").write_text(json.dumps({"name": name, "steps": steps}, indent=2))
            for step in steps:
                if "state_file" in step:
                    save_file(statistics(kind), directory / step["state_file"])
    return directory


def write_vlm(folder: Path) -> Path:
    """Sizes and a tokenizer that knows a few words."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text((DATA / "vlm_config.json").read_text())
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(folder / "tokenizer.json"))
    made = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(made))
    return folder


def batch(seed: int = 1, size: int = 80) -> dict[str, Any]:
    """Two raw observations with actions; pictures that need resizing."""
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape, np.float32))

    return {
        "observation.state": numbers(2, 6),
        "observation.images.cam0": torch.from_numpy(rng.random((2, 3, size, size), np.float32)),
        "observation.images.cam1": torch.from_numpy(rng.random((2, 3, size // 2, size), np.float32)),
        "task": ["pick up the red cube", "push the blue cube up up"],
    }


def noise(kind: str, seed: int = 2) -> Tensor:
    made = config(kind)
    shape = (2, made["chunk_size"], made["max_action_dim"])
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))
