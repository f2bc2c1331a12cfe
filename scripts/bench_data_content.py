"""What scripts/bench_data.py measures on: rendered tabletop demonstrations seen by cameras of two sizes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla import registry
from vla.data.codec import Codec
from vla.data.record import record_episode
from vla.data.store import EpisodeStore
from vla.embodiment import Camera, CameraRole, Embodiment
from vla.types import Episode, Observation, Step

TASKS = ("place", "drawer", "stack", "push")
SEED = 1_000_000
# camera -> its role (free ones for the larger pictures), the env's camera, pixels
CAMERAS: dict[str, tuple[CameraRole, str, int]] = {
    "front": ("front", "front", 128),
    "wrist": ("wrist", "wrist", 128),
    "front_256": ("side", "front", 256),
    "wrist_256": ("top", "wrist", 256),
}
CONTENTS = {"128 px": ("front", "wrist"), "four cameras": tuple(CAMERAS)}


def render(arm_name: str, count: int) -> tuple[Embodiment, list[Episode]]:
    """Expert demonstrations seen at both sizes: the scene is stepped twice with the same actions."""
    suite, episodes = registry.suite("tabletop"), []
    for number in range(count):
        task = TASKS[number % len(TASKS)]
        large = suite.make(task, arm_name, image_size=256)
        small = suite.make(task, arm_name, image_size=128)
        seed = SEED + number // len(TASKS)
        episode, steps = record_episode(large, suite.expert(large), seed=seed), []
        seen, _ = small.reset(seed=seed, options={})
        for step in episode.steps:
            images = {
                name: np.array((seen["images"] if size == 128 else step.observation.images)[camera])
                for name, (_, camera, size) in CAMERAS.items()
            }
            steps.append(replace(step, observation=replace(step.observation, images=images, aux={})))
            seen = small.step(step.executed)[0]
        provenance = {"task": task, "seed": seed}
        episodes.append(replace(episode, steps=tuple(steps), provenance=provenance))
        arm = large.embodiment
        large.close()
        small.close()
    return replace(arm, cameras=cameras_of(tuple(CAMERAS))), episodes


def cameras_of(names: tuple[str, ...]) -> tuple[Camera, ...]:
    return tuple(
        Camera(name=name, role=CAMERAS[name][0], height=CAMERAS[name][2], width=CAMERAS[name][2])
        for name in names
    )


def with_cameras(episode: Episode, names: tuple[str, ...]) -> Episode:
    def keep(seen: Observation) -> Observation:
        return replace(seen, images={name: seen.images[name] for name in names})

    steps = (
        Step(observation=keep(s.observation), action=s.action, executed=s.executed) for s in episode.steps
    )
    return replace(episode, steps=tuple(steps))


def save_raw(arm: Embodiment, episodes: list[Episode], path: Path) -> None:
    """Frames and numbers as they are, for lerobot's writer and for the next run."""
    seen = [step.observation for episode in episodes for step in episode.steps]
    arrays: dict[str, Any] = {name: np.stack([o.images[name] for o in seen]) for name in CAMERAS}
    arrays["state"] = np.stack([arm.pack_state(o.state) for o in seen])
    arrays["action"] = np.stack([step.action for episode in episodes for step in episode.steps])
    arrays["lengths"] = np.array([len(episode) for episode in episodes])
    arrays["instructions"] = np.array([episode.instruction for episode in episodes])
    arrays["tasks"] = np.array([str(episode.provenance["task"]) for episode in episodes])
    arrays["fps"], arrays["arm"] = np.array(arm.control_hz), np.array(json.dumps(arm.to_json()))
    np.savez(path, **arrays)


def load_raw(path: Path) -> tuple[Embodiment, list[Episode]]:
    data = dict(np.load(path))
    arm, start, episodes = Embodiment.from_json(json.loads(str(data["arm"]))), 0, []
    for number, length in enumerate(data["lengths"].tolist()):
        steps = tuple(
            Step(
                observation=Observation(
                    images={name: data[name][t] for name in CAMERAS},
                    state=arm.unpack_state(data["state"][t]),
                    instruction=str(data["instructions"][number]),
                    embodiment=arm.name,
                    time_s=(t - start) / arm.control_hz,
                ),
                action=data["action"][t],
                executed=data["action"][t],
            )
            for t in range(start, start + length)
        )
        provenance = {"task": str(data["tasks"][number])}
        episodes.append(
            Episode(
                steps=steps,
                instruction=steps[0].observation.instruction,
                embodiment=arm.name,
                success=True,
                provenance=provenance,
            )
        )
        start += length
    return arm, episodes


def fill(
    path: Path,
    arm: Embodiment,
    episodes: list[Episode],
    cameras: tuple[str, ...],
    codec: Codec | None = None,
) -> EpisodeStore:
    arm = replace(arm, cameras=cameras_of(cameras))
    with EpisodeStore.create(path, embodiments=[arm], codec=codec) as store:
        for episode in episodes:
            store.append(with_cameras(episode, cameras))
    return EpisodeStore.open(path)
