"""What an answer that a person gives may look like; said in drafts and held against what they give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla.data.solve.kinematics import LENGTH_UNITS
from vla.data.solve.rotation import FORMATS
from vla.errors import DatasetError

ANGLE_UNITS = ("rad", "deg")
_ANGLE_CHANGES = tuple(f"{unit}/{per}" for unit in ANGLE_UNITS for per in ("step", "s"))
_LENGTH_CHANGES = tuple(f"{unit}/{per}" for unit in LENGTH_UNITS for per in ("step", "s"))
#: question -> the words that answer it
CHOICES: Mapping[str, tuple[str, ...]] = {
    "position_unit": tuple(LENGTH_UNITS),
    "joint_unit": ANGLE_UNITS,
    "rotation_unit": (*ANGLE_UNITS, ""),
    "action_mode": ("delta", "absolute", "velocity"),
    "action_frame": ("world", "tool"),
    "action_unit": (*LENGTH_UNITS, *_LENGTH_CHANGES),
    "action_rotation_unit": ("", *ANGLE_UNITS, *_ANGLE_CHANGES),
    "joint_action_unit": (*ANGLE_UNITS, *_ANGLE_CHANGES),
}
_PLACE = '{"column": NAME, "start": ENTRY'
#: question -> how an answer is written, for people; ``|`` between choices
_FORMS: Mapping[str, str] = {
    "control_hz": "steps a second",
    "action_lag": "steps from an action's row to the state it was given in: 0 or more",
    "position": _PLACE + '}, and where they are not x y z: "axes": [0, 1, 2], "signs": [1, 1, 1]',
    "rotation": _PLACE + ', "format": ' + " | ".join(FORMATS) + "}",
    "joints": _PLACE + ', "size": NUMBER}',
    "action_position": _PLACE + "}",
    "action_rotation": _PLACE + ', "format": ' + " | ".join((*FORMATS, "yaw")) + "}",
    "joint_action": _PLACE + ', "size": NUMBER, "mode": delta | absolute | velocity}',
    "gripper_action": _PLACE + ', "open": VALUE, "closed": VALUE}',
    "gripper_state": _PLACE + ', "open": VALUE, "closed": VALUE}',
}
_KEYS: Mapping[str, tuple[str, ...]] = {
    "rotation": ("format",),
    "action_rotation": ("format",),
    "joints": ("size",),
    "joint_action": ("size", "mode"),
    "gripper_action": ("open", "closed"),
    "gripper_state": ("open", "closed"),
}
_CAMERA = '{"camera": NAME, "role": front | wrist ..., "flip": none | vertical ..., "bgr": true | false}'


def form_of(question: str) -> str:
    """How an answer is written; null besides, where the data may lack such a thing."""
    if question in CHOICES:
        return " | ".join(word or '""' for word in CHOICES[question])
    return _CAMERA if question.startswith("camera.") else _FORMS[question]


def check_form(where: str, question: str, value: Any) -> None:
    """Raise where an answer, which a person may have typed, is not of the kind that the question asks for."""
    if _fits(question, value):
        return
    raise DatasetError(f"{where} is {value!r}, expected {form_of(question)}.")


def _fits(question: str, value: Any) -> bool:
    if question in CHOICES:
        return value in CHOICES[question]
    if question == "control_hz":
        return isinstance(value, int | float) and 0 < value < 1e5
    if question == "action_lag":
        return isinstance(value, int) and value >= 0
    if question == "rotation_sign_flips":
        return True
    if not isinstance(value, Mapping):
        return False
    return set(keys_of(question)) <= set(value) and value.get("format", "yaw") in (*FORMATS, "yaw")


def keys_of(question: str) -> tuple[str, ...]:
    """Keys that the answer's object must have."""
    if question.startswith("camera."):
        return ("camera",)
    if question in CHOICES or "column" not in _FORMS.get(question, ""):
        return ()
    return ("column", "start", *_KEYS.get(question, ()))
