"""The shipped policy, third part: a quarter of an hour with demonstrations of an expert that does not wait.

    bash scripts/reproduce_shipped.sh     # all three parts, with the demonstrations that they need

The second part taught so101 to wait over the hole for ever (0 of 50): the expert of then was slow to lower
the peg there, and every step counted alike. Here each cell counts alike again, and an eighth of each batch is
of the expert as it is now. (The shipped checkpoint's first two parts learned from the expert of then.)
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

FOLDER = "outputs/demonstrations"


def config() -> TrainConfig:
    seasons = (SourceConfig(path=f"{FOLDER}/shipped_season{n}.zarr", weight=0.15) for n in range(1, 17))
    return TrainConfig(
        name="shipped",
        init_from="outputs/shipped_second/policy",
        data=DataConfig(
            sources=(
                SourceConfig(path=f"{FOLDER}/shipped_insert.zarr", weight=1.4),
                SourceConfig(path=f"{FOLDER}/shipped.zarr", weight=6.0),
                *seasons,
            ),
            generate=GenerationConfig(
                suite="tabletop",
                tasks=("insert",),
                embodiments=("panda", "ur5e", "xarm7", "so101", "gen3"),
                episodes_per_cell=160,
            ),
        ),
        model=ModelConfig(
            width=192, num_heads=6, heads=("flow", "regression"), num_noise=2, keypoint_weight=0.6
        ),
        augment=AugmentConfig(other_share=0.2),
        optim=OptimConfig(batch_size=64, lr=4e-4),
        budget=BudgetConfig(steps=40_000, minutes=12.5),
        checkpoint_minutes=4.0,
    )
