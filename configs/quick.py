"""From nothing to pick-and-place by instruction, with two arms, in a quarter of an hour on two cores.

    vla train configs/quick.py

Makes demonstrations of "pick up the red cube" and "put the red cube in the blue bowl" among distractors
(about six core-minutes), then trains the one-million-parameter policy until its time is used up. Picking
is there because it teaches which thing is meant at half the cost of a whole pick-and-place.
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
                suite="tabletop",
                tasks=("pick", "place"),
                embodiments=("panda", "ur5e"),
                episodes_per_cell=400,
            ),
        ),
        model=ModelConfig(width=128, heads=("flow", "regression"), num_noise=2),
        optim=OptimConfig(batch_size=64, lr=1e-3),
        budget=BudgetConfig(steps=6000, minutes=10.0),
        checkpoint_minutes=2.0,
    )
