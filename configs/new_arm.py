"""An arm that the shipped policy does not know, from 50 demonstrations of each task.

    vla train configs/new_arm.py --out runs/iiwa14
    vla eval --policy runs/iiwa14/policy --arms iiwa14

Starts from the shipped policy and learns from the new arm alone, a few passes over its 650 episodes. The
policy that comes out drives the new arm; keep the shipped one for the others.
"""

from pathlib import Path

import vla_policies
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

SHIPPED = Path(vla_policies.__file__).parent / "pretrained/tabletop"


def config() -> TrainConfig:
    return TrainConfig(
        name="iiwa14",
        init_from=str(SHIPPED),
        data=DataConfig(
            sources=(SourceConfig(path="outputs/demonstrations/iiwa14.zarr"),),
            generate=GenerationConfig(
                suite="tabletop",
                tasks=(
                    "pick", "place", "push", "stack", "knock", "drawer", "press", "relation", "turn", "slide",
                    "insert", "beside", "unstack",
                ),
                embodiments=("iiwa14",),
                episodes_per_cell=50,
            ),
        ),
        model=ModelConfig(
            width=192, num_heads=6, heads=("flow", "regression"), num_noise=2, keypoint_weight=0.6
        ),
        augment=AugmentConfig(other_share=0.2),
        optim=OptimConfig(batch_size=64, lr=4e-4),
        budget=BudgetConfig(steps=2_400),
    )  # fmt: skip
