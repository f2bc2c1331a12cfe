"""An episode as a store keeps it: checked against its embodiment and laid out as columns and pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from vla.data.frames import Encoded
from vla.embodiment import Embodiment
from vla.errors import StoreError
from vla.text import quoted
from vla.types import Episode

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check_name(kind: str, name: str) -> str:
    """A name that becomes a directory of the store."""
    if not _NAME.fullmatch(name):
        raise StoreError(f"The {kind} {name!r} cannot be stored: use letters, digits, '_', '.' and '-'.")
    return name


def lay_out(
    episode: Episode, embodiment: Embodiment, encoded: Mapping[str, Encoded]
) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray]]]:
    """Check an episode and lay it out: columns to write, and the images of each camera to encode.

    Of cameras in ``encoded`` the steps have no images.
    """
    if not episode.steps:
        raise StoreError("An episode without steps cannot be stored.")
    observations = [step.observation for step in episode.steps]
    for t, seen in enumerate(observations):
        if seen.embodiment != episode.embodiment or seen.instruction != episode.instruction:
            raise StoreError(
                f"Step {t} is of {seen.embodiment!r} told {seen.instruction!r}, the episode of "
                f"{episode.embodiment!r} told {episode.instruction!r}: split it where they change."
            )
    columns = {
        "time_s": np.array([seen.time_s for seen in observations], np.float64),
        "action": np.stack([embodiment.check_action(step.action) for step in episode.steps]),
        "executed": np.stack([embodiment.check_action(step.executed) for step in episode.steps]),
    }
    if embodiment.state_dim:
        columns["state"] = np.stack([embodiment.pack_state(seen.state) for seen in observations])
    if any(set(seen.aux) != set(observations[0].aux) for seen in observations):
        raise StoreError("Aux keys differ between steps: use NaN where a quantity does not exist.")
    for key in observations[0].aux:
        values = [np.atleast_1d(np.asarray(seen.aux[key], np.float32)) for seen in observations]
        if len({value.shape for value in values}) != 1 or values[0].ndim != 1:
            raise StoreError(f"Aux {key!r} must be one vector of a fixed size at each step.")
        columns[f"aux/{check_name('aux key', key)}"] = np.stack(values)
    for camera, (pictures, _) in encoded.items():
        if len(pictures) != len(episode):
            raise StoreError(f"Camera {camera!r} has {len(pictures)} pictures, the episode {len(episode)}.")
    cameras = [camera for camera in embodiment.cameras if camera.name not in encoded]
    frames: dict[str, list[np.ndarray]] = {camera.name: [] for camera in cameras}
    for t, seen in enumerate(observations):
        if set(seen.images) != set(frames):
            raise StoreError(
                f"Step {t} has images of {quoted(sorted(seen.images))}, {embodiment.name!r} has "
                f"{quoted(sorted(frames))}."
            )
        for camera in cameras:
            image = np.asarray(seen.images[camera.name])
            if image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
                raise StoreError(
                    f"Step {t}, camera {camera.name!r}: {image.dtype} {image.shape}, expected uint8 "
                    f"({camera.height}, {camera.width}, 3) as {embodiment.name!r} says."
                )
            frames[camera.name].append(image)
    return columns, frames
