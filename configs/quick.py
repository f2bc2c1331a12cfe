"""From nothing to pick-and-place by instruction, with two arms, in a quarter of an hour on two cores.

    vla train configs/quick.py

Makes 600 demonstrations an arm of "put the red cube in the blue tray" among distractors (about four
core-minutes), then trains the one-million-parameter policy until its time is used up. The number of
demonstrations matters more than the number of steps: with 200 an arm success stops near 87 %.
"""

from vla.train.config import BudgetConfig, DataConfig, GenerationConfig, ModelConfig, OptimConfig, TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        name="quick",
        data=DataConfig(
            stores=("outputs/demonstrations/quick.zarr",),
            generate=GenerationConfig(
                suite="tabletop", tasks=("place",), embodiments=("panda", "ur5e"), episodes_per_cell=600
            ),
        ),
        model=ModelConfig(width=128, heads=("flow", "regression")),
        optim=OptimConfig(batch_size=64, lr=1e-3),
        budget=BudgetConfig(steps=5000, minutes=9.0),
        checkpoint_minutes=2.0,
    )
