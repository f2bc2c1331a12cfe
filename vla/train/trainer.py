"""One training step, and the state it advances.

Every random number of a step comes from (seed, step, rank), so a resumed run continues exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vla.data.batch import Batch
from vla.data.mixture import source_names
from vla.errors import CheckpointError, DivergenceError
from vla.models.policy_net import PolicyNet
from vla.train.batches import DM_PER_M, phase_of, prepare_batch
from vla.train.checkpoint import load_checkpoint, read_state, save_checkpoint
from vla.train.config import OptimConfig, StageConfig, TrainConfig
from vla.train.cotraining import Cotraining
from vla.train.optim import MovingAverage, build_optimizer, learning_rate
from vla.train.processes import ProcessGroup
from vla.train.stages.parts import BACKBONE, count_weights, freeze_parts, part_of

if TYPE_CHECKING:
    from vla.train.examples import ExampleSource

#: ``source(step)``: this process's windows at a training step, the same whenever it is asked.
BatchSource = Callable[[int], Batch]


class Trainer:
    """Network, optimizer and moving average at one step of a run, which is in one of its stages.

    A stage whose budget is used up ends when the next step begins, so a checkpoint between two stages holds
    the whole of the first. ``cotraining``: asks questions in the stages in which the backbone learns.
    ``examples``: draws episodes that the backbone is shown with every batch.
    """

    def __init__(
        self,
        net: PolicyNet,
        config: TrainConfig,
        *,
        source: BatchSource,
        camera_roles: Sequence[str],
        embodiments: Sequence[str],
        device: torch.device,
        group: ProcessGroup | None = None,
        cotraining: Cotraining | None = None,
        examples: ExampleSource | None = None,
    ) -> None:
        self.examples = examples
        self.config, self.source, self.device = config, source, device
        self.camera_roles, self.embodiments = tuple(camera_roles), tuple(embodiments)
        self.group = group or ProcessGroup()
        self.net, self.cotraining = net.to(device), cotraining
        for weight in net.parameters():
            if weight.dim() == 4:  # of convolutions over pictures
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        self.learnable = frozenset(name for name, p in net.named_parameters() if p.requires_grad)
        self.average = MovingAverage(self.net, config.optim.ema_decay)
        self.step_index = 0
        self.minutes = 0.0  # of training so far, over all sessions
        self.cpu_minutes = 0.0  # of all processes
        self._cpu_s = time.process_time()
        self.enter(0, first_step=0, first_minute=0.0)

    def enter(self, stage: int, *, first_step: int, first_minute: float) -> None:
        """Begin a stage: what it freezes is frozen, and the optimizer is a fresh one."""
        self.stage_index, self.first_step, self.first_minute = stage, first_step, first_minute
        names = freeze_parts(self.net, self.learnable, self.stage.frozen)
        self.optimizer = build_optimizer(self.net, self.optim)
        self.average.decay = self.optim.ema_decay
        self.parameters = [p for p in self.net.parameters() if p.requires_grad]
        self.asks = self.cotraining is not None and any(part_of(name, self.net) in BACKBONE for name in names)
        self._over = False

    @property
    def stage(self) -> StageConfig:
        return self.config.schedule[self.stage_index]

    @property
    def optim(self) -> OptimConfig:
        """Of this stage."""
        return self.stage.optim or self.config.optim

    @property
    def stage_step(self) -> int:
        """Steps done in this stage."""
        return self.step_index - self.first_step

    @property
    def _last(self) -> bool:
        return self.stage_index == len(self.config.schedule) - 1

    @property
    def between_stages(self) -> bool:
        """Whether the next step begins the next stage."""
        return self._over and not self._last

    @property
    def share(self) -> float:
        """Share of the stage's budget used, 0 where the next step begins the next stage; the leader's clock
        decides when there are several processes.
        """
        return 0.0 if self.between_stages else self._used

    @property
    def _used(self) -> float:
        return self.stage.budget.share(self.stage_step, self.minutes - self.first_minute)

    @property
    def finished(self) -> bool:
        return self._last and self._used >= 1.0

    @property
    def run_share(self) -> float:
        """How far the run is, 0..1, each stage counting alike."""
        return (self.stage_index + self._used) / len(self.config.schedule)

    def describe_stages(self) -> list[dict[str, Any]]:
        """What learns in each stage, JSON-able; see ``vla.train.stages.parts.count_weights``."""
        return [
            {"name": stage.name, **count_weights(self.net, self.learnable, stage.frozen)}
            for stage in self.config.schedule
        ]

    def step(self, *, share: float, stop: bool = False) -> dict[str, float]:
        """Advance by one batch; returns metrics averaged over processes, and ``done``: 1 when all shall stop.

        Args:
            share: of the stage's budget used, which sets the learning rate; the leader's value holds for all.
            stop: this process asks everybody to stop after this step.
        """
        if self.between_stages:
            self.enter(self.stage_index + 1, first_step=self.step_index, first_minute=self.minutes)
        augment = self.stage.augment or self.config.augment
        seed = np.random.SeedSequence((self.config.seed, self.step_index, self.group.rank))
        generator = torch.Generator(self.device).manual_seed(int(seed.generate_state(1)[0]))
        batch = self.source(self.step_index)
        inputs, labels = prepare_batch(
            batch,
            backbone=self.net.backbone,
            camera_roles=self.camera_roles,
            embodiments=self.embodiments,
            augment=augment,
            rng=np.random.default_rng(seed),
            device=self.device,
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            if self.examples is not None:
                draw = np.random.default_rng((self.config.seed, self.step_index, self.group.rank, 2))
                backbone: Any = self.net.backbone
                backbone.show(self.examples(batch, backbone, draw, self.device))
            total, parts = self.net.loss(inputs, labels, generator)
        total.backward()
        if self.examples is not None:
            self.net.backbone.show(None)  # type: ignore[operator]
        error = (parts.pop("location_dm").cpu() - labels.location_dm.cpu()).norm(dim=-1) / DM_PER_M * 100
        losses = {"loss": total.detach(), **parts}
        known = {**_localisation(error.numpy(), phase_of(batch)), **self._counts(batch)}
        if self.asks and self.cotraining is not None:
            draw = np.random.default_rng((self.config.seed, self.step_index, self.group.rank, 1))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                answers, asked = self.cotraining.loss(batch, draw, augment, self.device)
            if answers is not None:
                (self.cotraining.config.weight * answers).backward()
            known["answers"] = float("nan") if answers is None else float(answers.detach())
            known["questions"] = float(asked * self.group.size)
        return self._update(losses, known, share, stop)

    def _counts(self, batch: Batch) -> dict[str, float]:
        """Windows of each source in the whole batch (this process's, as if all had drawn alike)."""
        names = source_names(self.config.data.sources)
        counts = np.bincount(batch.sources, minlength=len(names)) * self.group.size
        return {f"windows/{name}": float(n) for name, n in zip(names, counts, strict=True)}

    def _update(
        self, losses: dict[str, Any], located: dict[str, float], share: float, stop: bool
    ) -> dict[str, float]:
        """Average over processes and step the weights, unless a loss or gradient of anybody is not finite."""
        metrics = {**losses, **located}
        for parameter in self.parameters:
            if parameter.grad is None:  # every process must send the same buffer
                parameter.grad = torch.zeros_like(parameter)
        values = torch.tensor([float(v) for v in metrics.values()])
        known = values.isfinite()
        cpu_s = time.process_time()
        own = torch.tensor([share if self.group.leads else 0.0, float(stop), cpu_s - self._cpu_s])
        self._cpu_s = cpu_s
        agreed = torch.cat([values.nan_to_num(), known.float(), own])
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        agreed = self.group.average_(gradients, agreed)
        share, stop = float(agreed[-3]), bool(agreed[-2] > 0)
        self.cpu_minutes += float(agreed[-1]) / 60
        rate = learning_rate(self.optim, self.stage_step, share)
        for settings in self.optimizer.param_groups:
            settings["lr"] = rate * settings["lr_factor"]
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.optim.clip, foreach=True)
        count = len(values)
        knowing = agreed[count : 2 * count].tolist()  # processes whose value is finite
        self._check_finite(dict(zip(losses, knowing, strict=False)), float(norm))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step_index += 1
        self.average.update(self.net, self.step_index)
        mean = (agreed[:count] / agreed[count : 2 * count]).tolist()  # NaN where nobody knew
        named = dict(zip(metrics, mean, strict=True))
        steps = self.stage.budget.steps
        self._over = share >= 1.0 or (steps is not None and self.stage_step >= steps)
        done = stop or (self._over and self._last)
        return {**named, "lr": rate, "gradient_norm": float(norm), "done": float(done)}

    def _check_finite(self, finite: dict[str, float], norm: float) -> None:
        """Decided from averaged values only, so that all processes stop at the same step."""
        broken = [name for name, processes in finite.items() if processes < self.group.size]
        if not broken and math.isfinite(norm):
            return
        what = f"loss parts not finite: {', '.join(broken)}" if broken else f"gradient norm {norm}"
        raise DivergenceError(
            f"Training diverged at step {self.step_index}: {what}. Weights and checkpoints were not touched; "
            "start a run with a smaller learning rate, or check the data of this step."
        )

    def averaged_weights(self) -> dict[str, torch.Tensor]:
        """State dict with averaged weights: what is evaluated and shipped."""
        return {**self.net.state_dict(), **self.average.state_dict()}

    def save(self, directory: Path) -> Path:
        state = {
            "step": self.step_index,
            "minutes": self.minutes,
            "cpu_minutes": self.cpu_minutes,
            "seed": self.config.seed,
            "stage": self.stage_index,
            "first_step": self.first_step,
            "first_minute": self.first_minute,
        }
        return save_checkpoint(
            directory,
            net=self.net,
            average=self.average,
            optimizer=self.optimizer,
            state=state,
            keep=self.config.keep_checkpoints,
        )

    def load(self, path: Path) -> dict[str, Any]:
        state = read_state(path)
        stage = int(state.get("stage", 0))  # checkpoints of runs without stages do not say
        if stage >= len(self.config.schedule):
            raise CheckpointError(
                f"Checkpoint {path} is of stage {stage}; this run has {len(self.config.schedule)}."
            )
        first_step, first_minute = int(state.get("first_step", 0)), float(state.get("first_minute", 0.0))
        self.enter(stage, first_step=first_step, first_minute=first_minute)
        load_checkpoint(path, net=self.net, average=self.average, optimizer=self.optimizer)
        self.step_index, self.minutes = int(state["step"]), float(state["minutes"])
        self._over = self._used >= 1.0
        self.cpu_minutes = float(state["cpu_minutes"])
        return state


def _localisation(error_cm: np.ndarray, phase: np.ndarray) -> dict[str, float]:
    """Mean distance of estimates from truth, cm: target while approaching and overall, goal (NaN: none)."""

    def mean(values: np.ndarray) -> float:
        known = values[np.isfinite(values)]
        return float(known.mean()) if len(known) else float("nan")

    return {
        "target_approach_cm": mean(error_cm[phase == 0, 0]),
        "target_cm": mean(error_cm[:, 0]),
        "goal_cm": mean(error_cm[:, 1]),
    }
