"""The shipped policy, second part: on from what ``configs/shipped.py`` made, for another hour and a half.

    bash scripts/reproduce_shipped.sh     # all three parts, with the demonstrations that they need

Twelve more seasons, and more demonstrations of six tasks that the first part fails at: things that look
alike, beside each other, inserted, stacked. Every step counts alike here, so that long tasks get the larger
share.
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

TASKS = ("pick", "place", "push", "stack", "knock", "drawer", "press", "relation")
TASKS += ("turn", "slide", "insert", "beside", "unstack")
ARMS = ("panda", "ur5e", "xarm7", "so101", "gen3")
SEASONS = tuple(range(1, 17))
FOLDER = "outputs/demonstrations"


def config() -> TrainConfig:
    seasons = (SourceConfig(path=f"{FOLDER}/shipped_season{n}.zarr", weight=0.2) for n in SEASONS)
    return TrainConfig(
        name="shipped",
        init_from="outputs/shipped_first/policy",
        data=DataConfig(
            sources=(SourceConfig(path=f"{FOLDER}/shipped.zarr", weight=6.0), *seasons),
            equal_cells=False,
            generate=GenerationConfig(
                suite="tabletop",
                tasks=TASKS,
                embodiments=ARMS,
                episodes_per_cell=120,
                seasons=SEASONS,
                episodes_per_season_cell=4,
            ),
        ),
        model=ModelConfig(
            width=192, num_heads=6, heads=("flow", "regression"), num_noise=2, keypoint_weight=0.6
        ),
        augment=AugmentConfig(other_share=0.2),
        optim=OptimConfig(batch_size=64, lr=7e-4),
        budget=BudgetConfig(steps=40_000, minutes=84.0),
        checkpoint_minutes=4.0,
    )
