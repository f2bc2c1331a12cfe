"""From nothing to pick-and-place by instruction, with two arms, in a quarter of an hour on two cores.

    vla train configs/quick.py

Makes demonstrations of "put the red cube in the blue bowl" among distractors (seven to eleven core-minutes),
then trains a one-and-a-half-million-parameter policy until its time is used up. One task: every scene holds
all that must be told apart. The regression head is there because its gradient teaches the trunk.
"""

from vla.data.mixture import SourceConfig
from vla.train.config import (
    AugmentConfig,
    BudgetConfig,
    DataConfig,
    GenerationConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)


def config() -> TrainConfig:
    return TrainConfig(
        name="quick",
        data=DataConfig(
            sources=(SourceConfig(path="outputs/demonstrations/quick.zarr"),),
            generate=GenerationConfig(
                suite="tabletop", tasks=("place",), embodiments=("panda", "ur5e"), episodes_per_cell=600
            ),
        ),
        model=ModelConfig(width=128, heads=("flow", "regression"), num_noise=2, keypoint_weight=0.6),
        augment=AugmentConfig(other_share=0.15),
        optim=OptimConfig(batch_size=64, lr=1e-3),
        budget=BudgetConfig(steps=8000, minutes=9.8),
        checkpoint_minutes=2.0,
    )
