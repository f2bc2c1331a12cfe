"""Between an observation in an arm's units and the padded, normalised arrays a network sees.

Training packs whole stores at once (``vla.data.windows``); here is the same for live observations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla.data.statistics import Normalizer
from vla.embodiment import Embodiment
from vla.spaces import ACTION_DIM, STATE_DIM, gather, scatter, slot_mask
from vla.types import Observation


def stack_images(
    observation: Observation, embodiment: Embodiment, roles: Sequence[str], image_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [C h w 3] in the order of ``roles``; bool [C], false where there is no such camera (black)."""
    names = {camera.role: camera.name for camera in embodiment.cameras}
    images = np.zeros((len(roles), image_size, image_size, 3), np.uint8)
    for place, role in enumerate(roles):
        if role in names:
            images[place] = observation.images[names[role]]
    return images, np.array([role in names for role in roles])


def state_in_slots(
    observation: Observation, embodiment: Embodiment, normalizer: Normalizer
) -> tuple[np.ndarray, np.ndarray]:
    """Normalised state float32 [STATE_DIM] and its mask bool [STATE_DIM]."""
    packed = normalizer.normalise_state(embodiment.name, embodiment.pack_state(observation.state))
    index = embodiment.state_index
    return scatter(packed, index, STATE_DIM), slot_mask(index, STATE_DIM)


def actions_from_slots(chunk: np.ndarray, embodiment: Embodiment, normalizer: Normalizer) -> np.ndarray:
    """Normalised float32 [H ACTION_DIM] -> float32 [H action_dim] in the arm's units, never clipped."""
    return normalizer.unnormalise_action(embodiment.name, gather(chunk, embodiment.action_index))


def actions_in_slots(
    actions: np.ndarray, embodiment: Embodiment, normalizer: Normalizer
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of :func:`actions_from_slots`, and the mask bool [ACTION_DIM]."""
    index = embodiment.action_index
    normal = normalizer.normalise_action(embodiment.name, actions)
    return scatter(normal, index, ACTION_DIM), slot_mask(index, ACTION_DIM)
