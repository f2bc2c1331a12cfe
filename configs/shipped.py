"""The shipped policy: eight tasks, four arms, one network.

    vla train configs/shipped.py

Makes 200 demonstrations of each of the 32 cells, then trains a wider net (width 192) for up to two hours
on two cores.
"""

from vla.train.config import BudgetConfig, DataConfig, GenerationConfig, ModelConfig, OptimConfig, TrainConfig

TASKS = ("pick", "place", "push", "stack", "knock", "drawer", "press", "relation")
ARMS = ("panda", "ur5e", "xarm7", "so101")


def config() -> TrainConfig:
    return TrainConfig(
        name="shipped",
        data=DataConfig(
            stores=("outputs/demonstrations/shipped.zarr",),
            generate=GenerationConfig(suite="tabletop", tasks=TASKS, embodiments=ARMS, episodes_per_cell=200),
        ),
        model=ModelConfig(width=192, num_heads=6, heads=("flow", "regression")),
        optim=OptimConfig(batch_size=64, lr=1e-3),
        budget=BudgetConfig(steps=30000, minutes=120.0),
        checkpoint_minutes=5.0,
    )
