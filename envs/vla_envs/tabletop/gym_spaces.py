"""What gymnasium wants to know of the environment: reset options and the space of observations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import gymnasium
import numpy as np

from vla.embodiment import Embodiment
from vla.errors import UnknownNameError
from vla.interfaces import Variant, Wording
from vla_envs.tabletop.perturbations import PERTURBATIONS


def reset_options(options: Mapping[str, Any] | None) -> tuple[Variant, Wording, str]:
    """Variant, wording and perturbation; empty where nothing is perturbed."""
    options = dict(options or {})
    variant: Variant = options.pop("variant", "base")
    wording: Wording = options.pop("wording", "train")
    for value, allowed, what in ((variant, Variant, "variant"), (wording, Wording, "wording")):
        if value not in get_args(allowed):
            raise UnknownNameError(what, str(value), get_args(allowed))
    perturbation = str(options.pop("perturbation", ""))
    if perturbation and perturbation not in PERTURBATIONS:
        raise UnknownNameError("perturbation", perturbation, PERTURBATIONS)
    if options:
        raise UnknownNameError("reset option", sorted(options)[0], ("variant", "wording", "perturbation"))
    return variant, wording, perturbation


def observation_space(embodiment: Embodiment, render: bool) -> gymnasium.spaces.Dict:
    images: dict[str, gymnasium.Space[Any]] = {
        c.name: gymnasium.spaces.Box(0, 255, (c.height, c.width, 3), np.uint8) for c in embodiment.cameras
    }
    state: dict[str, gymnasium.Space[Any]] = {
        f.name: gymnasium.spaces.Box(np.array(f.low, np.float32), np.array(f.high, np.float32))
        for f in embodiment.state
    }
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,.!?'-"
    return gymnasium.spaces.Dict(
        {
            "images": gymnasium.spaces.Dict(images if render else {}),
            "state": gymnasium.spaces.Dict(state),
            "instruction": gymnasium.spaces.Text(max_length=256, min_length=0, charset=letters),
        }
    )
