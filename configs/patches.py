"""A policy whose backbone sees patches, for the study of visual-token compression.

    vla train configs/patches.py        on the demonstrations that configs/quick.py makes

Thirty core-minutes. Its patches are worked on one by one, so that those which stand still can be reused.
"""

from vla.data.mixture import SourceConfig
from vla.train.config import AugmentConfig, BudgetConfig, DataConfig, ModelConfig, OptimConfig, TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        name="patches",
        num_processes=1,
        data=DataConfig(sources=(SourceConfig(path="outputs/demonstrations/quick.zarr"),)),
        model=ModelConfig(
            backbone="patches", width=128, heads=("regression",), keypoint_weight=0.6, locate_by_sight=False
        ),
        augment=AugmentConfig(other_share=0.15),
        optim=OptimConfig(batch_size=32, lr=1e-3),
        budget=BudgetConfig(steps=6000),
        checkpoint_minutes=1.0,
        log_every=20,
    )
