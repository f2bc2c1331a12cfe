"""What an episode takes away from a policy or changes under it, to see whether it uses it or minds it.

Deprivations are policies that wrap a policy: what it sees or hears is changed, the world is not.
Perturbations are asked of the env (``reset(options={"perturbation": name})``); a suite says in
``perturbations`` which it knows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import get_args

import cv2
import numpy as np

from vla.control.policies import Contract, check_continues, check_contract, contract_of
from vla.embodiment import CameraRole, Embodiment
from vla.errors import UnknownNameError
from vla.interfaces import Policy, Suite
from vla.types import ActionChunk, Observation

MID_GREY = 128
LOW_RES_FACTOR = 3

#: name -> what the policy is deprived of.
DEPRIVATIONS: Mapping[str, str] = {
    "blank": "every picture is plain grey",
    **{f"no_{role}": f"the {role} camera is plain grey" for role in get_args(CameraRole)},
    "frozen": "every picture is the first one of the episode",
    "low_res": f"every picture has 1/{LOW_RES_FACTOR} of its resolution",
    "no_words": "the instruction is empty",
    "shuffled": "the words of the instruction come in another order",
}
#: name -> what the env changes, where its suite knows how.
PERTURBATIONS: Mapping[str, str] = {
    "camera_pose": "the cameras stand a little elsewhere",
    "lighting": "light from elsewhere, of another strength and tint",
    "texture": "the table looks otherwise",
    "start_pose": "the arm starts elsewhere",
    "distractors": "what the instruction does not mean has other colours",
}


def check_ablation(name: str) -> None:
    """Raise :class:`UnknownNameError` unless it is ``none``, a deprivation or a perturbation."""
    known = ("none", *DEPRIVATIONS, *PERTURBATIONS)
    if name not in known:
        raise UnknownNameError("ablation", name, known)


def perturbations_of(suite: Suite) -> tuple[str, ...]:
    """Those that a suite knows, in the order of :data:`PERTURBATIONS`."""
    known = getattr(suite, "perturbations", ())
    return tuple(name for name in PERTURBATIONS if name in known)


class DeprivedPolicy:
    """A policy that sees or hears less than there is; ``none`` and perturbations take nothing away.

    Args:
        policy: whose contract this one passes on.
        name: see :data:`DEPRIVATIONS`.
        embodiment: whose cameras have the roles.
        seed: of the order of shuffled words.
        first_sight: told what the policy is given first.
    """

    def __init__(
        self,
        policy: Policy,
        name: str,
        embodiment: Embodiment,
        seed: int = 0,
        first_sight: Callable[[Observation], None] | None = None,
    ) -> None:
        check_ablation(name)
        self._first_sight = first_sight
        self.policy, self.name, self._seed = policy, name, seed
        self._roles = {camera.name: camera.role for camera in embodiment.cameras}
        self._first: dict[int, Mapping[str, np.ndarray]] = {}
        self._took = name not in DEPRIVATIONS

    @property
    def took(self) -> bool:
        """Whether anything was taken away so far; not from an arm without that camera, for one."""
        return self._took

    @property
    def contract(self) -> Contract | None:
        """That of the wrapped policy."""
        return contract_of(self.policy)

    def check(self, embodiment: Embodiment) -> None:
        """Refuse what the wrapped policy refuses."""
        check_contract(self.policy, embodiment)

    def check_continues(self) -> None:
        """Refuse what the wrapped policy refuses."""
        check_continues(self.policy)

    def reset(self) -> None:
        self._first.clear()
        self.policy.reset()

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        given = [self._deprive(observation) for observation in observations]
        self._took = self._took or any(map(_differ, observations, given))
        if self._first_sight is not None:
            self._first_sight(given[0])
            self._first_sight = None
        return self.policy.act(given)

    def _deprive(self, seen: Observation) -> Observation:
        name = self.name
        if name == "blank":
            return _with_images(seen, lambda camera, image: np.full_like(image, MID_GREY))
        if name.startswith("no_") and name != "no_words":
            gone = name.removeprefix("no_")
            return _with_images(
                seen,
                lambda camera, image: (
                    np.full_like(image, MID_GREY) if self._roles.get(camera) == gone else image
                ),
            )
        if name == "frozen":
            first = self._first.setdefault(seen.episode, {k: v.copy() for k, v in seen.images.items()})
            return replace(seen, images=first)
        if name == "low_res":
            return _with_images(seen, lambda camera, image: _coarse(image))
        if name == "no_words":
            return replace(seen, instruction="")
        if name == "shuffled":
            return replace(seen, instruction=shuffled(seen.instruction, self._seed))
        return seen


def shuffled(instruction: str, seed: int) -> str:
    """The same words in another order, wherever there are two different ones; the same for the same seed."""
    words = instruction.split()
    rng = np.random.default_rng([seed, zlib.crc32(instruction.encode())])
    if len(set(words)) < 2:
        return instruction
    while True:
        order = [words[i] for i in rng.permutation(len(words))]
        if order != words:
            return " ".join(order)


def _differ(seen: Observation, given: Observation) -> bool:
    return seen.instruction != given.instruction or any(
        not np.array_equal(image, given.images[name]) for name, image in seen.images.items()
    )


def _with_images(seen: Observation, change: Callable[[str, np.ndarray], np.ndarray]) -> Observation:
    return replace(seen, images={name: change(name, image) for name, image in seen.images.items()})


def _coarse(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    small = (max(1, width // LOW_RES_FACTOR), max(1, height // LOW_RES_FACTOR))
    return cv2.resize(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height))
