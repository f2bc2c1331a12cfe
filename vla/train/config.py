"""Everything a training run is made of, as frozen, JSON-able values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vla.data.mixture import SourceConfig
from vla.data.statistics import Mode
from vla.errors import ConfigError, UnknownNameError
from vla.models.net_config import DEFAULT_STATE_SLOTS
from vla.text import quoted
from vla.train.cotrain_config import CotrainConfig
from vla.train.judging import JudgeConfig
from vla.train.stages.parts import check_parts
from vla.train.strict_json import from_json
from vla.train.vlm import ExamplesConfig, VLMConfig


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Demonstrations to make when they are not there yet.

    Args:
        suite: registered name.
        tasks, embodiments: every pair of them is a cell; tasks may be groups of them (``mt10``).
        episodes_per_cell: successful demonstrations of each cell.
        seasons: of the suite: the same cells of each fill a source of their own, the second and those after.
        episodes_per_season_cell: successful demonstrations of each cell of a season.
        image_size: px.
        num_workers: processes; 0: one a core.
        noise: how much what the expert does is disturbed; 1: as the tabletop's experts stand it, 0: not.
    """

    suite: str = "tabletop"
    tasks: tuple[str, ...] = ("place",)
    embodiments: tuple[str, ...] = ("panda", "ur5e")
    episodes_per_cell: int = 200
    seasons: tuple[int, ...] = ()
    episodes_per_season_cell: int = 10
    image_size: int = 64
    num_workers: int = 0
    noise: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What to learn from.

    Args:
        sources: demonstrations of any format, each with its weight in the mixture.
        generate: fill the first source, and one more for each of its seasons, by this recipe (resumes; does
            nothing when complete).
        control_hz: resample every source that names no rate of its own to this one (None: none is).
        camera_roles: cameras the policy sees through.
        approach_share: share of every batch drawn from frames where the hand is still on its way to the
            target. Without it the net learns to find the target from its own hand. (A source without phases
            is drawn from uniformly.)
        num_workers: processes that make batches ahead, for each training process (0: made when needed, which
            small pictures on few cores are best served by).
        equal_cells: every (task, arm) of a source gets the same share of it, else every step.
        state_mode, action_mode: normalisation, where a source has no other (see ``SourceConfig``).
    """

    sources: tuple[SourceConfig, ...] = (SourceConfig(path="outputs/demonstrations/quick.zarr"),)
    generate: GenerationConfig | None = None
    control_hz: float | None = None
    camera_roles: tuple[str, ...] = ("front", "wrist")
    image_size: int = 64
    approach_share: float = 0.6
    num_workers: int = 0
    equal_cells: bool = True
    state_mode: Mode = "mean_std"
    action_mode: Mode = "range"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and losses; what follows from the data (vocabulary, action entries) is derived.

    Args:
        backbone: registered backbone.
        vlm: settings of every backbone but ``tiny``.
        examples: episodes of the same task that the policy is shown (None: it reads none).
        width: of backbone, trunk and heads alike.
        num_queries: keypoint tokens a camera.
        num_film_layers, num_frequencies: see :class:`vla.models.backbones.tiny.TinyVLMConfig`; one modulated
            layer and plain coordinates took twice the steps to find things.
        heads: all are trained; the first is the default at inference.
        execution_horizon: actions executed before replanning, recommended to whoever runs the policy.
        num_flow_steps: denoising steps of the flow and diffusion heads.
        history: earlier moments (state and commanded action) told to the heads, ``execution_horizon`` steps
            apart, as decisions are.
        reuse: at inference, do not look again at what did not move: patches of a backbone of patches, whole
            frames of any other.
        flow_schedule: ``uniform``, ``early`` or ``late``, see ``vla.models.heads.schedules``.
        flow_prefix_delay: most actions that the flow head learns to go on from (real-time chunking), the
            longest delay in control steps; 0: none, guidance joins chunks.
        diffusion_prediction, num_bins, bin_limit, latent_dim, kl_weight: of single heads, see
            :class:`vla.models.heads.HeadConfig`.
        action_vocabulary: ids at most of the codec that the fast head's training actions are fitted with.

    The rest is described in :class:`vla.models.net_config.PolicyNetConfig`.
    """

    backbone: str = "tiny"
    vlm: VLMConfig | None = None
    examples: ExamplesConfig | None = None
    projector: str = "linear"
    width: int = 128
    num_queries: int = 8
    num_film_layers: int = 2
    num_frequencies: int = 4
    num_fusion_blocks: int = 2
    num_heads: int = 4
    feed_ratio: int = 2
    state_slots: tuple[str, ...] = DEFAULT_STATE_SLOTS
    heads: tuple[str, ...] = ("flow", "regression")
    horizon: int = 8
    execution_horizon: int = 2
    num_flow_steps: int = 5
    num_head_blocks: int = 2
    num_noise: int = 4
    head_block: str = "sequential"
    compression: str = "none"
    keep: float = 1.0
    num_latents: int = 32
    num_projector_layers: int = 2
    history: int = 0
    reuse: bool = False
    insulate: tuple[str, ...] = ()
    flow_schedule: str = "uniform"
    flow_prefix_delay: int = 0
    diffusion_prediction: str = "v"
    num_bins: int = 256
    bin_limit: float = 1.0
    latent_dim: int = 32
    kl_weight: float = 1.0
    action_vocabulary: int = 512
    locate_by_sight: bool = True
    localisation_weight: float = 1.0
    keypoint_weight: float = 0.3
    things_weight: float = 1.0
    state_dropout: float = 0.3


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Changes made to training samples.

    Args:
        shift_px: each picture moves by up to this much in x and y (its labels move with it).
        gain, offset: each colour channel is scaled by 1 +- gain and shifted by +- offset (of full range).
        other_share: share of samples that are given another instruction of the same scene, to learn to look
            by (needs a simulator's labels; ``augment.ask_otherwise``).
        word_dropout: share of words replaced by the unknown word, so that unknown words do little harm.
    """

    shift_px: int = 1
    gain: float = 0.15
    offset: float = 0.06
    word_dropout: float = 0.02
    other_share: float = 0.3


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay.

    Args:
        batch_size: samples a step over all processes together.
        lr: peak; falls along a cosine to ``final_lr_share`` of it as the budget is used up.
        backbone_lr_factor, projector_lr_factor, head_lr_factor: of the learning rate of these parts.
        clip: gradient norm.
        ema_decay: of the weights that are evaluated and shipped; ramps up over the first steps.
    """

    batch_size: int = 32
    lr: float = 1e-3
    final_lr_share: float = 0.02
    warmup_steps: int = 100
    weight_decay: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    ema_decay: float = 0.999
    backbone_lr_factor: float = 1.0
    projector_lr_factor: float = 1.0
    head_lr_factor: float = 1.0

    def __post_init__(self) -> None:
        factors = (self.backbone_lr_factor, self.projector_lr_factor, self.head_lr_factor)
        if min(factors) < 0:
            raise ConfigError(f"Factors of the learning rate must be 0 or more: {factors}.")


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """When to stop: after ``steps``, or after ``minutes`` of training wall time if that is sooner.

    The learning rate follows the share of the budget that is used, so a run limited by time still anneals.
    """

    steps: int | None = 3000
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ConfigError("A training budget needs steps, minutes, or both.")

    def share(self, step: int, minutes: float) -> float:
        """Share of the budget used, 0..1."""
        by_step = step / self.steps if self.steps else 0.0
        by_time = minutes / self.minutes if self.minutes else 0.0
        return min(max(by_step, by_time), 1.0)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """A part of a run, with its own budget; the next one goes on with its weights and a fresh optimizer.

    Args:
        name: for people.
        budget: of this stage; the learning rate warms up and anneals over it.
        frozen: parts that do not learn (``vla.train.stages.parts.PARTS``), or ``backbone``.
        optim: rates and all else (None: the run's). The batch size is the run's in every stage.
        augment: None: the run's.
    """

    name: str
    budget: BudgetConfig
    frozen: tuple[str, ...] = ()
    optim: OptimConfig | None = None
    augment: AugmentConfig | None = None

    def __post_init__(self) -> None:
        check_parts(self.frozen)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    Args:
        name: of the run, for people.
        seed: of weights, sampling, noise and augmentation.
        num_processes: one-thread processes that average gradients; 0: one a core (CPU) or one (GPU).
        device: ``auto`` (CUDA if there), ``cpu`` or ``cuda``.
        checkpoint_minutes: between checkpoints (one is written at the end and on Ctrl-C too).
        keep_checkpoints: newest ones kept.
        log_every: steps a line of ``metrics.jsonl``.
        stages: one after the other (none: a single one that trains everything for ``budget``).
        cotrain: questions to train the backbone with, too, in stages where it learns.
        init_from: policy directory whose weights to start from (None: fresh weights). Its network must be the
            same but for heads and compression. Words and arms that it did not know begin untrained, words
            that these data never say stay known, arms without data are not driven any more; all this is said.
        judge: evaluation with its grounding audit at checkpoints (None: none).
    """

    name: str = "run"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    seed: int = 0
    num_processes: int = 0
    device: str = "auto"
    checkpoint_minutes: float = 2.0
    keep_checkpoints: int = 2
    log_every: int = 20
    stages: tuple[StageConfig, ...] = ()
    cotrain: CotrainConfig | None = None
    init_from: str | None = None
    judge: JudgeConfig | None = None

    def __post_init__(self) -> None:
        self._check_stages()
        if self.device not in ("auto", "cpu", "cuda"):
            raise UnknownNameError("device", self.device, ("auto", "cpu", "cuda"))
        if not 1 <= self.model.execution_horizon <= self.model.horizon:
            raise ConfigError(
                f"execution_horizon {self.model.execution_horizon} must lie in 1..{self.model.horizon}."
            )

    def _check_stages(self) -> None:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ConfigError(f"Stages need names of their own: {quoted(names)}.")
        for stage in self.stages:
            if stage.optim is not None and stage.optim.batch_size != self.optim.batch_size:
                raise ConfigError(
                    f"The batch size is the run's in every stage: {self.optim.batch_size}, but stage "
                    f"{stage.name!r} has {stage.optim.batch_size}."
                )

    @property
    def schedule(self) -> tuple[StageConfig, ...]:
        """The stages; a run that names none is one stage."""
        return self.stages or (StageConfig(name="train", budget=self.budget),)

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainConfig:
        """Strict inverse of :meth:`to_json`."""
        return from_json(cls, data)
