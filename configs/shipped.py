"""The shipped policy: eight tasks, four arms, one network.

    vla train configs/shipped.py

Makes 150 demonstrations of each of the 32 cells (about twenty core-minutes), then trains a wider net for
three quarters of an hour on two cores. Pictures are shifted by one pixel only: more makes positions
ambiguous, and these cameras do not move.
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

TASKS = ("pick", "place", "push", "stack", "knock", "drawer", "press", "relation")
ARMS = ("panda", "ur5e", "xarm7", "so101")


def config() -> TrainConfig:
    return TrainConfig(
        name="shipped",
        data=DataConfig(
            sources=(SourceConfig(path="outputs/demonstrations/shipped.zarr"),),
            generate=GenerationConfig(suite="tabletop", tasks=TASKS, embodiments=ARMS, episodes_per_cell=150),
        ),
        model=ModelConfig(width=160, num_heads=5, heads=("flow", "regression")),
        optim=OptimConfig(batch_size=64, lr=1e-3),
        budget=BudgetConfig(steps=20_000, minutes=46.0),
        checkpoint_minutes=3.0,
    )
