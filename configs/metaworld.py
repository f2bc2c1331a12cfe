"""Meta-World's fifty tasks (MT50) from scratch: 50 scripted demonstrations a task, one camera, its sentences.

    scripts/setup_benchmark metaworld
    vla train configs/metaworld.py --out runs/metaworld
    vla train configs/metaworld.py --out runs/metaworld_mt10 --data.generate.tasks mt10
    vla eval --suite metaworld --policy runs/metaworld/policy --episodes 10 --failure-videos 0

The arm runs at 80 Hz, and a task takes it 30 to 300 steps: chunks are long and half of one is executed. Its
state is the hand's position and the opening of the gripper, as in published evaluations. The simulator's
labels of where the target and the goal are teach the net to look; a policy is never told them. Some of the
scripted policies fail if they are pushed about as much as the tabletop's, hence less noise.
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
                suite="metaworld",
                tasks=("mt50",),
                embodiments=("sawyer",),
                episodes_per_cell=50,
                image_size=96,
                noise=0.3,
            ),
            camera_roles=("front",),
            image_size=96,
            approach_share=0.3,
        ),
        model=ModelConfig(
            width=192,
            num_heads=6,
            heads=("flow", "regression"),
            state_slots=("arm0.tcp_position", "arm0.gripper_opening"),
            horizon=16,
            execution_horizon=8,
            num_noise=2,
            keypoint_weight=0.6,
        ),
        augment=AugmentConfig(other_share=0.0),
        optim=OptimConfig(batch_size=64, lr=8e-4),
        budget=BudgetConfig(steps=60_000, minutes=30.0),
        checkpoint_minutes=5.0,
    )
