"""The contracts between the rooms of the house: Policy, Env, Suite, and how they meet.

Everything here is a Protocol: implementations need not inherit, and ``vla.testing`` holds the
contract suites that every implementation must pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from vla.embodiment import Embodiment
from vla.errors import UnknownNameError
from vla.types import ActionChunk, Observation

Wording = Literal["train", "heldout"]
Variant = Literal["base", "swapped"]
#: How much of the grounding audit an evaluation runs besides (``vla.eval.audit``).
AuditForm = Literal["off", "short", "full"]
#: What runs the workers of an evaluation.
Engine = Literal["processes", "ray"]

#: Demonstrations use this seed and those above, evaluation those below (by convention below 100 000): a
#: policy must not be judged on its lessons.
TRAIN_SEED = 1_000_000

#: Most things of a scene that are labelled by name.
NUM_THINGS = 6

#: Privileged quantities every tabletop env puts into ``info["aux"]`` / ``Observation.aux`` (float32).
#: NaN where a quantity does not exist for the task. Used as training labels and diagnostics only.
AUX_KEYS: Mapping[str, int] = {
    "target_position": 3,  # m, world: the object or handle to act on
    "goal_position": 3,  # m, world: where it shall go (NaN: no goal)
    "front_target_uv": 2,  # [-1, 1] x right, y down, in the front camera (NaN: outside)
    "front_goal_uv": 2,
    "wrist_target_uv": 2,
    "wrist_goal_uv": 2,
    "phase": 1,  # 0 approach target, 1 at target (grasp/contact), 2 transport, 3 release/retreat
    # what another instruction would mean in this very scene: which one may change from step to step
    "other_instruction": 1,  # index into ``info["other_instructions"]`` (NaN: none)
    "other_target_position": 3,
    "other_goal_position": 3,
    "front_other_target_uv": 2,
    "front_other_goal_uv": 2,
    "wrist_other_target_uv": 2,
    "wrist_other_goal_uv": 2,
    # x, y of each thing of ``info["things"]``, one after the other, NaN where it is not in the picture
    "front_things_uv": 2 * NUM_THINGS,
    "wrist_things_uv": 2 * NUM_THINGS,
}


@runtime_checkable
class Policy(Protocol):
    """Learned, scripted, remote, replayed and trivial policies alike; a wrapper policy is a policy."""

    def reset(self) -> None:
        """Forget everything about the last episode."""
        ...

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """One chunk per observation, in the units of that observation's embodiment."""
        ...


@runtime_checkable
class Env(Protocol):
    """A gymnasium environment that knows its embodiment, speaks its instruction and can be restored.

    ``reset(seed=, options={"variant": Variant, "wording": Wording})`` is exact: the same
    (suite, task, embodiment, seed, options) gives the same scene, bit for bit. Observations are
    ``{"images": {camera: uint8 [h w 3]}, "state": {field: float32 [n]}, "instruction": str}``; ``info``
    always has ``success`` (bool), ``instruction`` (str) and ``aux`` (see ``AUX_KEYS``); that of ``reset``
    may have ``other_instructions`` (list of str), what else this scene can be asked to do, and ``things``
    (list of at most ``NUM_THINGS`` str), what is on the table, by name.
    """

    embodiment: Embodiment

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]: ...

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]: ...

    def save_state(self) -> dict[str, Any]:
        """Everything needed to continue exactly from here (numpy arrays and JSON values)."""
        ...

    def restore_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Continue from a saved state; returns the observation there."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Fingerprinted(Protocol):
    """An env that can tell whether another build of it gives the same episodes (optional)."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides what happens for a seed and actions."""
        ...


@runtime_checkable
class DrawsOnDemand(Protocol):
    """An env that need not draw every picture (optional).

    Where ``draws_on_demand`` is set, ``images`` is a mapping whose pictures are drawn when they are looked
    at, before the next step (``vla.pictures``); they are the same, bit for bit.
    """

    draws_on_demand: bool


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One entry of an evaluation grid: what is done with which arm."""

    task: str
    embodiment: str


@runtime_checkable
class Suite(Protocol):
    """A family of environments, found by name through the ``vla.suites`` entry point group.

    One that cannot do everything says what it can: ``variants``, ``wordings`` (else all), ``perturbations``
    (else none). ``groups`` (name -> tasks) may be named in place of tasks; ``levels`` are groups that results
    are given by and averaged over. ``heldout_embodiments`` are arms that it keeps out of training, so that a
    policy can be judged on an arm that it has never seen: demonstrations are made of the others unless they
    are named, training notes them, results mark them.
    """

    name: str
    tasks: tuple[str, ...]
    embodiments: tuple[str, ...]

    def make(self, task: str, embodiment: str, **kwargs: Any) -> Env:
        """Build an env; ``kwargs``: image_size (px), render (bool), render_hd (bool) ..."""
        ...

    def expert(self, env: Env) -> Policy:
        """A scripted policy bound to ``env`` (reads its simulator state)."""
        ...


def variants_of(suite: object) -> tuple[Variant, ...]:
    """Those that a suite or env knows: what its ``variants`` says, else all."""
    return getattr(suite, "variants", get_args(Variant))


def wordings_of(suite: object) -> tuple[Wording, ...]:
    """Those that a suite or env knows: what its ``wordings`` says, else all."""
    return getattr(suite, "wordings", get_args(Wording))


def heldout_embodiments_of(suite: object) -> tuple[str, ...]:
    """Arms that a suite keeps out of training; none where it does not say."""
    return getattr(suite, "heldout_embodiments", ())


def tasks_of(suite: Suite, named: Sequence[str] = ()) -> tuple[str, ...]:
    """Tasks by name, each once; a name of the suite's ``groups``, if it has any, stands for its tasks.

    Args:
        named: empty for all of the suite's.

    Raises:
        UnknownNameError: the suite has no such task or group.
    """
    groups: Mapping[str, tuple[str, ...]] = getattr(suite, "groups", {})
    found: dict[str, None] = {}
    for name in named or suite.tasks:
        if name not in suite.tasks and name not in groups:
            raise UnknownNameError(f"task of suite {suite.name!r}", name, (*suite.tasks, *groups))
        found.update(dict.fromkeys((name,) if name in suite.tasks else groups[name]))
    return tuple(found)


def observation_from_gym(
    obs: Mapping[str, Any],
    embodiment: Embodiment,
    *,
    time_s: float = 0.0,
    aux: Mapping[str, Any] | None = None,
) -> Observation:
    """Gymnasium observation -> :class:`~vla.types.Observation` (no copy)."""
    return Observation(
        images=obs["images"],
        state=obs["state"],
        instruction=obs["instruction"],
        embodiment=embodiment.name,
        time_s=time_s,
        aux=aux or {},
    )
