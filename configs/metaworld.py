"""Meta-World from scratch: 50 scripted demonstrations a task, one camera, the benchmark's own sentences.

    scripts/setup_benchmark metaworld
    vla train configs/metaworld.py                                        # the ten tasks of MT10
    vla train configs/metaworld.py --data.generate.tasks mt50 --budget.steps 60000
    vla eval --suite metaworld --policy runs/metaworld/policy --episodes 10

The arm runs at 80 Hz, and a task takes it 30 to 300 steps: chunks are long and half of one is executed. Its
state is the hand's position and the opening of the gripper, as in published evaluations.
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
        name="metaworld",
        data=DataConfig(
            sources=(SourceConfig(path="outputs/demonstrations/metaworld.zarr"),),
            generate=GenerationConfig(
                suite="metaworld", tasks=("mt10",), embodiments=("sawyer",), episodes_per_cell=50
            ),
            camera_roles=("front",),
            approach_share=0.0,
        ),
        model=ModelConfig(
            width=128,
            heads=("flow", "regression"),
            state_slots=("arm0.tcp_position", "arm0.gripper_opening"),
            horizon=16,
            execution_horizon=8,
        ),
        augment=AugmentConfig(other_share=0.0),
        optim=OptimConfig(batch_size=64, lr=1e-3),
        budget=BudgetConfig(steps=20_000),
    )
