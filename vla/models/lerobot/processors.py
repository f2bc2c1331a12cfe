"""lerobot's pre- and post-processor files: read strictly, applied in their order, written back as they were.

A pipeline is a JSON file of named steps and a safetensors file for each step that has tensors. Statistics
that a step needs and does not have raise when it is read; lerobot passes such values through unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vla.errors import CheckpointError, ObservationError, StatisticsError, UnknownNameError
from vla.files import read_json
from vla.models.lerobot.config import ACTION, STATE

PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor", "policy_postprocessor"
TASK, TOKENS, TOKEN_MASK = "task", "observation.language.tokens", "observation.language.attention_mask"
TRUNCATED = "task_truncated"  # bool a sample: the instruction did not fit
_RELATIVE = "relative_to"  # state that actions are relative to, already masked

#: Config keys of each step: those it must have, those it may have.
_NORMAL = (frozenset({"eps", "features", "norm_map"}), frozenset({"normalize_observation_keys"}))
_NOTHING: frozenset[str] = frozenset()
STEPS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "rename_observations_processor": (frozenset({"rename_map"}), _NOTHING),
    "to_batch_processor": (_NOTHING, _NOTHING),
    "smolvla_new_line_processor": (_NOTHING, _NOTHING),
    "pi0_new_line_processor": (_NOTHING, _NOTHING),
    "pi05_prepare_state_tokenizer_processor_step": (_NOTHING, frozenset({"max_state_dim", "task_key"})),
    "tokenizer_processor": (
        frozenset({"max_length", "task_key", "padding_side", "padding", "truncation"}),
        frozenset({"tokenizer_name"}),
    ),
    "device_processor": (frozenset({"device", "float_dtype"}), _NOTHING),
    "relative_actions_processor": (frozenset({"enabled", "exclude_joints", "action_names"}), _NOTHING),
    "absolute_actions_processor": (frozenset({"enabled"}), _NOTHING),
    "normalizer_processor": _NORMAL,
    "unnormalizer_processor": _NORMAL,
}
#: Statistics that each mode reads: offset-like and scale-like.
MODES = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}


@dataclass(frozen=True, eq=False)
class Step:
    """One step: its registered name, its configuration, its tensors and the file they came from."""

    name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    file: str | None = None

    def __post_init__(self) -> None:
        if self.name not in STEPS:
            raise UnknownNameError("processor step of a lerobot policy", self.name, STEPS)
        required, optional = STEPS[self.name]
        missing = sorted(required - set(self.config))
        if missing:
            raise CheckpointError(f"Processor step {self.name!r} lacks {missing} in its config.")
        for key in self.config:
            if key not in required | optional:
                raise UnknownNameError(f"config key of {self.name!r}", key, required | optional)
        if self.name in ("normalizer_processor", "unnormalizer_processor"):
            self._check_statistics()

    def _check_statistics(self) -> None:
        acting = self.name == "unnormalizer_processor"
        for key, feature in self.config["features"].items():
            mode = self.mode(feature["type"])
            if mode == "IDENTITY" or (acting and feature["type"] != "ACTION"):
                continue
            for statistic in MODES[mode]:
                name = f"{key}.{statistic}"
                if name not in self.tensors:
                    raise StatisticsError(
                        f"{self.name}: no {name!r}, which {mode} needs; the file has {sorted(self.tensors)}. "
                        "Without it the robot would move in units that nobody knows: save the policy again "
                        "with the statistics of the data set it was trained on."
                    )
                value, shape = self.tensors[name], tuple(feature["shape"])
                whole = feature["type"] != "VISUAL"  # pictures have one number a channel
                if not value.isfinite().all() or (whole and tuple(value.shape) != shape):
                    raise StatisticsError(
                        f"{self.name}: {name!r} has shape {tuple(value.shape)} (expected {shape}) or numbers "
                        "that are not finite."
                    )

    def mode(self, kind: str) -> str:
        """Normalisation mode of VISUAL, STATE or ACTION."""
        mode = self.config["norm_map"].get(kind, "IDENTITY")
        if mode != "IDENTITY" and mode not in MODES:
            raise UnknownNameError("normalisation mode", mode, [*MODES, "IDENTITY"])
        return mode

    def scale(self, key: str, kind: str, value: Tensor, *, inverse: bool) -> Tensor:
        """Normalise or unnormalise what ``key`` stands for."""
        mode = self.mode(kind)
        if mode == "IDENTITY":
            return value
        low, high = (self.tensors[f"{key}.{name}"].to(value) for name in MODES[mode])
        if kind == "VISUAL" and low.ndim == 1:
            low, high = low[:, None, None], high[:, None, None]
        eps = self.config["eps"]
        if mode == "MEAN_STD":
            return value * high + low if inverse else (value - low) / (high + eps)
        span = high - low
        span = span.where(span != 0, torch.full_like(span, eps))
        return (value + 1) * span / 2 + low if inverse else 2 * (value - low) / span - 1


@dataclass(frozen=True, eq=False)
class Pipeline:
    """Named steps in order. ``name``: ``policy_preprocessor`` or ``policy_postprocessor``, as the file's."""

    name: str
    steps: tuple[Step, ...]

    @classmethod
    def load(cls, directory: Path, name: str) -> Pipeline:
        """Read ``<name>.json`` and the tensors it names; raises :class:`CheckpointError` and its kin."""
        remedy = "Copy the policy again."
        data = read_json(directory / f"{name}.json", CheckpointError, remedy)
        if set(data) != {"name", "steps"}:
            raise CheckpointError(f"{name}.json has {sorted(data)}, expected name and steps.")
        steps = []
        for entry in data["steps"]:
            if "registry_name" not in entry or set(entry) - {"registry_name", "config", "state_file"}:
                raise CheckpointError(
                    f"{name}.json: a step with {sorted(entry)}; expected registry_name, config and perhaps "
                    "state_file (steps of somebody's own classes cannot be run here)."
                )
            file = entry.get("state_file")
            tensors = {} if file is None else _load(directory / file)
            steps.append(Step(entry["registry_name"], entry.get("config", {}), tensors, file))
        return cls(data["name"], tuple(steps))

    def save(self, directory: Path) -> None:
        """Write the JSON as lerobot does, and the tensors under the names they had."""
        entries = []
        for step in self.steps:
            entry: dict[str, Any] = {"registry_name": step.name, "config": dict(step.config)}
            if step.file is not None:
                entry["state_file"] = step.file
                save_file(dict(step.tensors), directory / step.file)
            entries.append(entry)
        text = json.dumps({"name": self.name, "steps": entries}, indent=2)
        (directory / f"{self.name}.json").write_text(text)

    def find(self, name: str) -> Step | None:
        """The first step of that registered name."""
        return next((step for step in self.steps if step.name == name), None)

    def __call__(self, batch: Mapping[str, Any], tokenizer: Any = None, *, static: bool = False) -> dict:
        """Apply every step.

        Args:
            batch: tensors by lerobot's names, all with a batch dimension; ``task`` (list of str).
            tokenizer: a transformers tokenizer, where a step needs one.
            static: pad instructions to their greatest length, so that shapes never change.
        """
        out = dict(batch)
        for step in self.steps:
            out = _apply(step, out, tokenizer, static)
        return out


def _apply(step: Step, batch: dict[str, Any], tokenizer: Any, static: bool) -> dict[str, Any]:
    config = step.config
    match step.name:
        case "rename_observations_processor":
            return {config["rename_map"].get(key, key): value for key, value in batch.items()}
        case "smolvla_new_line_processor" | "pi0_new_line_processor":
            return {**batch, TASK: [text if text.endswith("\n") else f"{text}\n" for text in batch[TASK]]}
        case "pi05_prepare_state_tokenizer_processor_step":
            return {**batch, TASK: [_prompt(*pair) for pair in zip(batch[TASK], batch[STATE], strict=True)]}
        case "tokenizer_processor":
            return {**batch, **_tokenize(batch[config["task_key"]], config, tokenizer, static)}
        case "normalizer_processor":
            return _scale_all(step, batch)
        case "unnormalizer_processor":
            return {**batch, ACTION: step.scale(ACTION, "ACTION", batch[ACTION], inverse=True)}
        case "relative_actions_processor" if config["enabled"]:
            return _make_relative(config, batch)
        case "absolute_actions_processor" if config["enabled"]:
            return {**batch, ACTION: batch[ACTION] + batch[_RELATIVE][:, None]}
    return batch  # batches are batched and on their device already


def _scale_all(step: Step, batch: dict[str, Any]) -> dict[str, Any]:
    chosen = step.config.get("normalize_observation_keys")
    out = dict(batch)
    for key, feature in step.config["features"].items():
        if key in out and (chosen is None or key in chosen or feature["type"] == "ACTION"):
            out[key] = step.scale(key, feature["type"], out[key], inverse=False)
    return out


def _make_relative(config: Mapping[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
    state, names = batch[STATE], config["action_names"]
    excluded = [str(name).lower() for name in config["exclude_joints"] if name]
    kept = torch.ones(state.shape[-1], dtype=state.dtype, device=state.device)
    for i, name in enumerate((names or [])[: state.shape[-1]]):
        if any(word in str(name).lower() for word in excluded):
            kept[i] = 0.0
    out = {**batch, _RELATIVE: state * kept}
    if ACTION in batch:
        out[ACTION] = batch[ACTION] - out[_RELATIVE][:, None]
    return out


def _prompt(task: str, state_S: Tensor) -> str:
    """pi0.5's prompt: the normalised state in 256 bins of [-1, 1], as numbers."""
    edges = torch.linspace(-1, 1, 257, dtype=torch.float64)[:-1]
    bins = torch.bucketize(state_S.double().cpu(), edges, right=True) - 1
    words = " ".join(str(int(place)) for place in bins)
    cleaned = task.strip().replace("_", " ").replace("\n", " ")
    return f"Task: {cleaned}, State: {words};\nAction: "


def _tokenize(texts: list[str], config: Mapping[str, Any], tokenizer: Any, static: bool) -> dict[str, Any]:
    if tokenizer is None:
        raise ObservationError(
            f"Instructions need the tokenizer {config.get('tokenizer_name')!r}, which was not found: give "
            "its folder (tokenizer=) when loading the checkpoint."
        )
    found = tokenizer(
        list(texts),
        max_length=config["max_length"],
        truncation=config["truncation"],
        padding="max_length" if static else config["padding"],
        padding_side=config["padding_side"],
        return_tensors="pt",
    )
    lengths = [len(ids) for ids in tokenizer(list(texts))["input_ids"]]
    return {
        TOKENS: found["input_ids"],
        TOKEN_MASK: found["attention_mask"].bool(),
        TRUNCATED: [length > config["max_length"] for length in lengths],
    }


def _load(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise StatisticsError(f"{path} is missing, which a processor step names. Copy the policy again.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error
