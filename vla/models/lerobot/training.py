"""Fine-tuning a lerobot checkpoint as its own ``config.json`` says: what learns, the optimizer, the schedule.

The result is saved with :meth:`LerobotCheckpoint.save` and lerobot loads it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vla.errors import CheckpointError, DivergenceError, ObservationError
from vla.models.lerobot.checkpoint import LerobotCheckpoint
from vla.models.lerobot.config import ACTION

_VLM = {"smolvla": "vlm_with_expert.vlm.", "pi0": "paligemma_with_expert.paligemma."}
_VLM["pi05"] = _VLM["pi0"]
_RECIPE = (
    "optimizer_lr",
    "optimizer_betas",
    "optimizer_eps",
    "optimizer_weight_decay",
    "optimizer_grad_clip_norm",
    "scheduler_warmup_steps",
    "scheduler_decay_steps",
    "scheduler_decay_lr",
)


def learning_names(checkpoint: LerobotCheckpoint) -> list[str]:
    """Parameters that learn: all but what ``train_expert_only``, ``freeze_vision_encoder`` and, for SmolVLA,
    ``train_state_proj`` exclude, as in lerobot.
    """
    raw, kind = checkpoint.config.raw, checkpoint.config.kind
    frozen = []
    if raw.get("train_expert_only", kind == "smolvla"):
        frozen.append(_VLM[kind])
    elif kind == "smolvla":  # lerobot leaves out the last layer, most of which nobody reads
        layers = checkpoint.net.vlm_with_expert.vlm.model.text_model.layers  # type: ignore[union-attr]
        text = f"{_VLM[kind]}model.text_model."
        frozen += [f"{text}norm.", f"{text}layers.{len(layers) - 1}."]  # type: ignore[arg-type]
    if raw.get("freeze_vision_encoder", kind == "smolvla"):
        frozen.append(f"{_VLM[kind]}model.vision_")
    if kind == "smolvla" and not raw.get("train_state_proj", True):
        frozen.append("state_proj.")
    return [name for name, _ in checkpoint.net.named_parameters() if not name.startswith(tuple(frozen))]


class FineTuning:
    """AdamW with warm-up and cosine, from the keys ``optimizer_*`` and ``scheduler_*`` of ``config.json``.

    Args:
        checkpoint: its weights change in place, step by step.
        seed: of noise and times.

    Raises:
        CheckpointError: ``config.json`` does not say how to train.
    """

    def __init__(self, checkpoint: LerobotCheckpoint, *, seed: int = 0) -> None:
        raw = checkpoint.config.raw
        if missing := [key for key in _RECIPE if key not in raw]:
            raise CheckpointError(f"config.json does not say how to train: it lacks {missing}.")
        self.checkpoint, self.num_steps = checkpoint, 0
        self.recipe: dict[str, Any] = {key: raw[key] for key in _RECIPE}
        learning = set(learning_names(checkpoint))
        for name, parameter in checkpoint.net.named_parameters():
            parameter.requires_grad_(name in learning)
        self.parameters = [p for p in checkpoint.net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=raw["optimizer_lr"],
            betas=tuple(raw["optimizer_betas"]),
            eps=raw["optimizer_eps"],
            weight_decay=raw["optimizer_weight_decay"],
        )
        self.generator = torch.Generator().manual_seed(seed)

    def rate(self) -> float:
        """Learning rate of the next step."""
        recipe, step = self.recipe, self.num_steps
        peak, last = recipe["optimizer_lr"], recipe["scheduler_decay_lr"]
        warm, decay = recipe["scheduler_warmup_steps"], recipe["scheduler_decay_steps"]
        if step < warm:
            return peak * (step + 1) / (warm + 1)
        share = min(step, decay) / decay
        return last + (peak - last) * 0.5 * (1 + math.cos(math.pi * share))

    def loss(self, batch: Mapping[str, Any], noise_BTA: Tensor, time_B: Tensor) -> Tensor:
        """Of a processed batch (see :meth:`LerobotCheckpoint.prepare`) with its normalised ``action``."""
        if ACTION not in batch:
            raise ObservationError(f"A training batch needs {ACTION!r}; this one has {sorted(batch)}.")
        inputs = self.checkpoint.inputs(batch)
        device = inputs.images.device
        padding = batch.get("action_is_pad")
        return self.checkpoint.net.loss(
            inputs,
            batch[ACTION].to(device),
            noise_BTA.to(device),
            time_B.to(device),
            None if padding is None else padding.to(device),
        )

    def step(
        self, batch: Mapping[str, Any], noise_BTA: Tensor | None = None, time_B: Tensor | None = None
    ) -> float:
        """One update; returns the loss before it. Noise and times are drawn where they are not given.

        Raises:
            DivergenceError: the loss or a gradient is not finite; the weights are as they were.
        """
        drawn = self.checkpoint.net.draw(len(batch[ACTION]), self.generator)
        noise = drawn[0] if noise_BTA is None else noise_BTA
        loss = self.loss(batch, noise, drawn[1] if time_B is None else time_B)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe["optimizer_grad_clip_norm"])
        if not (loss.isfinite() and norm.isfinite()):
            value = float(loss.detach())
            raise DivergenceError(f"Step {self.num_steps}: loss {value}, gradient norm {float(norm)}.")
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.num_steps += 1
        return float(loss.detach())
