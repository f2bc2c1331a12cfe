"""lerobot's side of scripts/bench_data.py; runs in lerobot's own Python.

usage: lerobot's python scripts/bench_data_peer.py write CONTENT.npz ROOT CAMERA...
       lerobot's python scripts/bench_data_peer.py time ROOT BACKEND SECONDS BATCH HORIZON

``write`` stores the frames with lerobot's own writer and its default video settings. ``time`` samples windows
at random through its own loader with 0, 1 and 2 workers. Each prints one JSON line.
"""

import itertools
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

NAME = "bench/tabletop"


def write(content: str, root: str, *cameras: str) -> dict[str, object]:
    data = np.load(content)
    fps = int(data["fps"])
    features: dict = {
        key: {"dtype": "float32", "shape": (data[key].shape[1],), "names": None}
        for key in ("state", "action")
    }
    features["observation.state"] = features.pop("state")
    for camera in cameras:
        height, width = data[camera].shape[1:3]
        features[f"observation.images.{camera}"] = {
            "dtype": "video",
            "shape": (height, width, 3),
            "names": ["height", "width", "channels"],
        }
    begin = time.perf_counter()
    dataset = LeRobotDataset.create(NAME, fps=fps, features=features, root=root, use_videos=True)
    start = 0
    images = {camera: data[camera] for camera in cameras}
    state, action = data["state"], data["action"]
    for length, text in zip(data["lengths"], data["instructions"], strict=True):
        for t in range(start, start + int(length)):
            frame = {f"observation.images.{camera}": images[camera][t] for camera in cameras}
            dataset.add_frame(
                {**frame, "observation.state": state[t], "action": action[t], "task": str(text)}
            )
        dataset.save_episode()
        start += int(length)
    dataset.finalize()
    shutil.rmtree(Path(root) / "images", ignore_errors=True)
    return {"write_s": time.perf_counter() - begin}


def windows_per_s(root: str, backend: str, seconds: float, batch: int, horizon: int, workers: int) -> float:
    fps = LeRobotDataset(NAME, root=root, video_backend=backend).meta.fps
    dataset = LeRobotDataset(
        NAME, root=root, video_backend=backend, delta_timestamps={"action": [i / fps for i in range(horizon)]}
    )
    sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=10**7)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=batch, sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )
    batches, count = iter(loader), 0
    for _ in itertools.repeat(None, 1 + 2 * workers):  # what the workers had ready is not counted
        next(batches)
    begin = time.perf_counter()
    while (spent := time.perf_counter() - begin) < seconds:
        count += len(next(batches)["task"])
    return count / spent


def main() -> None:
    action, *given = sys.argv[1:]
    torch.set_num_threads(1)
    if action == "write":
        print(json.dumps(write(*given)))
        return
    root, backend, seconds, batch, horizon = given
    found: dict[str, object] = {}
    for workers in (2, 1, 0):  # workers are forked before this process has decoded anything
        try:
            found[str(workers)] = windows_per_s(
                root, backend, float(seconds), int(batch), int(horizon), workers
            )
        except (RuntimeError, ImportError, OSError) as error:
            found[str(workers)] = f"{type(error).__name__}: {str(error)[:300]}"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
