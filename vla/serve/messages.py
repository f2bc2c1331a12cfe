"""Observations and chunks as maps of a message: what our own client and server say to each other.

Client to server: ``{type: open, embodiment}``, ``{type: act, observations}``, ``{type: reset}``. Server to
client: first the metadata, unasked; then one answer a message, in order: ``opened``, ``chunks``, ``done`` or
``{type: error, error, message}``. A message without ``type`` is one of openpi's (``vla.serve.keys``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vla.errors import ActionError, ObservationError, UnknownNameError, WireError
from vla.types import ActionChunk, Observation, Promise

VERSION = 1
#: Bytes of an instruction, UTF-8: a page.
MAX_INSTRUCTION = 4096
#: Observations that one message may ask about.
MAX_OBSERVATIONS = 64

_KEYS = ("images", "state", "instruction", "embodiment", "time_s", "episode")


def observation_to_wire(observation: Observation) -> dict[str, Any]:
    """Everything a policy may see; ``aux``, which only a simulator knows, stays behind."""
    message = {key: getattr(observation, key) for key in _KEYS}
    message.update(images=dict(observation.images), state=dict(observation.state))
    if observation.promise is not None:
        message["promise"] = {"actions": observation.promise.actions, "frozen": observation.promise.frozen}
    return message


def observation_from_wire(message: object) -> Observation:
    """Strict inverse of :func:`observation_to_wire`; whether it fits the policy is for its contract to say.

    Raises:
        ObservationError: a key is missing, unknown or of another kind; what was given is named.
    """
    given = _mapping(message, "observation", (*_KEYS, "promise"))
    if missing := [key for key in _KEYS if key not in given]:
        raise ObservationError(f"An observation without {', '.join(missing)}; it has {sorted(given)}.")
    embodiment, episode = given["embodiment"], given["episode"]
    if not isinstance(embodiment, str):
        raise ObservationError(f"'embodiment' is {type(embodiment).__name__}, expected a text.")
    if type(episode) is not int or episode < 0:
        raise ObservationError(f"'episode' is {episode!r:.80}, expected a whole number from 0.")
    images = {name: image_of(name, value) for name, value in _mapping(given["images"], "images").items()}
    state = {name: numbers_of(name, value) for name, value in _mapping(given["state"], "state").items()}
    return Observation(
        images=images,
        state=state,
        instruction=instruction_of("instruction", given["instruction"]),
        embodiment=embodiment,
        time_s=seconds_of("time_s", given["time_s"]),
        episode=episode,
        promise=None if "promise" not in given else _promise(given["promise"]),
    )


def chunk_to_wire(chunk: ActionChunk) -> dict[str, Any]:
    """Actions float32 [horizon, action_dim], rate in Hz, and what the policy says about them."""
    return {"actions": chunk.actions, "control_hz": float(chunk.control_hz), "info": dict(chunk.info)}


def chunk_from_wire(message: object) -> ActionChunk:
    """Inverse of :func:`chunk_to_wire`, but that tuples in ``info`` are lists."""
    given = _mapping(message, "chunk", ("actions", "control_hz", "info"))
    if len(given) < 3:
        raise WireError(f"A chunk with {sorted(given)}; expected actions, control_hz, info.")
    actions = given["actions"]
    if not isinstance(actions, np.ndarray) or actions.dtype != np.float32 or actions.ndim != 2:
        raise ActionError(
            f"The server answered with actions {_kind(actions)}; expected float32 [horizon, dim]."
        )
    return ActionChunk(
        actions=actions, control_hz=seconds_of("control_hz", given["control_hz"]), info=given["info"]
    )


def image_of(key: str, value: object) -> np.ndarray:
    """uint8 [h, w, 3], or :class:`ObservationError`."""
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3:
        raise ObservationError(
            f"{key!r} is {_kind(value)}; expected a picture, uint8 [height, width, 3], RGB."
        )
    if not value.size:
        raise ObservationError(f"{key!r} is a picture without pixels: shape {value.shape}.")
    return value


def numbers_of(key: str, value: object) -> np.ndarray:
    """float32 [n], finite, from floats of any width; or :class:`ObservationError`."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim != 1:
        raise ObservationError(f"{key!r} is {_kind(value)}; expected numbers, float32 [n].")
    numbers = value
    if value.dtype != np.float32:
        with np.errstate(over="ignore"):
            numbers = value.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ObservationError(f"{key!r} is not finite: {value!s:.200}.")
    return numbers


def instruction_of(key: str, value: object) -> str:
    """Text of at most a page, or :class:`ObservationError`."""
    if not isinstance(value, str):
        raise ObservationError(f"{key!r} is {_kind(value)}; expected the instruction as a text.")
    if len(value.encode()) > MAX_INSTRUCTION:
        raise ObservationError(
            f"{key!r} has {len(value)} characters; expected at most {MAX_INSTRUCTION} bytes."
        )
    return value


def seconds_of(key: str, value: object) -> float:
    """A finite number from 0, or :class:`ObservationError`."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) not in (int, float) or not 0 <= value < float("inf"):  # type: ignore[operator]
        raise ObservationError(f"{key!r} is {value!r:.80}; expected a finite number from 0.")
    return float(value)  # type: ignore[arg-type]


def _promise(message: object) -> Promise:
    given = _mapping(message, "promise", ("actions", "frozen"))
    actions, frozen = given.get("actions"), given.get("frozen")
    if not isinstance(actions, np.ndarray) or actions.dtype != np.float32 or actions.ndim != 2:
        raise ObservationError(f"'promise' holds actions {_kind(actions)}; expected float32 [n, action_dim].")
    if not np.isfinite(actions).all() or type(frozen) is not int or not 0 <= frozen <= len(actions):
        raise ObservationError(
            f"'promise' of {len(actions)} actions, frozen {frozen!r:.80}: expected finite actions and 0 .. n."
        )
    return Promise(actions=actions, frozen=frozen)


def _mapping(value: object, what: str, known: tuple[str, ...] | None = None) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ObservationError(f"{what!r} is {_kind(value)}; expected a map.")
    for key in value:
        if known is not None and key not in known:
            raise UnknownNameError(f"key of {what!r}", str(key), known)
    return value


def _kind(value: object) -> str:
    """What something is, in a few words."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return "nothing" if value is None else f"a {type(value).__name__}"
