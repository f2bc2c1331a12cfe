"""Which key of a foreign client's message is which camera or state field: written down, never guessed.

openpi's clients send one flat map whose keys every policy chooses; vla-eval sends ``images``, ``state`` and
``task_description``. A :class:`KeyMap` says for one embodiment what each key means. It is part of what the
server says first, and whatever is missing, unknown or of another size is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from vla.embodiment import Embodiment
from vla.errors import ConfigError, ObservationError, UnknownNameError
from vla.serve.messages import image_of, instruction_of, numbers_of, seconds_of
from vla.types import Observation

#: Longest side of a picture that is resized, px.
MAX_SIDE = 2048

#: Key of the camera with that role in openpi's own LIBERO and DROID clients.
_OPENPI_KEYS = {"front": "observation/image", "wrist": "observation/wrist_image"}
#: Key of the sentence in most of GR00T's data sets.
GR00T_INSTRUCTION = "annotation.human.task_description"
#: Key of seconds since the episode began; only policies that remember need it.
TIME = "time_s"


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """What the keys of a message mean for one embodiment; nested maps have keys joined by ``/``.

    Args:
        embodiment: whose observation it becomes.
        images: key -> camera name.
        state: key -> state fields, whose numbers stand one after the other.
        instruction: key of the sentence.
        image_size: px, of the squares that the policy was trained on.
    """

    embodiment: Embodiment
    images: Mapping[str, str]
    state: Mapping[str, tuple[str, ...]]
    instruction: str
    image_size: int

    def __post_init__(self) -> None:
        cameras = [camera.name for camera in self.embodiment.cameras]
        for name in self.images.values():
            if name not in cameras:
                raise UnknownNameError(f"camera of {self.embodiment.name!r}", name, cameras)
        mapped = sorted(name for names in self.state.values() for name in names)
        fields = sorted(member.name for member in self.embodiment.state)
        if mapped != fields:
            raise ConfigError(
                f"The keys of {self.embodiment.name!r} give the state fields {mapped}; expected each once: "
                f"{fields}."
            )

    @classmethod
    def openpi(cls, embodiment: Embodiment, roles: Sequence[str], image_size: int) -> KeyMap:
        """``observation/image`` (front), ``observation/wrist_image``, ``observation/state``, ``prompt``.

        Cameras of other roles are ``observation/ROLE_image``.
        """
        return cls(
            embodiment=embodiment,
            images={
                _OPENPI_KEYS.get(camera.role, f"observation/{camera.role}_image"): camera.name
                for camera in embodiment.cameras
                if camera.role in roles
            },
            state={"observation/state": tuple(member.name for member in embodiment.state)},
            instruction="prompt",
            image_size=image_size,
        )

    @classmethod
    def vla_eval(cls, embodiment: Embodiment, roles: Sequence[str], image_size: int) -> KeyMap:
        """``images`` by the embodiment's own camera names, ``state``, ``task_description``."""
        cameras = [camera.name for camera in embodiment.cameras if camera.role in roles]
        return cls(
            embodiment=embodiment,
            images={f"images/{name}": name for name in cameras},
            state={"state": tuple(member.name for member in embodiment.state)},
            instruction="task_description",
            image_size=image_size,
        )

    @classmethod
    def act(cls, embodiment: Embodiment, roles: Sequence[str], image_size: int) -> KeyMap:
        """``full_image`` (front), ``wrist_image``, ``state``, ``instruction``, as OpenVLA-OFT has them.

        The only camera is ``image``, as OpenVLA has it; those of other roles are ``ROLE_image``.
        """
        cameras = [camera for camera in embodiment.cameras if camera.role in roles]
        front = "image" if len(cameras) == 1 else "full_image"
        return cls(
            embodiment=embodiment,
            images={
                front if camera.role == "front" else f"{camera.role}_image": camera.name for camera in cameras
            },
            state={"state": tuple(member.name for member in embodiment.state)},
            instruction="instruction",
            image_size=image_size,
        )

    @classmethod
    def gr00t(cls, embodiment: Embodiment, roles: Sequence[str], image_size: int) -> KeyMap:
        """``video``, ``state`` and ``language``: cameras and fields by the embodiment's own names."""
        cameras = [camera.name for camera in embodiment.cameras if camera.role in roles]
        return cls(
            embodiment=embodiment,
            images={f"video/{name}": name for name in cameras},
            state={f"state/{member.name}": (member.name,) for member in embodiment.state},
            instruction=f"language/{GR00T_INSTRUCTION}",
            image_size=image_size,
        )

    def observation(self, message: object) -> tuple[Observation, dict[str, list[list[int]]]]:
        """A client's message as an observation, and the pictures that were resized: key -> [from, to], px.

        Raises:
            ObservationError, UnknownNameError: naming the key, what it held and what was expected.
        """
        given = flattened(message)
        known = (*self.images, *self.state, self.instruction, TIME)
        for key in given:
            if key not in known:
                raise UnknownNameError(f"key of an observation of {self.embodiment.name!r}", key, known)
        if missing := [key for key in known[:-1] if key not in given]:
            raise ObservationError(
                f"An observation of {self.embodiment.name!r} without {', '.join(map(repr, missing))}; "
                f"it has {sorted(given)}."
            )
        resized: dict[str, list[list[int]]] = {}
        images = {}
        for key, name in self.images.items():
            image = image_of(key, given[key])
            images[name] = fitted(key, image, self.image_size)
            if images[name] is not image:
                resized[key] = [list(image.shape[:2]), [self.image_size] * 2]
        observation = Observation(
            images=images,
            state=self._state(given),
            instruction=instruction_of(self.instruction, given[self.instruction]),
            embodiment=self.embodiment.name,
            time_s=seconds_of(TIME, given.get(TIME, 0.0)),
        )
        return observation, resized

    def _state(self, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        sizes = {member.name: member.size for member in self.embodiment.state}
        state: dict[str, np.ndarray] = {}
        for key, names in self.state.items():
            numbers, expected = numbers_of(key, given[key]), sum(sizes[name] for name in names)
            if len(numbers) != expected:
                listing = ", ".join(f"{name} ({sizes[name]})" for name in names)
                raise ObservationError(
                    f"{key!r} has {len(numbers)} numbers; {self.embodiment.name!r} has {expected}: {listing}."
                )
            start = 0
            for name in names:
                state[name] = numbers[start : start + sizes[name]]
                start += sizes[name]
        return state

    def to_json(self) -> dict[str, Any]:
        """Every key with what it shall hold, for the client's author to read."""
        size, fields = self.image_size, {member.name: member for member in self.embodiment.state}
        said: dict[str, Any] = {
            key: {"camera": name, "dtype": "uint8", "shape": [size, size, 3], "order": "RGB"}
            for key, name in self.images.items()
        }
        for key, names in self.state.items():
            said[key] = {
                "dtype": "float32",
                "shape": [sum(fields[name].size for name in names)],
                "fields": [
                    [name, fields[name].size, fields[name].unit, fields[name].frame] for name in names
                ],
            }
        return {
            **said,
            self.instruction: {"dtype": "text"},
            TIME: {"dtype": "float", "unit": "s", "optional": True},
        }


def flattened(message: object) -> dict[str, Any]:
    """The maps inside a message as part of it, keys joined by ``/``; a key that then stands twice raises."""
    if not isinstance(message, dict):
        raise ObservationError(f"An observation that is a {type(message).__name__}; expected a map.")
    flat: dict[str, Any] = {}
    for key, value in message.items():
        nested = isinstance(value, dict) and len(value) > 0
        parts = {f"{key}/{k}": v for k, v in value.items()} if nested else {key: value}
        if twice := sorted(set(parts) & set(flat)):
            raise ObservationError(f"An observation with two things under {twice[0]!r}.")
        flat.update(parts)
    return flat


def fitted(key: str, image: np.ndarray, size: int) -> np.ndarray:
    """A square of ``size`` px from a square of any; the same array where nothing is to be done.

    Raises:
        ObservationError: it is no square (what to pad or cut is for the client to say), or too large.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    if height != width or height > MAX_SIDE:
        raise ObservationError(
            f"{key!r} is {height} x {width} px; expected {size} x {size}, or a square of at most {MAX_SIDE}, "
            "which is resized. Pad or cut it as in the demonstrations: the server does not guess."
        )
    how = cv2.INTER_AREA if height > size else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=how)
