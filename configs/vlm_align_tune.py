"""A pretrained vision-language model as the backbone: align projector and head, then tune it with LoRA.

    vla train configs/vlm_align_tune.py
    VLA_VLM=/path/to/Qwen2.5-VL-3B-Instruct vla train configs/vlm_align_tune.py --model.vlm.max-tokens 64

``VLA_VLM`` (or ``--model.vlm.model``) is a local folder or hub name of any family in docs/backbones.md.
``--model.vlm.tiles 2`` shows pictures in tiles, too. Questions about the frames of the demonstrations go on
teaching it to see while it learns to act. Wants a GPU.
"""

import os

from vla.data.mixture import SourceConfig
from vla.models.lora import LoraConfig
from vla.train.config import (
    AugmentConfig,
    BudgetConfig,
    DataConfig,
    GenerationConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from vla.train.cotrain_config import CotrainConfig
from vla.train.stages.presets import align, tune
from vla.train.vlm import VLMConfig

DEFAULT = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
BATCH = 32


def config() -> TrainConfig:
    vlm = VLMConfig(
        model=os.environ.get("VLA_VLM", DEFAULT),
        freeze="all",
        lora=LoraConfig(rank=16),
        gradient_checkpointing=True,
    )
    gentle = OptimConfig(
        batch_size=BATCH, lr=3e-4, backbone_lr_factor=0.3, projector_lr_factor=0.3, warmup_steps=500, clip=1.0
    )
    return TrainConfig(
        name="vlm_align_tune",
        data=DataConfig(
            sources=(SourceConfig(path="outputs/demonstrations/vlm.zarr"),),
            generate=GenerationConfig(
                suite="tabletop",
                tasks=("pick", "place", "stack", "relation"),
                embodiments=("panda", "ur5e"),
                image_size=256,
            ),
            image_size=256,
        ),
        model=ModelConfig(
            backbone="auto",
            vlm=vlm,
            projector="mlp",
            width=256,
            num_heads=8,
            heads=("flow",),
            locate_by_sight=False,
            things_weight=0.0,
        ),
        augment=AugmentConfig(shift_px=4, word_dropout=0.0),
        optim=OptimConfig(batch_size=BATCH, lr=1e-3),
        cotrain=CotrainConfig(batch_size=8, weight=0.5),
        stages=(align(BudgetConfig(steps=3000)), tune(BudgetConfig(steps=20_000), optim=gentle)),
        checkpoint_minutes=10.0,
    )
