"""A lerobot checkpoint directory: read strictly, run, and written back tensor for tensor.

    config.json  model.safetensors  policy_preprocessor.json  policy_postprocessor.json  <step tensors>

Weights run in float32 whatever they are stored in, and are stored again as they were. Heads that lerobot
writes and nobody uses (``lm_head``) are kept for writing back and cost nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vla.errors import CheckpointError, ConfigError, ObservationError, StatisticsError
from vla.files import read_json, replace_directory
from vla.models.lerobot.config import ACTION, STATE, LerobotConfig, SmolVLASettings, parse_config
from vla.models.lerobot.flow import FlowInputs, FlowNet, pad_last
from vla.models.lerobot.images import resize_padded
from vla.models.lerobot.migrate import pipelines, split_statistics
from vla.models.lerobot.pi import PiNet, PiSizes
from vla.models.lerobot.processors import (
    POSTPROCESSOR,
    PREPROCESSOR,
    TOKEN_MASK,
    TOKENS,
    TRUNCATED,
    Pipeline,
)
from vla.models.lerobot.smolvla import SmolVLANet
from vla.models.lerobot.vlm import load_tokenizer, vlm_sizes
from vla.models.saving import check_finite

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"
_EMBEDDING = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
_TIED = "paligemma_with_expert.paligemma.lm_head.weight"  # the embedding, where a file has only this
#: In the files, read by nobody.
_UNUSED = {
    "smolvla": ("vlm_with_expert.vlm.lm_head.weight",),
    "pi0": (_TIED, "paligemma_with_expert.gemma_expert.lm_head.weight"),
    "pi05": (_TIED, "paligemma_with_expert.gemma_expert.lm_head.weight"),
}


@dataclass(eq=False)
class LerobotCheckpoint:
    """A loaded policy.

    Args:
        config: of the policy.
        net: float32, in evaluation mode.
        preprocessor, postprocessor: None where the directory has none; then only prepared inputs will do.
        tokenizer: a transformers tokenizer, or None where it was not found.
        unused: tensors of the file that no computation reads.
        dtypes: of the file's tensors, by name.
        source: where it was read.
    """

    config: LerobotConfig
    net: FlowNet
    preprocessor: Pipeline | None
    postprocessor: Pipeline | None
    tokenizer: Any
    unused: Mapping[str, Tensor]
    dtypes: Mapping[str, torch.dtype]
    source: Path

    def prepare(self, batch: Mapping[str, Any], *, static: bool = False) -> tuple[FlowInputs, dict[str, Any]]:
        """Raw observations -> what the network sees, and the processed batch.

        Args:
            batch: ``observation.state`` float [B S] and pictures float [B 3 h w] in [0, 1] by their names,
                ``task`` (list of str), for training also ``action`` [B T A], all in the robot's units.
            static: pad instructions to their greatest length, so that shapes never change.

        Raises:
            StatisticsError: the checkpoint has no processors, hence no statistics.
            ObservationError: something is missing.
        """
        if self.preprocessor is None or self.postprocessor is None:
            raise StatisticsError(
                f"{self.source} has no {PREPROCESSOR}.json or no {POSTPROCESSOR}.json, hence no statistics: "
                "nobody knows the units of its states and actions. Save it with its processors."
            )
        processed = self.preprocessor(batch, self.tokenizer, static=static)
        return self.inputs(processed), processed

    def inputs(self, batch: Mapping[str, Any]) -> FlowInputs:
        """Processed batch (normalised, tokenised) -> pictures resized, state padded, all on one device."""
        for key in (TOKENS, TOKEN_MASK, STATE):
            if key not in batch:
                raise ObservationError(f"The batch lacks {key!r}; it has {sorted(batch)}.")
        there = [key for key in self.config.cameras if key in batch]
        missing = [key for key in self.config.cameras if key not in batch]
        if not there or len(missing) > self.config.empty_cameras:
            raise ObservationError(
                f"The batch lacks {missing}; this policy looks through {list(self.config.cameras)}, of which "
                f"{self.config.empty_cameras} may be absent, and the batch has {sorted(batch)}."
            )
        parameter = next(self.net.parameters())
        pictures = [self._resize(batch[key].to(parameter)) for key in there]
        seen = [
            batch.get(f"{key}_padding_mask", torch.ones(len(batch[key]), dtype=torch.bool)) for key in there
        ]
        for _ in missing:
            pictures.append(torch.full_like(pictures[0], -1.0))
            seen.append(torch.zeros(len(pictures[0]), dtype=torch.bool))
        device = parameter.device
        return FlowInputs(
            images=torch.stack(pictures, dim=1),
            image_mask=torch.stack([mask.bool().to(device) for mask in seen], dim=1),
            token_ids=batch[TOKENS].to(device),
            token_mask=batch[TOKEN_MASK].bool().to(device),
            state=pad_last(batch[STATE].to(parameter), self.config.max_state_dim),
        )

    def _resize(self, images_B3HW: Tensor) -> Tensor:
        if self.config.image_size is None:
            return images_B3HW * 2.0 - 1.0
        return resize_padded(images_B3HW, *self.config.image_size, centred=self.config.kind != "smolvla")

    @torch.inference_mode()
    def chunk(
        self,
        batch: Mapping[str, Any],
        noise_BTA: Tensor,
        *,
        num_steps: int | None = None,
        static: bool = False,
    ) -> tuple[Tensor, list[bool]]:
        """Raw observations -> actions float [B T action_dim] in the robot's units; see :meth:`prepare`.

        Also whether each instruction was too long and lost its end.
        """
        inputs, processed = self.prepare(batch, static=static)
        actions = self.net.sample(inputs, noise_BTA.to(inputs.images), num_steps)
        processed[ACTION] = actions[..., : self.config.action_dim].cpu()
        assert self.postprocessor is not None  # prepare() has looked
        truncated = processed.get(TRUNCATED, [False] * len(actions))
        return self.postprocessor(processed)[ACTION], truncated

    def save(self, directory: str | Path) -> None:
        """Write the checkpoint in lerobot's format; replaces one that is there, all or nothing.

        A language model's folder inside the checkpoint is copied along.
        """
        directory = Path(directory)
        tensors = self._tensors()
        check_finite(tensors)
        part = directory.with_name(directory.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file(tensors, part / _WEIGHTS)
        (part / _CONFIG).write_text(json.dumps(self.config.raw, indent=4))
        for pipeline in (self.preprocessor, self.postprocessor):
            if pipeline is not None:
                pipeline.save(part)
        if isinstance(self.config, SmolVLASettings):
            folder = self.source / self.config.vlm_model_name
            if folder.is_dir() and self.source.resolve() in folder.resolve().parents:
                shutil.copytree(folder, part / self.config.vlm_model_name)
        replace_directory(directory, part)

    def _tensors(self) -> dict[str, Tensor]:
        weights = dict(self.net.state_dict())
        if f"model.{_EMBEDDING}" not in self.dtypes and _EMBEDDING in weights:
            weights[_TIED] = weights.pop(_EMBEDDING)
        named = {f"model.{name}": value.cpu() for name, value in weights.items()} | dict(self.unused)
        return {name: value.to(self.dtypes[name]).contiguous() for name, value in named.items()}


def load_lerobot(
    directory: str | Path,
    *,
    vlm: str | Path | None = None,
    tokenizer: str | Path | None = None,
    vision_heads: int | None = None,
    device: str | torch.device = "cpu",
) -> LerobotCheckpoint:
    """Read a SmolVLA, pi0 or pi05 policy that lerobot saved.

    Args:
        directory: with config.json and model.safetensors.
        vlm: SmolVLA: folder of the vision-language model (its config.json tells the sizes); by default what
            the checkpoint names, beside it or, for lerobot's default model, from its known sizes.
        tokenizer: folder of the tokenizer; by default what the checkpoint names, if it is on this machine.
        vision_heads: pi0, pi05: attention heads of a vision tower of unknown width.

    Raises:
        CheckpointError: a file is missing or damaged, or weights are missing, unknown or misshapen.
        StatisticsError: a normalisation without its statistics.
        ConfigError: an option that is not reproduced here.
    """
    directory = Path(directory)
    config = parse_config(
        read_json(directory / _CONFIG, CheckpointError, "Give a folder that lerobot saved.")
    )
    found, old = split_statistics(_read_weights(directory / _WEIGHTS))
    dtypes = {name: value.dtype for name, value in found.items()}
    weights, unused = _sort(config, found)
    net = _build(config, weights, directory, vlm, vision_heads)
    _fill(net, weights)
    pre, post = (
        Pipeline.load(directory, name) if (directory / f"{name}.json").is_file() else None
        for name in (PREPROCESSOR, POSTPROCESSOR)
    )
    if old and pre is None and post is None:
        pre, post = pipelines(config, old)
    _check_covered(config, pre, post)
    net = net.to(device).eval()
    if torch.device(device).type == "cpu":
        net.lay_out()
    return LerobotCheckpoint(
        config=config,
        net=net,
        preprocessor=pre,
        postprocessor=post,
        tokenizer=load_tokenizer(config, pre, directory, tokenizer or vlm),
        unused=unused,
        dtypes=dtypes,
        source=directory,
    )


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing. Give a folder that lerobot saved.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}. Copy the policy again.") from error


def _sort(config: LerobotConfig, found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the network reads, in float32 and without the leading ``model.``; what nobody reads, as it is."""
    unused = {name: value for name, value in found.items() if name[6:] in _UNUSED[config.kind]}
    if config.kind != "smolvla" and f"model.{_EMBEDDING}" not in found:
        unused.pop(f"model.{_TIED}", None)
        if f"model.{_TIED}" in found:
            found = {**found, f"model.{_EMBEDDING}": found[f"model.{_TIED}"]}
            found.pop(f"model.{_TIED}")
    foreign = [name for name in found if not name.startswith("model.")]
    if foreign:
        raise CheckpointError(f"Unknown weights: {foreign[:5]}; all of lerobot's start with 'model.'.")
    weights = {name[6:]: value.float() for name, value in found.items() if name not in unused}
    return weights, unused


def _build(
    config: LerobotConfig,
    weights: Mapping[str, Tensor],
    directory: Path,
    vlm: str | Path | None,
    vision_heads: int | None,
) -> FlowNet:
    """The network without any weights (on the meta device)."""
    if isinstance(config, SmolVLASettings):
        if vision_heads is not None:
            raise ConfigError("vision_heads= is for pi0 and pi05; SmolVLA's follow from its vlm.")
        sizes = vlm_sizes(config.vlm_model_name, directory, vlm)
        with torch.device("meta"):
            return SmolVLANet(config, sizes)
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    sizes = PiSizes.of(shapes, vision_heads)
    with torch.device("meta"):
        return PiNet(config, sizes)  # type: ignore[arg-type]


def _fill(net: FlowNet, weights: Mapping[str, Tensor]) -> None:
    expected = net.state_dict()
    missing, unknown = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    wrong = [
        f"{name}: {tuple(weights[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if missing or unknown or wrong:
        raise CheckpointError(
            "The weights are not those of the policy that config.json describes:"
            f"\n  - {len(missing)} missing: {missing[:5]}"
            f"\n  - {len(unknown)} unknown: {unknown[:5]}"
            f"\n  - {len(wrong)} of another shape: {wrong[:5]}"
        )
    check_finite(weights)
    net.load_state_dict(dict(weights), strict=True, assign=True)


def _check_covered(config: LerobotConfig, pre: Pipeline | None, post: Pipeline | None) -> None:
    """State and actions must pass through a normaliser where config.json says that they are normalised."""
    for pipeline, step_name, key, kind in (
        (pre, "normalizer_processor", STATE, "STATE"),
        (post, "unnormalizer_processor", ACTION, "ACTION"),
    ):
        if pipeline is None or config.modes.get(kind, "IDENTITY") == "IDENTITY":
            continue
        step = pipeline.find(step_name)
        if step is None or key not in step.config["features"] or step.mode(kind) != config.modes[kind]:
            raise StatisticsError(
                f"config.json says that {key!r} is normalised ({config.modes[kind]}), but "
                f"{pipeline.name}.json has no {step_name} that does so."
            )
