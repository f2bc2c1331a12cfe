"""From nothing to pick-and-place by instruction, with two arms, in a quarter of an hour on two cores.

    vla train configs/quick.py

Makes demonstrations of "put the red cube in the blue bowl" among distractors (about seven core-minutes), then
trains a one-and-a-half-million-parameter policy until its time is used up. One task and one head: every scene
holds what must be told apart, and all of the time goes into looking and one way of acting.
"""

from vla.data.mixture import SourceConfig
from vla.train.config import (
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
                suite="tabletop", tasks=("place",), embodiments=("panda", "ur5e"), episodes_per_cell=650
            ),
        ),
        model=ModelConfig(width=128, heads=("flow",), num_noise=2, keypoint_weight=0.6),
        optim=OptimConfig(batch_size=48, lr=1e-3),
        budget=BudgetConfig(steps=8000, minutes=9.5),
        checkpoint_minutes=2.0,
    )
