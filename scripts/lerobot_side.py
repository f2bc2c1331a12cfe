"""What lerobot makes of a data set; run in its own Python by scripts/check_lerobot.py.

usage: lerobot's python scripts/lerobot_side.py DATASET NUMBERS.npz

Reads every frame through lerobot's own loader, with windows (8 actions, 2 pictures of one camera), and trains
its ACT policy on it for 3 steps. Writes what it read (numbers and every 5th picture) to NUMBERS.npz and
prints one JSON line.
"""

import json
import logging
import sys
import time

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.factory import make_pre_post_processors
from lerobot.utils.feature_utils import dataset_to_policy_features

HORIZON, BATCH, STEPS = 8, 4, 3
NUMBERS = ("observation.state", "action", "executed", "time_s", "timestamp", "episode_index", "frame_index")


def read_all(dataset: LeRobotDataset) -> dict[str, np.ndarray]:
    """Every item once: numbers, instructions, and the pictures of every 5th."""
    found: dict[str, list] = {}
    for i in range(len(dataset)):
        item = dataset[i]
        for key in NUMBERS:
            if key in item:
                found.setdefault(key, []).append(item[key].numpy())
        found.setdefault("task", []).append(item["task"])
        if i % 5 == 0:
            for key in dataset.meta.camera_keys:
                picture = (item[key] * 255).round().to(torch.uint8).permute(1, 2, 0)
                found.setdefault(key, []).append(picture.numpy())
    return {key: np.stack(values) if key != "task" else np.array(values) for key, values in found.items()}


def windows(root: str, fps: float) -> LeRobotDataset:
    first = LeRobotDataset("check/export", root=root, video_backend="pyav").meta.camera_keys[:1]
    deltas = {"action": [i / fps for i in range(HORIZON)], **{key: [-1 / fps, 0.0] for key in first}}
    return LeRobotDataset("check/export", root=root, video_backend="pyav", delta_timestamps=deltas)


def train(root: str, fps: float) -> dict[str, object]:
    """A few optimiser steps of a small ACT on batches from the data set."""
    deltas = {"action": [i / fps for i in range(HORIZON)]}
    dataset = LeRobotDataset("check/export", root=root, video_backend="pyav", delta_timestamps=deltas)
    features = dataset_to_policy_features(dataset.meta.features)
    config = ACTConfig(
        input_features={key: f for key, f in features.items() if key.startswith("observation")},
        output_features={key: f for key, f in features.items() if key == "action"},
        chunk_size=HORIZON,
        n_action_steps=HORIZON,
        pretrained_backbone_weights=None,
        dim_model=64,
        n_heads=4,
        dim_feedforward=128,
        device="cpu",
        push_to_hub=False,
    )
    torch.manual_seed(0)
    policy = ACTPolicy(config)
    prepare, _ = make_pre_post_processors(config, dataset_stats=dataset.meta.stats)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=BATCH, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    optimiser = torch.optim.AdamW(policy.get_optim_params(), lr=1e-4)
    losses, gradient = [], 0.0
    policy.train()
    for _, batch in zip(range(STEPS), loader, strict=False):
        loss, _ = policy.forward(prepare(batch))
        optimiser.zero_grad()
        loss.backward()
        gradient = sum(float(p.grad.abs().sum()) for p in policy.parameters() if p.grad is not None)
        optimiser.step()
        losses.append(float(loss))
    inputs, outputs = sorted(config.input_features), sorted(config.output_features)
    return {"losses": losses, "gradient": gradient, "inputs": inputs, "outputs": outputs}


def main() -> None:
    logging.disable(logging.WARNING)
    root, numbers = sys.argv[1:]
    torch.set_num_threads(1)
    dataset = LeRobotDataset("check/export", root=root, video_backend="pyav")
    start = time.perf_counter()
    read = read_all(dataset)
    seconds = time.perf_counter() - start
    np.savez(numbers, **read)
    window = windows(root, dataset.fps)
    shapes = {key: list(v.shape) for key, v in window[len(window) - 1].items() if isinstance(v, torch.Tensor)}
    stats = dataset.meta.stats or {}
    lacking = [
        key
        for key in ("observation.state", "action", *dataset.meta.camera_keys)
        if not {"mean", "std", "min", "max", "q01", "q99"} <= set(stats.get(key, {}))
    ]
    facts = {
        "episodes": dataset.num_episodes,
        "frames": len(dataset),
        "frames_per_s": len(dataset) / seconds,
        "window_shapes": shapes,
        "without_stats": lacking,
        "train": train(root, dataset.fps),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
